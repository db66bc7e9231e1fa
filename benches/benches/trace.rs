//! The run directory: a synthetic run written, read and loaded for analysis.
//!
//! Guards the formats between a recording and everything right of it. Elements are routing decisions (a
//! token's choice of one expert in one layer): 1.05 million.

use std::{hint::black_box, time::Duration};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use moescope_analysis::{RunData, synthetic::Synthetic};
use moescope_trace::{RoutingColumns, Run, RunWriter};

/// `routing/` as a recorder fills it, with weights, entropies and margins.
fn routing(made: &Synthetic) -> (moescope_trace::Manifest, RoutingColumns) {
    let data = made.generate().expect("8 of 64 experts");
    let (tokens, layers) = (data.len(), data.layers.len());
    let of = |column: fn(&moescope_analysis::LayerData) -> Option<&Vec<f32>>| {
        data.layers.iter().filter_map(column).flatten().copied().collect::<Vec<f32>>()
    };
    let columns = RoutingColumns {
        sequence: (0..layers).flat_map(|_| 0..tokens as u32).map(|token| token / 256).collect(),
        position: (0..layers).flat_map(|_| 0..tokens as u32).map(|token| token % 256).collect(),
        layer: data.layers.iter().flat_map(|l| std::iter::repeat_n(l.layer, tokens)).collect(),
        top_k: made.top_k,
        experts: data.layers.iter().flat_map(|layer| layer.ids.iter().copied()).collect(),
        weights: of(|layer| layer.weights.as_ref()),
        entropy: of(|layer| layer.entropy.as_ref()),
        margin: of(|layer| layer.margin.as_ref()),
        experts_total: made.experts,
        ..RoutingColumns::default()
    };
    (data.manifest, columns)
}

fn trace(c: &mut Criterion) {
    let made = Synthetic::default();
    let (manifest, columns) = routing(&made);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let run = dir.path().join("run");
    made.write(&run).expect("a new run");
    let mut group = c.benchmark_group("trace");
    group.throughput(Throughput::Elements(made.decisions() as u64));
    group.bench_function("write", |b| {
        b.iter_batched(
            || RunWriter::create(&dir.path().join("written"), manifest.clone(), true),
            |writer| {
                let mut writer = writer.expect("a run to replace");
                writer.write_routing(&columns).expect("room on the disk");
                writer.finish().expect("room on the disk")
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("read", |b| {
        b.iter(|| Run::open(&run).and_then(|run| run.read_routing()).expect("a whole run"));
    });
    group.bench_function("load", |b| {
        b.iter(|| {
            let run = Run::open(&run).expect("a whole run");
            black_box(RunData::load(&run).expect("a whole run"))
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = trace
}
criterion_main!(benches);
