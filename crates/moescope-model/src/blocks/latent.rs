//! Multi-head latent attention (DeepSeek-AI, arXiv 2405.04434, section 2.1): keys and values of all heads
//! are projections of one small latent per token, and only that is cached.
//!
//! The projections are absorbed: instead of expanding every cached latent into keys, a query is
//! projected into the latents' space, attends there, and the sum of latents it gets is projected to a
//! value. R is the rank of the latents, P the size of the rotated part of a key, D of the other part.

use burn::tensor::Tensor;

use super::{
    decoder::Pass,
    layer::{Mix, MixShape},
    tensors::{Tensors, Weights},
};
use crate::{
    error::Result,
    ops::{
        attention::{Heads, Scores, attend_latent},
        linear::{Linear, linear, linear_by_head},
        norm::RmsNorm,
        pieces::Pieces,
    },
    spec::{KvSpec, Part},
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
        let LatentShape { heads, rank, rope_dim, .. } = self.shape;
        let (batch, seq) = (pass.batch, pass.seq);
        let (plain, turned) =
            (Heads::default(), Heads { norm: None, rotation: pass.rotations.first() });

        let latent = self.kv_latent.forward(x.clone());
        let normed = Heads { norm: Some(&self.kv_norm), rotation: None };
        let keys = Tensor::cat(
            vec![
                normed.split(&latent, 0..rank, [batch, 1, seq, rank]),
                turned.split(&latent, rank..rank + rope_dim, [batch, 1, seq, rope_dim]),
            ],
            3,
        );

        let x = match &self.q_latent {
            None => x,
            Some((project, norm)) => norm.forward(project.forward(x)),
        };
        let absorbed = linear_by_head(linear(x.clone(), &self.q_nope), &self.absorb);
        let rotated = linear(x, &self.q_rope);
        let queries = Tensor::cat(
            vec![
                plain.split(&absorbed, 0..heads * rank, [batch, heads, seq, rank]),
                turned.split(&rotated, 0..heads * rope_dim, [batch, heads, seq, rope_dim]),
            ],
            3,
        );

        let (latents, span) = pass.cache.extend_latent(self.index, keys);
        let scores = Scores::scaled(self.shape.scale);
        let attended = attend_latent(queries, latents, rank, &span, &scores);
        self.out.forward(linear_by_head(attended, &self.values))
    }
}
