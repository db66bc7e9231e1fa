//! A decode step of the bundled model on `flex`, and what the KV cache adds to it.
//!
//! Guards the path of a single token: the whole step, its growth with the tokens in the cache, and that
//! writing a token touches one slot. If a write ever copied the cache, `room` would grow with the capacity and
//! `depth` from the first tokens on. Elements are tokens.

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use moescope_benches::Fixture;

/// Decode steps that follow one filling of the cache.
const STEPS: usize = 32;

/// The whole step after more and more tokens.
fn depth(c: &mut Criterion) {
    let fixture = Fixture::load();
    let mut group = c.benchmark_group("decode-step");
    group.throughput(Throughput::Elements(1));
    for depth in [16, 512, 2048] {
        group.bench_function(BenchmarkId::new("depth", depth), |b| {
            b.iter_custom(|steps| decode(&fixture, depth, depth + STEPS, steps as usize));
        });
    }
    group.finish();
}

/// The same step in a small and in a large cache.
fn room(c: &mut Criterion) {
    let fixture = Fixture::load();
    let mut group = c.benchmark_group("kv-cache");
    group.throughput(Throughput::Elements(1));
    for capacity in [64, 4096] {
        group.bench_function(BenchmarkId::new("room", capacity), |b| {
            b.iter_custom(|steps| decode(&fixture, 16, capacity, steps as usize));
        });
    }
    group.finish();
}

/// Many tokens at once into a cache that has some: the rings of sliding layers are put in order and written
/// over their end.
fn chunks(c: &mut Criterion) {
    let fixture = Fixture::load();
    let mut group = c.benchmark_group("kv-cache");
    for chunk in [32, 128] {
        group.throughput(Throughput::Elements(chunk as u64));
        group.bench_function(BenchmarkId::new("chunk", chunk), |b| {
            b.iter_custom(|times| {
                let mut cache = fixture.cache(256 + chunk);
                (0..times)
                    .map(|_| {
                        cache.clear();
                        fixture.step(&mut cache, 256);
                        let start = Instant::now();
                        fixture.step(&mut cache, chunk);
                        start.elapsed()
                    })
                    .sum()
            });
        });
    }
    group.finish();
}

/// Time of `steps` single tokens, the first after `depth`.
fn decode(fixture: &Fixture, depth: usize, capacity: usize, steps: usize) -> Duration {
    let mut cache = fixture.cache(capacity);
    let mut time = Duration::ZERO;
    for first in (0..steps).step_by(STEPS) {
        cache.clear();
        fixture.step(&mut cache, depth);
        let start = Instant::now();
        for _ in first..steps.min(first + STEPS) {
            fixture.step(&mut cache, 1);
        }
        time += start.elapsed();
    }
    time
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = depth, room, chunks
}
criterion_main!(benches);
