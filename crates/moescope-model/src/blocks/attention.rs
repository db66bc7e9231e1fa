//! Grouped-query attention (J. Ainslie et al., arXiv 2305.13245) in the variants families differ by.

use std::ops::Range;

use burn::tensor::Tensor;

use super::{
    config::Sizes,
    decoder::Pass,
    layer::{Mix, MixShape},
    tensors::{Tensors, Weights},
};
use crate::{
    error::Result,
    ops::{
        attention::{Heads, Scores, attend},
        linear::Linear,
        norm::RmsNorm,
    },
    spec::{KvSpec, Part},
};

/// What a config says about the attention of a layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionShape {
    /// Width of the residual stream, H.
    pub(crate) hidden: usize,
    /// Query heads, N.
    pub(crate) heads: usize,
    /// Key and value heads, a divisor of N.
    pub(crate) kv_heads: usize,
    /// Size of a head, D.
    pub(crate) head_dim: usize,
    /// Whether query, key and value projections have biases.
    pub(crate) qkv_bias: bool,
    /// Whether the output projection has one.
    pub(crate) out_bias: bool,
    /// Norms of queries and keys.
    pub(crate) qk_norm: Option<QkNorm>,
    /// Queries, keys and values are clamped to +- this, after their norms.
    pub(crate) clip: Option<f32>,
    /// Tokens a query sees at most, its own included.
    pub(crate) window: Option<usize>,
    /// Which of the decoder's rotary embeddings.
    pub(crate) rope: usize,
    /// Multiplies dot products.
    pub(crate) scale: f32,
    /// `cap * tanh(score / cap)`, where the family has it.
    pub(crate) soft_cap: Option<f32>,
    /// Whether each query head has a sink (`sinks`): a score that competes and has no value.
    pub(crate) sinks: bool,
}

/// RMS norms of queries and keys, before they are rotated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QkNorm {
    /// What is normalised together.
    pub(crate) over: NormOver,
    /// Added to the mean square.
    pub(crate) eps: f32,
    /// Added to the weight.
    pub(crate) offset: f32,
}

/// What an RMS norm of queries or keys is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NormOver {
    /// Each head by itself.
    Head,
    /// All heads of a token.
    All,
}

impl AttentionShape {
    /// No more than every family has: no biases, norms or window, the first rope, scores scaled by
    /// the root of the head size.
    pub(crate) fn plain(sizes: &Sizes) -> Self {
        AttentionShape {
            hidden: sizes.hidden,
            heads: sizes.heads,
            kv_heads: sizes.kv_heads,
            head_dim: sizes.head_dim,
            qkv_bias: false,
            out_bias: false,
            qk_norm: None,
            clip: None,
            window: None,
            rope: 0,
            scale: (sizes.head_dim as f32).powf(-0.5),
            soft_cap: None,
            sinks: false,
        }
    }

    /// Columns of queries, keys and values in the one product of all three.
    fn columns(&self) -> [Range<usize>; 3] {
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        [0..q, q..q + kv, q + kv..q + 2 * kv]
    }

