//! A page over what moescope-analysis really computes: the figures find their metrics by name.

use std::path::PathBuf;

use moescope_analysis::synthetic::Synthetic;
use moescope_analysis::{
    Analysis, Comparison, Finding, LayerData, Options, RunData, analyze_data, compare, findings,
};
use moescope_trace::Phase;
use moescope_trace::manifest::TimingMode;

use super::drawing::texts;
use super::fixture::Random;
use crate::canvas::to_svg;
use crate::data::Data;
use crate::figures::{FIGURES, Figure, NARROW, WIDE};
use crate::{ReportOptions, render};

/// Enough of each domain for intervals.
const SEQUENCES: usize = 30;

/// Two layers of eight experts, two chosen per token; each domain prefers its own experts.
fn run(name: &str, seed: u64) -> RunData {
    planted(name, seed, 0.6)
}

/// [`run`] with the share of tokens of layer 3 that take the expert of their domain.
fn planted(name: &str, seed: u64, share: f64) -> RunData {
    let mut random = Random::new(seed);
    let sequences: Vec<(&str, usize)> =
        (0..SEQUENCES).map(|n| (["prose", "code", "maths"][n % 3], 40)).collect();
    let total = SEQUENCES * 40;
    let layers = [1, 3].map(|layer| {
        let mut ids = Vec::new();
        for token in 0..total {
            let domain = (token / 40) % 3;
            let share = if layer == 3 { share } else { 0.6 };
            let first =
                if random.next() < share { domain * 2 } else { (random.next() * 8.0) as usize };
            // The last sequence does without two experts of layer 1: passes differ in what they select.
            let among = if layer == 1 && token / 40 == SEQUENCES - 1 { 6 } else { 8 };
            let first = first % among;
            let second = first + 1 + (random.next() * (among - 1) as f64) as usize;
            ids.extend([first as u16, (second % among) as u16]);
        }
        let column = |low: f32, random: &mut Random| {
            Some((0..total).map(|_| low + 0.3 * random.next() as f32).collect())
        };
        LayerData {
            weights: Some([0.7, 0.3].repeat(total)),
            entropy: column(1.2, &mut random),
            margin: column(0.01, &mut random),
            output_norms: Some([1.5, 0.5].repeat(total)),
            ..LayerData::from_ids(layer, 8, 2, ids)
        }
    });
    let mut run = RunData::from_ids(name, &sequences, layers.into()).unwrap();
    run.tokens.logprob = Some(vec![-2.5; total]);
    // The same tokens in every run; each domain has its own, so they have experts of their own too.
    run.tokens.token_id = (0..total).map(|n| ((n / 40) % 3 * 4 + n % 4) as u32).collect();
    run.manifest.settings.timing_mode = TimingMode::EndToEnd;
    run.manifest.prompts_hash = "same".into();
    let model = &mut run.manifest.model;
    (model.total_parameters, model.active_parameters, model.bytes) = (900_000, 300_000, 3_600_000);
    let steps = &mut run.steps;
    for sequence in 0..SEQUENCES as u32 {
        // The first passes are the prefills that `from_ids` names; decode passes follow.
        steps.step.push(sequence);
        steps.phase.push(Phase::Prefill);
    }
    for step in SEQUENCES as u32..SEQUENCES as u32 + 28 {
        steps.step.push(step);
        steps.phase.push(Phase::Decode);
    }
    let passes = steps.step.len();
    steps.batch = vec![1; passes];
    steps.context = vec![0; passes];
    steps.tokens = steps.phase.iter().map(|p| if *p == Phase::Prefill { 40 } else { 1 }).collect();
    steps.duration_ns = (0..passes).map(|_| 1_000_000 + (random.next() * 1e6) as u64).collect();
    steps.device_ns = vec![None; passes];
    steps.bytes_in_use = vec![Some(20 << 20); passes];
    steps.bytes_reserved = vec![Some(24 << 20); passes];
    steps.rss_bytes = vec![Some(80 << 20); passes];
    run.check().unwrap();
    run
}

#[test]
fn real_analyses_fill_every_figure() {
    let (a, b) = (run("a", 3), run("b", 4));
    let options = Options::default();
    let analyses = [analyze_data(&a, &options), analyze_data(&b, &options)];
    let comparisons = [compare(&a, &b, &options)];
    let findings = findings(&analyses, &comparisons);
    let folder = tempfile::tempdir().unwrap();
    let report = ReportOptions { out_dir: folder.path().join("out"), ..Default::default() };
    let paths = render(&analyses, &comparisons, &findings, &report).unwrap();
    let html = std::fs::read_to_string(paths.html).unwrap();
    for figure in FIGURES.iter().filter(|figure| figure.section != crate::sections::BENCH) {
        assert!(html.contains(&format!("id=\"fig-{}\"", figure.id)), "{} is missing", figure.id);
    }
    assert!(!findings.is_empty() && html.contains("Routing overlap"));
    assert!(html.contains("tokens/s") && html.contains("nats per token"));
}

/// Texts of a figure at both widths.
fn texts_of(figure: &Figure, data: &Data<'_>) -> [Vec<String>; 2] {
    [WIDE, NARROW].map(|width| {
        let svg = to_svg(width, |canvas| (figure.draw)(canvas, data)).unwrap();
        texts(&svg).into_iter().map(|(_, text)| text).collect()
    })
}

