//! Bench results beside runs and alone.

use moescope_trace::BenchResult;
use moescope_trace::bench::{
    BENCH_KIND, BENCH_SCHEMA_VERSION, BenchRow, Configuration, Facts, Peaks, Sample,
};
use moescope_trace::fingerprint::Fingerprint;

use super::fixture::{Shape, analysis};
use crate::bench::{Bench, Phase, Vary, test};
use crate::{ReportOptions, render};

/// A grid: prompts of 128 and 512 tokens and 32 generated tokens, at two depths and three batches. Batch B
/// is B / (1 + 0.1 B) times as fast as one sequence would be without others.
pub(super) fn result(name: &str) -> BenchResult {
    let manifest = analysis(&Shape::new(name, 2, 8, 2)).manifest;
    let mut fingerprint = Fingerprint::of_run(&manifest);
    fingerprint.model.name = name.into();
    let mut rows = Vec::new();
    for (prompt, generate) in [(128, 0), (512, 0), (0, 32)] {
        for depth in [0, 1024] {
            for batch in [1, 2, 8] {
                let slow = (1.0 + 0.1 * f64::from(batch)) * (1.0 + f64::from(depth) / 4096.0);
                let sample = |n: u32| {
                    let ns = |tokens: u32, per_token: f64| {
                        (f64::from(tokens) * per_token * slow * (1.0 + 0.01 * f64::from(n))) as u64
                    };
                    Sample {
                        at_ns: 0,
                        prefill_ns: (prompt > 0).then(|| ns(prompt, 1e5)),
                        decode_ns: vec![ns(1, 1e6); generate as usize],
                        joules: None,
                        process: 0,
                    }
                };
                let workload = "random".to_owned();
                let mut facts = Facts::default();
                if generate > 0 {
                    facts.bytes_per_token = Some(2e7 / f64::from(batch));
                    let chance = 8.0 * (1.0 - 0.75f64.powi(batch as i32));
                    facts.distinct_experts = Some(0.9 * chance);
                    facts.distinct_expected = Some(chance);
                    facts.other.insert("decode_flops_per_token".into(), 4e6);
                }
                rows.push(BenchRow {
                    configuration: Configuration { workload, prompt, generate, depth, batch },
                    error: None,
                    cold: None,
                    warm_ups: 1,
                    samples: (0..7).map(sample).collect(),
                    facts,
                    energy: None,
                });
            }
        }
    }
    BenchResult {
        kind: BENCH_KIND.into(),
        schema_version: BENCH_SCHEMA_VERSION,
        id: "b1".into(),
        created_at: "2026-02-03T04:05:06Z".into(),
        command: vec!["moescope".into(), "bench".into(), "<x>".into()],
        fingerprint,
        peaks: Some(Peaks { read_bytes_per_second: 4e10, flops: 1e11 }),
        workload_hash: None,
        energy: None,
        rows,
    }
}

#[test]
fn rates_are_medians_of_tokens_of_all_sequences_per_second() {
    let results = [result("tiny")];
    let bench = &Bench::all(&results)[0];
    let row = bench.rows.iter().find(|row| {
        let c = row.configuration();
        (c.generate, c.depth, c.batch) == (32, 0, 8)
    });
    let rate = row.unwrap().rate(Phase::Generation).unwrap();
    // The middle one of seven samples, each a hundredth slower than the one before: 1.8 ms a pass of 8
    // sequences, times 1.03.
    assert!((rate.median - 8.0 / 1.854e-3).abs() < 1.0, "{}", rate.median);
    let (low, high) = rate.interval.unwrap();
    assert!(low < rate.median && rate.median < high);
    assert!(rate.range.0 <= low && high <= rate.range.1);
    assert_eq!(rate.samples, 7);
    // 2e7 / 8 bytes for a token of one sequence over 40 GB/s.
    let mbu = 2e7 / 8.0 * rate.median / 4e10;
    assert!((rate.mbu.unwrap() - mbu).abs() < 1e-12);
    assert!((rate.mfu.unwrap() - 4e6 * rate.median / 1e11).abs() < 1e-12);
    assert!(row.unwrap().rate(Phase::Prompt).is_none());
}

#[test]
fn configurations_are_named_as_llama_bench_names_them() {
    let configuration = Configuration {
        workload: "text".into(),
        prompt: 512,
        generate: 128,
        depth: 4096,
        batch: 4,
    };
    let name = |phase, vary| test(&configuration, phase, vary);
    assert_eq!(name(Phase::Prompt, Vary::Nothing), "pp512 @\u{a0}d4096, batch\u{a0}4");
    assert_eq!(name(Phase::Generation, Vary::Batch), "tg128 after\u{a0}pp512 @\u{a0}d4096");
    assert_eq!(name(Phase::Prompt, Vary::Prompt), "pp @\u{a0}d4096, batch\u{a0}4");
    assert_eq!(name(Phase::Generation, Vary::Depth), "tg128 after\u{a0}pp512, batch\u{a0}4");
}

