//! Run directories on disk, from the writer through to findings.

use std::path::Path;

use moescope_analysis::{Options, RunData, TokenWise, analyze, analyze_all, findings};
use moescope_trace::{
    Phase, RoutingColumns, Run, RunWriter, StepColumns, TokenColumns, manifest::TimingMode,
};

use crate::support::{FAST, SMALL, Shape, uniform};

const SHAPE: Shape = Shape { layers: 3, sequences_per_domain: 5, ..SMALL };

/// Writes a run, one part per sequence; `finish` leaves it complete.
fn write(dir: &Path, data: &RunData, finish: bool) {
    let mut manifest = data.manifest.clone();
    manifest.settings.timing_mode = TimingMode::EndToEnd;
    let mut writer = RunWriter::create(dir, manifest, false).unwrap();
    for (step, sequence) in (0..).zip(&data.sequences) {
        let range = sequence.start..sequence.end;
        let rows = range.len();
        writer
            .write_tokens(&TokenColumns {
                sequence: vec![sequence.id; rows],
                position: data.tokens.position[range.clone()].to_vec(),
                step: vec![step; rows],
                phase: vec![Phase::Prefill; rows],
                token_id: data.tokens.token_id[range.clone()].to_vec(),
                text: vec!["<b>".to_owned(); rows],
                domain: vec![data.domains[usize::from(sequence.domain)].clone(); rows],
                logprob: vec![Some(-2.0); rows],
            })
            .unwrap();
        // Layer after layer, as a model goes.
        for layer in &data.layers {
            let selected = range.start * layer.top_k..range.end * layer.top_k;
            writer
                .write_routing(&RoutingColumns {
                    sequence: vec![sequence.id; rows],
                    position: data.tokens.position[range.clone()].to_vec(),
                    layer: vec![layer.layer; rows],
                    top_k: layer.top_k,
                    experts: layer.ids[selected.clone()].to_vec(),
                    weights: vec![0.5; selected.len()],
                    entropy: vec![1.5; rows],
                    margin: vec![0.1; rows],
                    experts_total: layer.experts,
                    ..RoutingColumns::default()
                })
                .unwrap();
        }
        writer
            .write_steps(&StepColumns {
                step: vec![step],
                phase: vec![Phase::Prefill],
                batch: vec![1],
                tokens: vec![rows as u32],
                context: vec![0],
                duration_ns: vec![10_000_000 + u64::from(step)],
                device_ns: vec![None],
                bytes_in_use: vec![Some(1 << 20)],
                bytes_reserved: vec![None],
                rss_bytes: vec![Some(1 << 25)],
            })
            .unwrap();
    }
    if finish {
        writer.finish().unwrap();
    }
}

#[test]
fn a_run_reads_as_it_was_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let data = uniform(SHAPE, 5);
    write(&path, &data, true);
    let read = RunData::load(&Run::open(&path).unwrap()).unwrap();
    assert_eq!(read.sequences, data.sequences);
    assert_eq!(read.domains, data.domains);
    for (read, made) in read.layers.iter().zip(&data.layers) {
        assert_eq!(read.ids, made.ids);
    }
    assert!(!read.partial);

    let analysis = analyze(&Run::open(&path).unwrap(), &FAST).unwrap();
    assert_eq!((analysis.tokens, analysis.sequences), (600, 15));
    assert_eq!(analysis.value("mean_logprob", None), Some(-2.0));
    assert_eq!(analysis.value("router_entropy", Some(2)), Some(1.5));
    let absent: Vec<&str> = analysis.absent.iter().map(|absent| absent.metric).collect();
    // All token ids are 0, and nothing was generated.
    assert_eq!(
        absent,
        [
            "vocabulary_specialisation",
            "next_token_specialisation",
            "hit_rate_lru_warm",
            "hit_rate_global_lru_warm",
            "saliency_reap",
            "saliency_ean",
            "pruned_traffic",
            "pruned_saliency",
            "pruned_traffic_ean",
            "pruned_saliency_ean",
            "pruned_saliency_frequency",
            "tpot",
            "itl",
            "peak_bytes_reserved"
        ]
    );
}

#[test]
fn a_partial_run_is_analysed_and_labelled() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let mut data = uniform(SHAPE, 5);
    data.sequences.truncate(8);
    write(&path, &data, false);
    let analysis = analyze(&Run::open(&path).unwrap(), &FAST).unwrap();
    assert!(analysis.partial);
    assert_eq!(analysis.labels(), ["partial run"]);
    assert!(analysis.tokens > 0);
    let found = findings(&[analysis], &[]);
    assert!(found[0].headline.contains("is a partial run"), "{found:?}");
}

#[test]
fn runs_analysed_together() {
    let dir = tempfile::tempdir().unwrap();
    let mut data = uniform(SHAPE, 5);
    let runs: Vec<Run> = ["flex", "wgpu", "other"]
        .iter()
        .map(|backend| {
            data.manifest.device.backend = (*backend).to_owned();
            let path = dir.path().join(backend);
            write(&path, &data, true);
            Run::open(path).unwrap()
        })
        .collect();
    let (analyses, comparisons) = analyze_all(&runs, &Options::default()).unwrap();
    let names: Vec<&str> = analyses.iter().map(|analysis| analysis.name.as_str()).collect();
    assert_eq!(names, ["synthetic (flex)", "synthetic (wgpu)", "synthetic (other)"]);
    let pairs: Vec<_> =
        comparisons.iter().map(|c| (c.base, c.other, c.other_name.as_str())).collect();
    assert_eq!(pairs, [(0, 1, "synthetic (wgpu)"), (0, 2, "synthetic (other)")]);
    for comparison in &comparisons {
        assert_eq!(comparison.token_wise, TokenWise::Compared { tokens: 600, left_out: 0 });
    }
    let found = findings(&analyses, &comparisons);
    assert!(
        found.iter().any(|f| f.headline.contains("chose the same experts for every one of 600")),
        "{found:?}"
    );
}

#[test]
fn a_directory_that_is_no_run() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Run::open(dir.path()).is_err());
}