/// Whether a figure names a run, and a layer: in a heading, or on its axis.
fn shows(texts: &[String], run: &str, layer: Option<u16>) -> bool {
    let heading = |layer| format!("{run}, layer {layer}");
    let named = texts.iter().any(|text| text == run || text.starts_with(&format!("{run}, ")));
    let headed = texts.iter().any(|text| text.contains(", layer "));
    named
        && layer.is_none_or(|layer| match headed {
            true => texts.contains(&heading(layer)),
            false => texts.contains(&layer.to_string()),
        })
}

const NAMES: [&str; 8] = ["aa", "bb", "cc", "dd", "ee", "ff", "gg", "hh"];

/// More runs than any figure of one map per run has room for; the last is the one that stands out.
fn eight() -> (Vec<Analysis>, Vec<Comparison>) {
    let options = Options { resamples: 200, ..Options::default() };
    let runs: Vec<RunData> = (3..)
        .zip(NAMES)
        .map(|(seed, name)| planted(name, seed, if name == "hh" { 0.95 } else { 0.6 }))
        .collect();
    let analyses = runs.iter().map(|run| analyze_data(run, &options)).collect();
    let others = runs[1..].iter().enumerate();
    let comparisons = others
        .map(|(n, other)| Comparison {
            base: 0,
            other: n + 1,
            ..compare(&runs[0], other, &options)
        })
        .collect();
    (analyses, comparisons)
}

#[test]
fn what_a_finding_names_is_in_its_figure() {
    let (analyses, comparisons) = eight();
    let found = findings(&analyses, &comparisons);
    let mut data = Data::new(&analyses, &comparisons);
    data.name(&found);
    let mut linked = Vec::new();
    for finding in found.iter().filter(|finding| !finding.caveat) {
        let Finding { headline, figure, run, layer, .. } = finding;
        let id = figure.unwrap_or_else(|| panic!("{headline}: no figure"));
        let figure = FIGURES.iter().find(|figure| figure.id == id).unwrap();
        assert_eq!((figure.applicable)(&data), Ok(()), "{headline}");
        let name = NAMES[run.unwrap()];
        for texts in texts_of(figure, &data) {
            assert!(shows(&texts, name, *layer), "{headline}: {id} shows {texts:?}");
        }
        linked.push((id, *run));
    }
    for id in ["specialisation", "vocabulary", "reuse", "path", "hit-rate", "balance"] {
        assert!(linked.contains(&(id, Some(7))), "nothing stands out in {id}: {linked:?}");
    }
}

#[test]
fn any_run_and_layer_that_is_named_is_drawn() {
    let (analyses, comparisons) = eight();
    let of_layers = ["specialisation", "vocabulary", "coactivation", "path"];
    let of_runs = [
        "utilisation",
        "utilisation-difference",
        "divergence",
        "hit-rate",
        "hit-rate-speed",
        "placement",
        "memory",
    ];
    for id in of_layers.into_iter().chain(of_runs) {
        let figure = FIGURES.iter().find(|figure| figure.id == id).unwrap();
        for run in [1, 5, 7] {
            // A path begins at a layer that has a next one.
            let layers = if id == "path" { vec![1] } else { vec![1, 3] };
            for layer in layers.into_iter().map(Some) {
                let layer = layer.filter(|_| of_layers.contains(&id));
                let named = Finding {
                    headline: String::new(),
                    detail: String::new(),
                    figure: Some(figure.id),
                    run: Some(run),
                    layer,
                    effect: 1.0,
                    caveat: false,
                };
                let mut data = Data::new(&analyses, &comparisons);
                data.name(&[named]);
                for texts in texts_of(figure, &data) {
                    assert!(shows(&texts, NAMES[run], layer), "{id}, {run}, {layer:?}: {texts:?}");
                }
                // Beside it the first ones, and the caption says which are there.
                let caption = (figure.caption)(&data);
                if run == 7 {
                    assert!(
                        caption.reading.contains("of 8 runs are drawn, those that a finding names")
                            || caption
                                .reading
                                .contains("of 7 runs are drawn, those that a finding names"),
                        "{id}: {}",
                        caption.reading
                    );
                }
                let facts = caption.sentences().concat();
                assert!(
                    layer.is_none() || facts.contains(&format!("ayer {}", layer.unwrap())),
                    "{id}: {facts}"
                );
            }
        }
    }
}

/// Sixty layers of 128 experts, recorded with ids alone.
#[test]
fn a_large_model_of_ids_alone_makes_a_page() {
    let made = Synthetic {
        domains: 5,
        sequences: 3,
        prompt: 96,
        generated: 16,
        layers: 60,
        experts: 128,
        weights: false,
        ..Synthetic::default()
    };
    let mut run = made.generate().unwrap();
    run.manifest.settings.timing_mode = TimingMode::None;
    let options = Options { resamples: 100, ..Options::default() };
    let analyses = [analyze_data(&run, &options)];
    let findings = findings(&analyses, &[]);
    let folder = tempfile::tempdir().unwrap();
    let gallery = std::env::var_os("MOESCOPE_GALLERY").filter(|folder| !folder.is_empty());
    let out_dir = gallery.map_or(folder.path().join("out"), |g| PathBuf::from(g).join("large-ids"));
    let report = ReportOptions { out_dir, ..Default::default() };
    let paths = render(&analyses, &[], &findings, &report).unwrap();
    let html = std::fs::read_to_string(paths.html).unwrap();
    for (figure, there) in
        [("utilisation", true), ("path", true), ("confidence", false), ("latency", false)]
    {
        assert_eq!(html.contains(&format!("id=\"fig-{figure}\"")), there, "{figure}");
    }
    assert!(html.contains("router confidence by layer: not recorded"));
    assert!(html.contains("weights and router entropy"));
}
