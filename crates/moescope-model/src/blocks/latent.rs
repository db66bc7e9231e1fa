//! Multi-head latent attention (DeepSeek-AI, arXiv 2405.04434, section 2.1): keys and values of all heads
//! are projections of one small latent per token, and only that is cached.
//!
//! R is the rank of the latents, P the size of the rotated part of a key, D of the other part, Dv of a value.
//! There are two ways to the same result:
//!
//! - *absorbed*: a query is projected into the latents' space, attends there, and the sum of latents it gets is
//!   projected to a value. Nothing is made per cached token; a product of query and key is R + P long.
//! - *expanded*: every latent becomes a key and a value per head, and attention is the usual one. A product is
//!   D + P long, which pays where many queries share the keys: in a long prefill.

use burn::tensor::{Tensor, s};

use super::{
    decoder::Pass,
    layer::{Mix, MixShape},
    tensors::{Tensors, Weights},
};
use crate::{
    error::Result,
    ops::{
        attention::{Heads, KeySpan, Scores, attend, attend_latent},
        linear::{Linear, linear, linear_by_head},
        norm::RmsNorm,
        pieces::Pieces,
    },
    spec::{KvSpec, LatentSpec, Part},
};

/// Epsilon of the norms within: the reference's default, whatever the config says for others.
const EPS: f32 = 1e-6;

/// What a config says about latent attention.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LatentShape {
    /// Width of the residual stream, H.
    pub(crate) hidden: usize,
    /// Heads, N.
    pub(crate) heads: usize,
    /// Rank of the latents of queries; `None` projects queries directly.
    pub(crate) q_rank: Option<usize>,
    /// Rank of the latents of keys and values, R.
    pub(crate) rank: usize,
    /// Size of the part of a key that does not turn, D.
    pub(crate) nope_dim: usize,
    /// Size of the part that does, P; all heads share it.
    pub(crate) rope_dim: usize,
    /// Size of a value.
    pub(crate) value_dim: usize,
    /// Whether the projections from and to the residual stream have biases.
    pub(crate) bias: bool,
    /// Multiplies dot products.
    pub(crate) scale: f32,
}

impl LatentShape {
    fn key_dim(&self) -> usize {
        self.nope_dim + self.rope_dim
    }

    fn sizes(&self) -> LatentSpec {
        LatentSpec {
            rank: self.rank,
            nope_dim: self.nope_dim,
            rope_dim: self.rope_dim,
            value_dim: self.value_dim,
        }
    }

    fn projection(
        &self,
        w: &Weights<'_>,
        name: &str,
        rows: usize,
        columns: usize,
    ) -> Result<Linear> {
        let bias = match self.bias {
            true => Some(w.exact(&format!("{name}.bias"), [rows])?),
            false => None,
        };
        Ok(Linear { weight: w.weight(&format!("{name}.weight"), [rows, columns])?, bias })
    }
}

impl MixShape for LatentShape {
    type Loaded = LatentAttention;

    fn kv(&self) -> KvSpec {
        KvSpec {
            heads: 1,
            head_dim: self.rank + self.rope_dim,
            value_dim: 0,
            window: None,
            query_heads: self.heads,
            attended_dim: self.rank,
            source: None,
            latent: Some(self.sizes()),
        }
    }

    fn declare(&self, tensors: &mut Tensors) {
        let part = Part::Attention;
        let mut project = |name: &str, rows: usize, columns: usize, bias: bool| {
            tensors.add(&format!("{name}.weight"), &[rows, columns], part);
            if bias {
                tensors.add(&format!("{name}.bias"), &[rows], part);
            }
        };
        let queries = self.heads * self.key_dim();
        match self.q_rank {
            None => project("q_proj", queries, self.hidden, false),
            Some(rank) => {
                project("q_a_proj", rank, self.hidden, self.bias);
                project("q_b_proj", queries, rank, false);
            }
        }
        project("kv_a_proj_with_mqa", self.rank + self.rope_dim, self.hidden, self.bias);
        let expanded = self.heads * (self.nope_dim + self.value_dim);
        project("kv_b_proj", expanded, self.rank, false);
        project("o_proj", self.hidden, self.heads * self.value_dim, self.bias);
        if let Some(rank) = self.q_rank {
            tensors.add("q_a_layernorm.weight", &[rank], Part::Norms);
        }
        tensors.add("kv_a_layernorm.weight", &[self.rank], Part::Norms);
    }

