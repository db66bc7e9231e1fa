//! Attention: from projected rows to heads, and heads over cached keys and values.

use std::ops::Range;

use burn::tensor::Tensor;

use super::{
    cpu::{
        self,
        heads::{Prepare, Turn},
    },
    gpu,
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

/// How scores are made from dot products, and what they compete with.
#[derive(Clone, Copy, Debug)]
pub struct Scores<'a> {
    /// Multiplies the dot product.
    pub scale: f32,
    /// `cap * tanh(score / cap)`, where the family has it.
    pub soft_cap: Option<f32>,
    /// One more score per query head, `[Nq]`, that takes its share of the softmax and has no value
    /// (the attention sinks of gpt-oss), f32.
    pub sinks: Option<&'a Tensor<1>>,
}

impl Scores<'_> {
    /// Dot products times `scale`, nothing else.
    pub const fn scaled(scale: f32) -> Self {
        Scores { scale, soft_cap: None, sinks: None }
    }
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
        let [_, width] = x.dims();
        if cpu::is_cpu(&x.device()) {
            let x = cpu::host(x.clone());
            let weight = self.norm.and_then(|n| n.weight.clone()).map(cpu::host);
            let table = self
                .rotation
                .map(|r| (cpu::host(r.cos.clone()), cpu::host(r.sin.clone()), r.pairing));
            let own = self.rotation.map_or(0..0, |r| {
                let [_, pairs] = r.cos.dims();
                r.first * pairs..(r.first + dims[2]) * pairs
            });
            let prepare = Prepare {
                norm: self.norm.map(|norm| (weight.as_ref().map(cpu::f32s), norm.eps)),
                turn: table.as_ref().map(|(cos, sin, pairing)| Turn {
                    cos: &cpu::f32s(cos)[own.clone()],
                    sin: &cpu::f32s(sin)[own.clone()],
                    pairing: *pairing,
                }),
            };
            let out = cpu::heads::split(cpu::f32s(&x), width, columns, dims, prepare);
            return cpu::tensor(out, dims);
        }
        let weight = self.norm.and_then(|norm| norm.weight.as_ref());
        let norm = self.norm.map(|norm| gpu::Norm { eps: norm.eps, weighted: weight.is_some() });
        let turn = self.rotation.map(|rotation| {
            let (pairs, pairing) = (rotation.cos.dims()[1], rotation.pairing);
            gpu::Turn { first: rotation.first, pairs, pairing }
        });
        let table = self.rotation.map(|rotation| (&rotation.cos, &rotation.sin));
        let call = gpu::HeadsCall { column: columns.start, dims, norm, turn };
        gpu::split_heads(x.clone(), weight, table, call)
    }
}

/// `q [B, Nq, S, D]` over keys `k [B, Nkv, C, D]` with values `v [B, Nkv, C, Dv]`: `[T, Nq * Dv]`. Nq is a
/// multiple of Nkv.
pub fn attend(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    span: &KeySpan,
    scores: &Scores<'_>,
) -> Tensor<2> {
    let value_dim = v.dims()[3];
    if cpu::is_cpu(&q.device()) {
        let v = cpu::host(v);
        return on_cpu(q, k, Some(cpu::f32s(&v)), value_dim, span, scores);
    }
    on_gpu(q, k, v, value_dim, span, scores)
}

/// [`attend`] where the value of a key is its first `value_dim` columns: one tensor for both (the
/// compressed keys and values of latent attention).
pub fn attend_latent(
    q: Tensor<4>,
    latents: Tensor<4>,
    value_dim: usize,
    span: &KeySpan,
    scores: &Scores<'_>,
) -> Tensor<2> {
    if cpu::is_cpu(&q.device()) {
        return on_cpu(q, latents, None, value_dim, span, scores);
    }
    // Of several tokens all columns are multiplied and the superfluous ones dropped from the result: the
    // latents are large and would have to be copied.
    on_gpu(q, latents.clone(), latents, value_dim, span, scores)
}

