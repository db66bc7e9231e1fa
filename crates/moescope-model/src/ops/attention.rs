//! Attention: from projected rows to heads, and heads over cached keys and values.

use std::ops::Range;

use burn::tensor::{Bool, Device, Int, Tensor, activation};

use super::{
    cpu::{self, heads::Prepare},
    norm::RmsNorm,
    rope::Rotation,
};

/// Which of the keys returned by the cache a call may attend to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySpan {
    /// Valid slots, from 0.
    pub len: usize,
    /// `None`: every query sees every valid key (one new token).
    pub mask: Option<CausalMask>,
}

/// Causal visibility, with or without a sliding window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CausalMask {
    /// Index among the keys of the first query's own key.
    pub offset: usize,
    /// Keys a query sees at most, its own included.
    pub window: Option<usize>,
}

impl CausalMask {
    /// Keys seen by query `i`: from the first to before the second.
    pub fn keys_of(&self, i: usize) -> (usize, usize) {
        let end = self.offset + i + 1;
        (self.window.map_or(0, |window| end.saturating_sub(window)), end)
    }
}

/// How scores are made from dot products.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// Multiplies the dot product.
    pub scale: f32,
    /// `cap * tanh(score / cap)`, where the family has it.
    pub soft_cap: Option<f32>,
}

/// What happens to heads before they attend.
#[derive(Clone, Copy, Default)]
pub struct Heads<'a> {
    /// RMS norm over each head.
    pub norm: Option<&'a RmsNorm>,
    /// Rotary embedding, after the norm.
    pub rotation: Option<&'a Rotation>,
}

impl Heads<'_> {
    /// Columns of `x [T, *]` as heads: `[B, N, S, D]`, normalised and rotated.
    pub fn split(&self, x: &Tensor<2>, columns: Range<usize>, dims: [usize; 4]) -> Tensor<4> {
        let [batch, heads, seq, dim] = dims;
        let [t, width] = x.dims();
        if cpu::is_cpu(&x.device()) {
            let x = cpu::host(x.clone());
            let weight = self.norm.and_then(|n| n.weight.clone()).map(cpu::host);
            let table = self.rotation.map(|r| (cpu::host(r.cos.clone()), cpu::host(r.sin.clone())));
            let prepare = Prepare {
                norm: self.norm.map(|norm| (weight.as_ref().map(cpu::f32s), norm.eps)),
                rotate: table.as_ref().map(|(cos, sin)| (cpu::f32s(cos), cpu::f32s(sin))),
            };
            let out = cpu::heads::split(cpu::f32s(&x), width, columns, dims, prepare);
            return cpu::tensor(out, dims);
        }
        let x = x.clone().slice([0..t, columns]).reshape([batch, seq, heads, dim]);
        let x = match self.norm {
            Some(norm) => norm.compose(x),
            None => x,
        };
        let x = x.swap_dims(1, 2);
        match self.rotation {
            Some(rotation) => rotation.compose(x),
            None => x,
        }
    }
}

/// `q [B, Nq, S, D]` over `k, v [B, Nkv, C, D]`: `[T, Nq * D]`. Nq is a multiple of Nkv.
pub fn attend(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    span: &KeySpan,
    scores: &Scores,
) -> Tensor<2> {
    let [batch, heads, seq, dim] = q.dims();
    let [_, kv_heads, slots, _] = k.dims();
    if cpu::is_cpu(&q.device()) {
        let (q, k, v) = (cpu::host(q), cpu::host(k), cpu::host(v));
        let shape = cpu::attention::Shape { batch, heads, kv_heads, seq, slots, dim };
        let (q, k, v) = (cpu::f32s(&q), cpu::f32s(&k), cpu::f32s(&v));
        let out = cpu::attention::attend(q, k, v, shape, span, scores);
        return cpu::tensor(out, [batch * seq, heads * dim]);
    }
    let device = q.device();
    let group = heads / kv_heads;
    let keys = |x: Tensor<4>| match span.len == slots {
        true => x,
        false => x.slice([0..batch, 0..kv_heads, 0..span.len, 0..dim]),
    };
    // The queries that share a key head become more rows of one product: no key is repeated.
    let q = q.reshape([batch, kv_heads, group * seq, dim]);
    let mut p = q.matmul(keys(k).swap_dims(2, 3));
    if scores.scale != 1.0 {
        p = p * scores.scale;
    }
    if let Some(cap) = scores.soft_cap {
        p = (p / cap).tanh() * cap;
    }
    if let Some(mask) = span.mask {
        let hidden = hidden_keys(mask, seq, span.len, &device);
        let p5 = p.reshape([batch, kv_heads, group, seq, span.len]);
        let p5 = p5.mask_fill(hidden.unsqueeze::<5>(), f32::MIN);
        p = p5.reshape([batch, kv_heads, group * seq, span.len]);
    }
    let out = activation::softmax(p, 3).matmul(keys(v));
    out.reshape([batch, heads, seq, dim]).swap_dims(1, 2).reshape([batch * seq, heads * dim])
}

/// `[S, L]`, true where a key is hidden from a query; made on the device.
fn hidden_keys(mask: CausalMask, seq: usize, len: usize, device: &Device) -> Tensor<2, Bool> {
    let query = Tensor::<1, Int>::arange(0..seq as i64, device).reshape([seq, 1]);
    let key = Tensor::<1, Int>::arange(0..len as i64, device).reshape([1, len]);
    // How far the key lies after the query's own.
    let ahead = key - query - mask.offset as i64;
    let future = ahead.clone().greater_elem(0);
    match mask.window {
        Some(window) => future.bool_or(ahead.lower_equal_elem(-(window as i64))),
        None => future,
    }
}