    fn load(&self, w: &Weights<'_>, index: usize) -> Result<LatentAttention> {
        let LatentShape { hidden, heads, rank, nope_dim, rope_dim, value_dim, .. } = *self;
        let (q_name, q_inner) = match self.q_rank {
            None => ("q_proj.weight", hidden),
            Some(q_rank) => ("q_b_proj.weight", q_rank),
        };
        // Heads lie one after the other, each its two parts: `[N, D + P, *]`.
        let queries = w.stored(q_name, &[heads * self.key_dim(), q_inner])?;
        let part_of = |from: usize, rows: usize| {
            queries.gathered(heads * rows * q_inner, |i| {
                let (row, column) = (i / q_inner, i % q_inner);
                let (head, row) = (row / rows, row % rows);
                (head * self.key_dim() + from + row) * q_inner + column
            })
        };
        let (q_nope, q_rope) = (part_of(0, nope_dim), part_of(nope_dim, rope_dim));
        drop(queries);
        // As for queries, the key's part and the value: `[N, D + Dv, R]`.
        let each = nope_dim + value_dim;
        let expand = w.stored("kv_b_proj.weight", &[heads * each, rank])?;
        let absorb = expand.gathered(heads * rank * nope_dim, |i| {
            let (head, r, d) = (i / nope_dim / rank, i / nope_dim % rank, i % nope_dim);
            (head * each + d) * rank + r
        });
        let values = expand.gathered(heads * value_dim * rank, |i| {
            let (row, r) = (i / rank, i % rank);
            (row / value_dim * each + nope_dim + row % value_dim) * rank + r
        });
        drop(expand);
        Ok(LatentAttention {
            shape: *self,
            index,
            q_latent: match self.q_rank {
                None => None,
                Some(q_rank) => Some((
                    self.projection(w, "q_a_proj", q_rank, hidden)?,
                    w.norm("q_a_layernorm.weight", q_rank, EPS, 0.0)?,
                )),
            },
            q_nope: w.upload(q_nope, [heads * nope_dim, q_inner])?,
            q_rope: w.upload(q_rope, [heads * rope_dim, q_inner])?,
            absorb: w.upload(absorb, [heads, rank, nope_dim])?,
            kv_latent: self.projection(w, "kv_a_proj_with_mqa", rank + rope_dim, hidden)?,
            kv_norm: w.norm("kv_a_layernorm.weight", rank, EPS, 0.0)?,
            values: w.upload(values, [heads, value_dim, rank])?,
            out: self.projection(w, "o_proj", hidden, heads * value_dim)?,
        })
    }
}

/// Latent attention of one layer.
pub(crate) struct LatentAttention {
    shape: LatentShape,
    /// The layer it is in.
    index: usize,
    /// To the latents of queries, and their norm.
    q_latent: Option<(Linear, RmsNorm)>,
    /// `[N D, *]`.
    q_nope: Pieces<2>,
    /// `[N P, *]`.
    q_rope: Pieces<2>,
    /// From the part of a query that does not turn into the latents' space, `[N, R, D]`.
    absorb: Pieces<3>,
    /// To a latent and the rotated part of its key, `[R + P, H]`.
    kv_latent: Linear,
    kv_norm: RmsNorm,
    /// From latents to values, `[N, Dv, R]`.
    values: Pieces<3>,
    out: Linear,
}