/// The page and the Markdown of a report.
fn page(analyses: &[moescope_analysis::Analysis], benches: Vec<BenchResult>) -> (String, String) {
    let folder = match std::env::var_os("MOESCOPE_GALLERY").filter(|folder| !folder.is_empty()) {
        Some(gallery) => {
            std::path::PathBuf::from(gallery).join(format!("bench-{}", analyses.len()))
        }
        None => tempfile::tempdir().unwrap().keep(),
    };
    let options = ReportOptions { out_dir: folder, benches, ..Default::default() };
    let paths = render(analyses, &[], &[], &options).unwrap();
    let read = |path| std::fs::read_to_string(path).unwrap();
    let texts = (read(&paths.html), read(&paths.markdown));
    if std::env::var_os("MOESCOPE_GALLERY").is_none() {
        std::fs::remove_dir_all(options.out_dir).unwrap();
    }
    texts
}

#[test]
fn bench_results_stand_beside_runs() {
    let mut failed = result("tiny <b>");
    failed.rows[0].samples.clear();
    failed.rows[0].error = Some("out of memory <script>".into());
    let run = analysis(&Shape::new("tiny", 2, 8, 2));
    let mut other = result("other");
    other.rows.iter_mut().for_each(|row| row.configuration.workload = "text".into());
    let (html, markdown) = page(&[run], vec![failed, other]);
    assert!(html.contains("batch\u{a0}8, random") && html.contains("batch\u{a0}8, text"));
    for figure in ["bench-batch", "bench-depth", "bench-prompt", "bench-utilisation", "utilisation"]
    {
        assert!(html.contains(&format!("id=\"fig-{figure}\"")), "{figure}");
    }
    for part in [
        "tiny &lt;b&gt;",
        "out of memory &lt;script&gt;",
        "pp512 @\u{a0}d1024, batch\u{a0}8",
        "40.0 GB",
    ] {
        assert!(html.contains(part), "{part}");
    }
    assert!(markdown.contains("## Throughput") && markdown.contains("tiny \\<b>"), "{markdown}");
    assert!(html.contains("AMD EPYC 7B13") && html.contains("Beside them 2 bench results"));
}

#[test]
fn bench_results_make_a_page_of_their_own() {
    let mut only = result("alone");
    only.fingerprint.model.weights = moescope_trace::manifest::Weights::Random;
    // Without a second batch, depth and prompt length there is a table and nothing to draw.
    only.rows.truncate(1);
    let (html, markdown) = page(&[], vec![only]);
    assert!(!html.contains("id=\"runs\"") && !html.contains("<figure"));
    assert!(html.contains("no two configurations differ in depth alone"), "{html}");
    assert!(html.contains("random weights") && html.contains("drawn at random"));
    assert!(!html.contains("No figure of expert utilisation"));
    assert!(html.contains("The workload is random throughout"));
    assert!(
        markdown.contains("| alone (f32, flex) \\[random weights\\] | pp128, batch\u{a0}1 | 7 |")
    );
}

/// A figure is also a file of its own, which may be shown without the page around it.
#[test]
fn curves_carry_the_labels_of_their_results() {
    let labelled = |name: &str| {
        let mut result = result(name);
        result.fingerprint.model.weights = moescope_trace::manifest::Weights::Random;
        result.fingerprint.model.rumour = true;
        result
    };
    let long = "a-model-with-a-very-long-name-indeed-";
    for benches in [
        vec![labelled("alone")],
        vec![labelled(&format!("{long}one")), labelled(&format!("{long}two")), result("plain")],
    ] {
        let count = benches.len();
        let folder = tempfile::tempdir().unwrap();
        let options =
            ReportOptions { out_dir: folder.path().into(), benches, ..Default::default() };
        render(&[], &[], &[], &options).unwrap();
        for id in ["bench-batch", "bench-depth", "bench-prompt", "bench-utilisation"] {
            let path = folder.path().join(format!("figures/{id}.svg"));
            let svg = std::fs::read_to_string(&path).unwrap();
            // A legend entry that is cut keeps the first word of each label.
            let curves = svg.matches("[random weights, rumoured shapes]").count()
                + svg.matches("[random, rumoured]").count();
            assert!(curves >= 2.min(count), "{id} of {count} results: {curves} labelled curves");
        }
    }
}
