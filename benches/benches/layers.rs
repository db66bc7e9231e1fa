//! The parts of a decoder layer by themselves on `flex`: router, experts per implementation, attention.
//!
//! Guards the CPU kernels: a change of theirs shows here before it drowns in whole passes. Elements are
//! tokens. The router has the shape of a large model (128 experts), experts and attention are a fourth as wide
//! as Gemma 4 26B-A4B, so that their weights exceed the caches of a processor and a sample stays short.

use std::{hint::black_box, time::Duration};

use burn::tensor::DType;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use moescope_benches::tensors::{Sizes, normal};
use moescope_model::ops::{
    attention::{CausalMask, KeySpan, Scores, attend},
    experts::IMPLEMENTATIONS,
    router::{PerExpert, RouterRule, route},
};

const SIZES: Sizes = Sizes { experts: 128, top_k: 8, hidden: 704, inner: 176 };

/// Logits to experts and weights; one token as in decode, many as in prefill.
fn router(c: &mut Criterion) {
    let mut group = c.benchmark_group("router");
    for tokens in [1, 512] {
        let logits = SIZES.logits(tokens);
        group.throughput(Throughput::Elements(tokens as u64));
        for (name, rule) in [
            ("softmax", RouterRule::softmax_renormalised(SIZES.top_k)),
            ("grouped-sigmoid", grouped()),
        ] {
            group.bench_function(BenchmarkId::new(name, tokens), |b| {
                b.iter(|| route(black_box(logits.clone()), rule, PerExpert::default()));
            });
        }
    }
    group.finish();
}

/// As DeepSeek-V3 chooses: of the best 4 of 8 groups.
fn grouped() -> RouterRule {
    use moescope_model::ops::router::{Groups, Scoring};
    RouterRule {
        scoring: Scoring::Sigmoid,
        groups: Some(Groups { count: 8, chosen: 4 }),
        ..RouterRule::softmax_renormalised(SIZES.top_k)
    }
}

/// Every implementation of the experts layer, one token and many, in both widths of weights.
fn experts(c: &mut Criterion) {
    let mut group = c.benchmark_group("experts");
    for dtype in [DType::F32, DType::BF16] {
        let weights = SIZES.weights(dtype);
        for tokens in [1, 64] {
            let (x, choice) = (normal([tokens, SIZES.hidden], 1.0, 4), SIZES.choice(tokens));
            group.throughput(Throughput::Elements(tokens as u64));
            for (name, implementation) in IMPLEMENTATIONS {
                let id = BenchmarkId::new(format!("{name}/{dtype:?}"), tokens);
                group.bench_function(id, |b| {
                    b.iter(|| weights.forward(x.clone(), &choice, *implementation, false));
                });
            }
        }
    }
    group.finish();
}

/// One token over a long cache, and a prompt over itself, with and without a window.
fn attention(c: &mut Criterion) {
    const HEADS: usize = 8;
    const KV_HEADS: usize = 2;
    const DIM: usize = 128;
    let mut group = c.benchmark_group("attention");
    for (name, queries, keys, window) in [
        ("decode", 1, 4096, None),
        ("prefill", 512, 512, None),
        ("prefill-window128", 512, 512, Some(128)),
    ] {
        let q = normal([1, HEADS, queries, DIM], 1.0, 5);
        let (k, v) =
            (normal([1, KV_HEADS, keys, DIM], 1.0, 6), normal([1, KV_HEADS, keys, DIM], 1.0, 7));
        let mask = (queries > 1).then_some(CausalMask { offset: keys - queries, window });
        let span = KeySpan { len: keys, mask };
        let scores = Scores::scaled(1.0 / (DIM as f32).sqrt());
        group.throughput(Throughput::Elements(queries as u64));
        group.bench_function(BenchmarkId::new(name, keys), |b| {
            b.iter(|| attend(q.clone(), k.clone(), v.clone(), &span, &scores));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = router, experts, attention
}
criterion_main!(benches);
