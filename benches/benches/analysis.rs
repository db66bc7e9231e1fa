//! Metrics over a synthetic trace: routing decisions (a token's choice of one expert) per second, for
//! each metric alone and for all together, intervals included.

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use moescope_analysis::synthetic::Synthetic;
use moescope_analysis::{METRICS, Options, analyze_data, analyze_metrics};

fn metrics(criterion: &mut Criterion) {
    let made = Synthetic { layers: 8, ..Synthetic::default() };
    let data = made.generate().expect("8 of 64 experts");
    let options = Options::default();
    let mut group = criterion.benchmark_group("analysis");
    group.throughput(Throughput::Elements(made.decisions() as u64));
    group.bench_function("all", |b| b.iter(|| black_box(analyze_data(&data, &options))));
    for metric in METRICS {
        group.bench_function(BenchmarkId::new("metric", metric.name), |b| {
            b.iter(|| black_box(analyze_metrics(&data, &options, [metric])));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = metrics
}
criterion_main!(benches);