fn on_cpu(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Option<&[f32]>,
    value_dim: usize,
    span: &KeySpan,
    scores: &Scores<'_>,
) -> Tensor<2> {
    let [batch, heads, seq, dim] = q.dims();
    let [_, kv_heads, slots, _] = k.dims();
    let (q, k) = (cpu::host(q), cpu::host(k));
    let (q, k) = (cpu::f32s(&q), cpu::f32s(&k));
    let sinks = scores.sinks.cloned().map(cpu::host);
    let shape = cpu::attention::Shape { batch, heads, kv_heads, seq, slots, dim, value_dim };
    let scores = cpu::attention::Scores {
        scale: scores.scale,
        soft_cap: scores.soft_cap,
        sinks: sinks.as_ref().map(cpu::f32s),
    };
    let out = cpu::attention::attend(q, k, v, shape, span, &scores);
    cpu::tensor(out, [batch * seq, heads * value_dim])
}

/// One new token goes through a kernel that reads the cache where it lies, more through matrix products. Values
/// may have more columns than the `value_dim` that count.
fn on_gpu(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    value_dim: usize,
    span: &KeySpan,
    scores: &Scores<'_>,
) -> Tensor<2> {
    let Scores { scale, soft_cap, sinks } = *scores;
    let sunk = sinks.is_some();
    let Some(mask) = span.mask else {
        let call = gpu::DecodeCall { len: span.len, value_dim, scale, soft_cap, sinks: sunk };
        return gpu::attend_one(q, k, v, sinks, call);
    };
    let [batch, heads, seq, dim] = q.dims();
    let [_, kv_heads, slots, _] = k.dims();
    let valid = |x: Tensor<4>| match span.len == slots {
        true => x,
        false => {
            let columns = x.dims()[3];
            x.slice([0..batch, 0..kv_heads, 0..span.len, 0..columns])
        }
    };
    // The queries that share a key head become more rows of one product: no key is repeated.
    let q = q.reshape([batch, kv_heads, heads / kv_heads * seq, dim]);
    let dots = q.matmul(valid(k).swap_dims(2, 3));
    let call = gpu::SoftmaxCall { seq, heads, mask, scale, soft_cap, sinks: sunk };
    let v = valid(v);
    let columns = v.dims()[3];
    let out = gpu::softmax_rows(dots, sinks, call).matmul(v);
    let out = out.reshape([batch, heads, seq, columns]);
    let out = match columns == value_dim {
        true => out,
        false => out.slice([0..batch, 0..heads, 0..seq, 0..value_dim]),
    };
    out.swap_dims(1, 2).reshape([batch * seq, heads * value_dim])
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device, DeviceKind, TensorData};
    use proptest::prelude::*;

    use super::*;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761) | 1;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    /// Sizes of a call: sequences, query heads per key head, key heads, new tokens, keys before them, size
    /// of a key, size of a value.
    type Sizes = [usize; 7];

    struct Inputs {
        q: Vec<f32>,
        k: Vec<f32>,
        v: Vec<f32>,
        sinks: Vec<f32>,
    }

    /// One query, one key at a time; without `mask` a query sees every key.
    fn plain(
        sizes: Sizes,
        x: &Inputs,
        mask: Option<CausalMask>,
        scale: f32,
        cap: Option<f32>,
    ) -> Vec<f64> {
        let [batch, group, kv_heads, seq, before, dim, value_dim] = sizes;
        let (heads, keys) = (group * kv_heads, before + seq);
        let mut out = Vec::new();
        for (b, s, h) in
            (0..batch * seq * heads).map(|i| (i / heads / seq, i / heads % seq, i % heads))
        {
            let kv = (b * kv_heads + h / group) * keys;
            let q = &x.q[((b * heads + h) * seq + s) * dim..][..dim];
            let (from, to) = mask.map_or((0, keys), |mask| mask.keys_of(s));
            let score = |key: usize| {
                let k = &x.k[(kv + key) * dim..][..dim];
                let dot: f64 = q.iter().zip(k).map(|(q, k)| f64::from(q * k)).sum();
                let score = dot * f64::from(scale);
                cap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh()).exp()
            };
            let weights: Vec<f64> = (from..to).map(score).collect();
            let sink = x.sinks.get(h).map_or(0.0, |sink| f64::from(*sink).exp());
            let sum = weights.iter().sum::<f64>() + sink;
            out.extend((0..value_dim).map(|d| {
                let part =
                    |(w, key): (&f64, usize)| w / sum * f64::from(x.v[(kv + key) * value_dim + d]);
                weights.iter().zip(from..to).map(part).sum::<f64>()
            }));
        }
        out
    }

    fn check(
        device: &Device,
        sizes: Sizes,
        window: Option<usize>,
        cap: Option<f32>,
        sinks: bool,
        latent: bool,
        seed: u32,
    ) {
        let [batch, group, kv_heads, seq, before, dim, value_dim] = sizes;
        let (heads, keys) = (group * kv_heads, before + seq);
        let k = values(batch * kv_heads * keys * dim, seed + 1);
        let v = match latent {
            true => k.chunks(dim).flat_map(|k| &k[..value_dim]).copied().collect(),
            false => values(batch * kv_heads * keys * value_dim, seed + 2),
        };
        let q = values(batch * heads * seq * dim, seed);
        let inputs = Inputs { q, k, v, sinks: values(if sinks { heads } else { 0 }, seed + 3) };
        // One new token sees all that the cache shows.
        let mask = (seq > 1).then_some(CausalMask { offset: before, window });
        let scale = 0.7;
        let want = plain(sizes, &inputs, mask, scale, cap);
        let tensor = |values: &[f32], shape: [usize; 4]| {
            Tensor::<4>::from_data(TensorData::new(values.to_vec(), shape), device)
        };
        let sinks = Tensor::<1>::from_floats(inputs.sinks.as_slice(), device);
        let scores =
            Scores { scale, soft_cap: cap, sinks: (heads == inputs.sinks.len()).then_some(&sinks) };
        let q = tensor(&inputs.q, [batch, heads, seq, dim]);
        // A slot that is not filled yet.
        let cached = |values: &[f32], dim: usize| {
            let filled = tensor(values, [batch, kv_heads, keys, dim]);
            Tensor::cat(vec![filled, Tensor::full([batch, kv_heads, 1, dim], 9.0, device)], 2)
        };
        let (k, v) = (cached(&inputs.k, dim), cached(&inputs.v, value_dim));
        let span = KeySpan { len: keys, mask };
        let got = match latent {
            true => attend_latent(q, k, value_dim, &span, &scores),
            false => attend(q, k, v, &span, &scores),
        };
        assert_eq!(got.dims(), [batch * seq, heads * value_dim]);
        let got: Vec<f32> = got.into_data_dtype(DType::F32).try_into_vec().unwrap();
        for (got, want) in got.iter().zip(&want) {
            let off = (f64::from(*got) - want).abs();
            assert!(off < 1e-5, "{sizes:?} {window:?} {cap:?}: {got} {want}");
        }
    }

    proptest! {
        #[test]
        fn every_variant_attends_as_written(
            (batch, group, kv_heads) in (1usize..3, 1usize..12, 1usize..3),
            seq in prop_oneof![Just(1usize), 2usize..40],
            (before, dim, value_dim) in (0usize..20, 1usize..12, 1usize..12),
            window in prop::option::of(1usize..10),
            cap in prop::option::of(0.5f32..3.0),
            (sinks, latent) in any::<(bool, bool)>(),
            seed in 0u32..1000,
        ) {
            let value_dim = if latent { value_dim.min(dim) } else { value_dim };
            let sizes = [batch, group, kv_heads, seq, before, dim, value_dim];
            check(&Device::flex(), sizes, window, cap, sinks, latent, seed);
        }
    }

    /// The shape of DeepSeek-V3's decode step: many heads over one latent, more than one block of them.
    #[test]
    fn many_heads_share_a_latent() {
        check(&Device::flex(), [2, 70, 1, 1, 300, 96, 64], None, None, false, true, 7);
    }

    /// One token over one and several stretches of keys, and several tokens; every variant in each.
    #[test]
    fn kernels_on_wgpu_attend_as_written() {
        let device = Device::wgpu(DeviceKind::DefaultDevice);
        for (sizes, window, cap, sinks, latent) in [
            ([2, 3, 2, 1, 30, 20, 12], None, None, false, false),
            ([1, 2, 1, 1, 255, 70, 130], None, Some(1.5), true, false),
            ([2, 2, 2, 1, 600, 8, 8], None, Some(2.0), true, false),
            ([1, 5, 1, 1, 300, 96, 64], None, None, false, true),
            ([2, 3, 2, 7, 0, 9, 5], None, None, false, false),
            ([1, 2, 2, 5, 9, 8, 8], Some(4), Some(1.5), true, false),
            ([1, 4, 1, 140, 20, 12, 8], Some(100), None, true, true),
        ] {
            check(&device, sizes, window, cap, sinks, latent, 11);
        }
    }
}
