//! A report over two synthetic runs: figures, page and Markdown.
//!
//! Guards the end of every `demo`. Metrics are computed before; elements are routing decisions of both runs,
//! a million each.

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use moescope_analysis::{Options, analyze_data, compare, findings, synthetic::Synthetic};
use moescope_report::{ReportOptions, render};

fn report(c: &mut Criterion) {
    let made = [Synthetic::default(), Synthetic { seed: 2, ..Synthetic::default() }];
    let runs = made.map(|made| made.generate().expect("8 of 64 experts"));
    let options = Options::default();
    let analyses = runs.each_ref().map(|run| analyze_data(run, &options));
    let comparisons = [compare(&runs[0], &runs[1], &options)];
    let found = findings(&analyses, &comparisons);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = ReportOptions { out_dir: dir.path().join("report"), ..Default::default() };
    let mut group = c.benchmark_group("report");
    let decisions: usize = made.iter().map(Synthetic::decisions).sum();
    group.throughput(Throughput::Elements(decisions as u64));
    group.bench_function("render", |b| {
        b.iter(|| render(&analyses, &comparisons, &found, &options).expect("room on the disk"));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(5));
    targets = report
}
criterion_main!(benches);