    /// Projections of queries, keys and values: name and rows.
    fn projections(&self) -> [(&'static str, usize); 3] {
        let [q, k, v] = self.columns();
        [("q_proj", q.len()), ("k_proj", k.len()), ("v_proj", v.len())]
    }

    /// Norms: name and width.
    fn norms(&self, norm: QkNorm) -> [(&'static str, usize); 2] {
        let [q, k, _] = self.columns();
        match norm.over {
            NormOver::Head => [("q_norm.weight", self.head_dim), ("k_norm.weight", self.head_dim)],
            NormOver::All => [("q_norm.weight", q.len()), ("k_norm.weight", k.len())],
        }
    }
}

impl MixShape for AttentionShape {
    type Loaded = Attention;

    fn kv(&self) -> KvSpec {
        KvSpec {
            heads: self.kv_heads,
            head_dim: self.head_dim,
            value_dim: self.head_dim,
            window: self.window,
            query_heads: self.heads,
            attended_dim: self.head_dim,
            source: None,
            latent: None,
        }
    }

    fn declare(&self, tensors: &mut Tensors) {
        let part = Part::Attention;
        for (name, rows) in self.projections() {
            tensors.add(&format!("{name}.weight"), &[rows, self.hidden], part);
            if self.qkv_bias {
                tensors.add(&format!("{name}.bias"), &[rows], part);
            }
        }
        tensors.add("o_proj.weight", &[self.hidden, self.heads * self.head_dim], part);
        if self.out_bias {
            tensors.add("o_proj.bias", &[self.hidden], part);
        }
        if self.sinks {
            tensors.add("sinks", &[self.heads], part);
        }
        for (name, width) in self.qk_norm.map(|norm| self.norms(norm)).into_iter().flatten() {
            tensors.add(name, &[width], Part::Norms);
        }
    }

    fn load(&self, w: &Weights<'_>, index: usize) -> Result<Attention> {
        let parts = self.projections();
        let named = |suffix: &str| parts.map(|(name, rows)| (format!("{name}.{suffix}"), rows));
        let (weights, biases) = (named("weight"), named("bias"));
        let weights = weights.each_ref().map(|(name, rows)| (name.as_str(), *rows));
        let biases = biases.each_ref().map(|(name, rows)| (name.as_str(), *rows));
        let norms = self.qk_norm.map(|norm| {
            let [(q, q_width), (k, k_width)] = self.norms(norm);
            Ok((
                w.norm(q, q_width, norm.eps, norm.offset)?,
                w.norm(k, k_width, norm.eps, norm.offset)?,
            ))
        });
        let (q_norm, k_norm) = norms.transpose()?.unzip();
        Ok(Attention {
            shape: *self,
            index,
            qkv: Linear {
                weight: w.stacked(&weights, self.hidden)?,
                bias: if self.qkv_bias { Some(w.joined(&biases)?) } else { None },
            },
            q_norm,
            k_norm,
            sinks: if self.sinks { Some(w.exact("sinks", [self.heads])?) } else { None },
            out: Linear {
                weight: w.weight("o_proj.weight", [self.hidden, self.heads * self.head_dim])?,
                bias: match self.out_bias {
                    true => Some(w.exact("o_proj.bias", [self.hidden])?),
                    false => None,
                },
            },
        })
    }
}

/// Attention of one layer.
pub(crate) struct Attention {
    shape: AttentionShape,
    /// The layer it is in.
    index: usize,
    /// Queries over keys over values: one product for all.
    qkv: Linear,
    q_norm: Option<RmsNorm>,
    k_norm: Option<RmsNorm>,
    /// `[N]`.
    sinks: Option<Tensor<1>>,
    out: Linear,
}

impl Mix for Attention {
    fn forward(&self, x: Tensor<2>, pass: &mut Pass<'_>) -> Tensor<2> {
        let s = &self.shape;
        let qkv = self.qkv.forward(x);
        let [q, k, v] = s.columns();
        let q = self.split(&qkv, q, s.heads, self.q_norm.as_ref(), true, pass);
        let k = self.split(&qkv, k, s.kv_heads, self.k_norm.as_ref(), true, pass);
        let v = self.split(&qkv, v, s.kv_heads, None, false, pass);
        let (k, v, span) = pass.cache.extend(self.index, k, v);
        let sinks = self.sinks.as_ref();
        let scores = Scores { scale: s.scale, soft_cap: s.soft_cap, sinks };
        self.out.forward(attend(q, k, v, &span, &scores))
    }
}

impl Attention {
    /// Columns of `qkv [T, *]` as heads `[B, N, S, D]`, normalised, clamped and rotated.
    fn split(
        &self,
        qkv: &Tensor<2>,
        columns: Range<usize>,
        heads: usize,
        norm: Option<&RmsNorm>,
        rotate: bool,
        pass: &Pass<'_>,
    ) -> Tensor<4> {
        let dims = [pass.batch, heads, pass.seq, self.shape.head_dim];
        let rotation = rotate.then(|| &pass.rotations[self.shape.rope]);
        let over_all = self.shape.qk_norm.is_some_and(|norm| norm.over == NormOver::All);
        if !over_all && self.shape.clip.is_none() {
            return Heads { norm, rotation }.split(qkv, columns, dims);
        }
        // What goes beyond a head comes before heads are split.
        let [t, _] = qkv.dims();
        let width = columns.len();
        let mut x = qkv.clone().slice([0..t, columns]);
        let mut heads = Heads { norm, rotation };
        if let (true, Some(norm)) = (over_all, norm) {
            x = norm.forward(x);
            heads.norm = None;
        }
        if let Some(clip) = self.shape.clip {
            x = x.clamp(-clip, clip);
        }
        heads.split(&x, 0..width, dims)
    }
}
