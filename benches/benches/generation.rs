//! Prefill and decode of the bundled model on `flex`: recorder off and on, experts selected and dense.
//!
//! Elements are tokens.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use moescope_benches::Fixture;
use moescope_model::MoeImpl;

/// Passes alone (as tokens per second are defined) and the whole wall time, recorder off and on.
fn recording(c: &mut Criterion) {
    let fixture = Fixture::load();
    for (name, prompt, max_tokens) in [("decode", 16, 128), ("prefill512", 512, 0)] {
        let case = fixture.case(prompt, max_tokens);
        let mut run = fixture.recorder();
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(counted(prompt, max_tokens)));
        group.bench_function(BenchmarkId::new("passes", "off"), |b| {
            b.iter_custom(|n| (0..n).map(|_| case.passes(None)).sum());
        });
        group.bench_function(BenchmarkId::new("passes", "recording"), |b| {
            b.iter_custom(|n| (0..n).map(|_| case.passes(Some(&mut run.recorder))).sum());
        });
        // The prompt is part of it.
        group.throughput(Throughput::Elements((prompt + max_tokens) as u64));
        group.bench_function(BenchmarkId::new("wall", "off"), |b| b.iter(|| case.passes(None)));
        group.bench_function(BenchmarkId::new("wall", "recording"), |b| {
            b.iter(|| case.passes(Some(&mut run.recorder)));
        });
        group.finish();
    }
}

/// Tokens of the passes that [`moescope_benches::Case::passes`] times: of the decode passes, where there are some.
fn counted(prompt: usize, max_tokens: usize) -> u64 {
    (if max_tokens == 0 { prompt } else { max_tokens }) as u64
}

/// The implementations of the experts layer, in whole decode steps and whole prefills.
fn experts(c: &mut Criterion) {
    let mut group = c.benchmark_group("moe-impl");
    for moe_impl in [MoeImpl::Selected, MoeImpl::Dense] {
        let fixture = Fixture::with(moe_impl);
        for (name, prompt, max_tokens) in [("decode", 16, 32), ("prefill128", 128, 0)] {
            let case = fixture.case(prompt, max_tokens);
            group.throughput(Throughput::Elements(counted(prompt, max_tokens)));
            group.bench_function(BenchmarkId::new(name, moe_impl), |b| {
                b.iter_custom(|n| (0..n).map(|_| case.passes(None)).sum());
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(6));
    targets = recording, experts
}
criterion_main!(benches);
