//! Metrics over a synthetic trace: routing decisions (a token's choice of one expert) per second, for
//! each metric alone, for each group of them, for the comparison of two runs and for all metrics together,
//! intervals included.

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use moescope_analysis::synthetic::Synthetic;
use moescope_analysis::{Group, METRICS, Options, RunData, analyze_data, analyze_metrics, compare};

fn metrics(criterion: &mut Criterion) {
    let made = Synthetic { layers: 8, output_norms: true, ..Synthetic::default() };
    let data = made.generate().expect("8 of 64 experts");
    let options = Options::default();
    // A metric that returns at once because something was not recorded would look fast.
    assert_eq!(analyze_data(&data, &options).absent, []);
    let mut group = criterion.benchmark_group("analysis");
    group.throughput(Throughput::Elements(made.decisions() as u64));
    group.bench_function("all", |b| b.iter(|| black_box(analyze_data(&data, &options))));
    for kind in Group::ALL {
        group.bench_function(BenchmarkId::new("group", kind.title()), |b| {
            let metrics = || METRICS.iter().filter(|metric| metric.group == kind);
            b.iter(|| black_box(analyze_metrics(&data, &options, metrics())));
        });
    }
    let other = other(&made, &data);
    group.bench_function(BenchmarkId::new("group", "Two runs of the same tokens"), |b| {
        b.iter(|| black_box(compare(&data, &other, &options)));
    });
    for metric in METRICS {
        group.bench_function(BenchmarkId::new("metric", metric.name), |b| {
            b.iter(|| black_box(analyze_metrics(&data, &options, [metric])));
        });
    }
    group.finish();
}

/// Another routing of the same tokens.
fn other(made: &Synthetic, data: &RunData) -> RunData {
    let mut other = Synthetic { seed: 2, ..*made }.generate().expect("8 of 64 experts");
    other.tokens.token_id.clone_from(&data.tokens.token_id);
    other
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
