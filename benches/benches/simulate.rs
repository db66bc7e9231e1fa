//! Simulations over a synthetic trace: routing decisions (a token's choice of one expert) per second.
//!
//! Each metric of the group is computed as `analyze` does, with intervals. `MOESCOPE_BENCH_DECISIONS`
//! sets the size of the trace; at 100 million each is timed once.

use std::{hint::black_box, time::Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use moescope_analysis::rng::Rng;
use moescope_analysis::{LayerData, METRICS, Metric, Options, RunData, Study};

const LAYERS: u16 = 48;
const EXPERTS: usize = 128;
const TOP_K: usize = 8;
const SEQUENCE: usize = 512;

/// Experts of Zipf popularity, a third of them kept from token to token.
fn trace(decisions: usize) -> RunData {
    let sequences = decisions.div_ceil(usize::from(LAYERS) * TOP_K * SEQUENCE).max(16);
    let tokens = sequences * SEQUENCE;
    // Cumulated popularity, for a draw by bisection.
    let mut reach = Vec::with_capacity(EXPERTS);
    let mut sum = 0.0;
    for rank in 1..=EXPERTS {
        sum += (rank as f64).powf(-0.8);
        reach.push(sum);
    }
    let layers = (0..LAYERS)
        .map(|layer| {
            let mut rng = Rng::new(u64::from(layer) + 1);
            let mut ids: Vec<u16> = Vec::with_capacity(tokens * TOP_K);
            let mut chosen: Vec<u16> = Vec::new();
            for _ in 0..tokens {
                let mut next: Vec<u16> = Vec::with_capacity(TOP_K);
                next.extend(chosen.iter().filter(|_| rng.unit() < 0.35));
                while next.len() < TOP_K {
                    let drawn = rng.unit() * sum;
                    let rank = reach.partition_point(|reach| *reach < drawn).min(EXPERTS - 1);
                    // Another order of popularity in each layer.
                    let expert = ((rank * 37 + usize::from(layer) * 11) % EXPERTS) as u16;
                    if !next.contains(&expert) {
                        next.push(expert);
                    }
                }
                ids.extend(&next);
                chosen = next;
            }
            LayerData::from_ids(layer, EXPERTS, TOP_K, ids)
        })
        .collect();
    RunData::from_ids("synthetic", &vec![("all", SEQUENCE); sequences], layers)
        .expect("the trace is whole")
}

/// The metrics that simulate something.
fn simulated() -> impl Iterator<Item = &'static Metric> {
    let groups = ["hit_rate_", "prefetch_", "gpu_imbalance"];
    let metrics = METRICS.iter().filter(move |m| groups.iter().any(|g| m.name.starts_with(g)));
    metrics.filter(|metric| !metric.name.ends_with("_warm"))
}

fn simulate(criterion: &mut Criterion) {
    let asked = std::env::var("MOESCOPE_BENCH_DECISIONS").ok();
    let decisions = asked.and_then(|text| text.parse().ok()).unwrap_or(4_000_000);
    let data = trace(decisions);
    let options = Options::default();
    let decisions = data.len() * usize::from(LAYERS) * TOP_K;
    if decisions >= 100_000_000 {
        let study = Study::new(&data, &options);
        let all = Instant::now();
        for metric in simulated() {
            let start = Instant::now();
            black_box((metric.compute)(&study));
            println!("{}: {:.2} s", metric.name, start.elapsed().as_secs_f64());
        }
        println!("{decisions} decisions, all: {:.2} s", all.elapsed().as_secs_f64());
        return;
    }
    let mut group = criterion.benchmark_group("simulate");
    group.throughput(Throughput::Elements(decisions as u64)).sample_size(10);
    for metric in simulated() {
        // Counts that metrics share are counted anew, as one metric alone would.
        group.bench_function(metric.name, |bencher| {
            bencher.iter(|| (metric.compute)(&Study::new(&data, &options)));
        });
    }
    group.finish();
}

criterion_group!(benches, simulate);
criterion_main!(benches);