impl Mix for LatentAttention {
    fn forward(&self, x: Tensor<2>, pass: &mut Pass<'_>) -> Tensor<2> {
        let LatentShape { rank, rope_dim, .. } = self.shape;
        let (batch, seq) = (pass.batch, pass.seq);
        let turned = Heads { norm: None, rotation: pass.rotations.first() };

        let latent = self.kv_latent.forward(x.clone());
        let normed = Heads { norm: Some(&self.kv_norm), rotation: None };
        let keys = Tensor::cat(
            vec![
                normed.split(&latent, 0..rank, [batch, 1, seq, rank]),
                turned.split(&latent, rank..rank + rope_dim, [batch, 1, seq, rope_dim]),
            ],
            3,
        );
        let (latents, span) = pass.cache.extend_latent(self.index, keys);

        let x = match &self.q_latent {
            None => x,
            Some((project, norm)) => norm.forward(project.forward(x)),
        };
        let attended = match self.shape.sizes().expands(seq, span.len) {
            true => self.expanded(x, latents, &span, pass),
            false => self.absorbed(x, latents, &span, pass),
        };
        self.out.forward(attended)
    }
}

impl LatentAttention {
    /// Attention over the latents `[B, 1, C, R + P]` themselves: `[T, N Dv]`, for the inputs `x [T, *]` of queries.
    fn absorbed(
        &self,
        x: Tensor<2>,
        latents: Tensor<4>,
        span: &KeySpan,
        pass: &Pass<'_>,
    ) -> Tensor<2> {
        let absorbed = linear_by_head(linear(x.clone(), &self.q_nope), &self.absorb);
        let queries = self.queries(x, &absorbed, self.shape.rank, pass);
        let scores = Scores::scaled(self.shape.scale);
        let attended = attend_latent(queries, latents, self.shape.rank, span, &scores);
        linear_by_head(attended, &self.values)
    }

    /// The same over keys and values of every head. The cache returned the latents in order, no more than are seen.
    fn expanded(
        &self,
        x: Tensor<2>,
        latents: Tensor<4>,
        span: &KeySpan,
        pass: &Pass<'_>,
    ) -> Tensor<2> {
        let LatentShape { heads, rank, nope_dim, rope_dim, value_dim, .. } = self.shape;
        let (batch, keys) = (pass.batch, span.len);
        let nope = linear(x.clone(), &self.q_nope);
        let queries = self.queries(x, &nope, nope_dim, pass);

        let latent = latents.clone().slice(s![.., .., .., 0..rank]).reshape([batch * keys, rank]);
        let shared = latents.slice(s![.., .., .., rank..rank + rope_dim]);
        let of_heads = |weight: Pieces<2>, dim: usize| {
            let all = linear(latent.clone(), &weight);
            Heads::default().split(&all, 0..heads * dim, [batch, heads, keys, dim])
        };
        let by_rows = |piece: Tensor<3>| {
            let [heads, rows, columns] = piece.dims();
            piece.reshape([heads * rows, columns])
        };
        let own = of_heads(self.absorb.map(|piece| by_rows(piece.swap_dims(1, 2))), nope_dim);
        let values = of_heads(self.values.map(by_rows), value_dim);
        let shared = shared.expand([batch, heads, keys, rope_dim]);
        let keys = Tensor::cat(vec![own, shared], 3);
        attend(queries, keys, values, span, &Scores::scaled(self.shape.scale))
    }

    /// Queries `[B, N, S, part + P]`: `part` columns per head of `first [T, N part]`, and those that turn.
    fn queries(&self, x: Tensor<2>, first: &Tensor<2>, part: usize, pass: &Pass<'_>) -> Tensor<4> {
        let LatentShape { heads, rope_dim, .. } = self.shape;
        let rotated = linear(x, &self.q_rope);
        let turned = Heads { norm: None, rotation: pass.rotations.first() };
        let dims = |dim: usize| [pass.batch, heads, pass.seq, dim];
        let both = vec![
            Heads::default().split(first, 0..heads * part, dims(part)),
            turned.split(&rotated, 0..heads * rope_dim, dims(rope_dim)),
        ];
        Tensor::cat(both, 3)
    }
}
