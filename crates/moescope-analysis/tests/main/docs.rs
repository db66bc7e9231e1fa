//! `docs/METRICS.md` has a section for every metric, and says what the registries say.

use std::fmt::Write;
use std::path::Path;

use moescope_analysis::{ALL_PAIRS, COMPARISON_METRICS, METRICS, Need};

const HEADING: &str = "## Reference\n\n";

/// A section.
fn section(
    text: &mut String,
    name: &str,
    title: &str,
    unit: &str,
    [formula, chance, source]: [&str; 3],
    needs: &[Need],
) {
    let needs: Vec<&str> = needs.iter().map(|need| need.what()).collect();
    writeln!(text, "### {name}\n").unwrap();
    writeln!(text, "{title}, in {unit}.\n").unwrap();
    writeln!(text, "- Definition: {formula}").unwrap();
    writeln!(text, "- Chance: {}", if chance.is_empty() { "none" } else { chance }).unwrap();
    writeln!(text, "- Source: {source}").unwrap();
    writeln!(text, "- Needs: {}\n", needs.join(", ")).unwrap();
}

/// The sections of all metrics: of a run, of all pairs of experts, of two runs.
fn reference() -> String {
    let mut text = String::new();
    for m in METRICS {
        let words = [m.formula, m.chance, m.source];
        section(&mut text, &format!("`{}`", m.name), m.title, m.unit, words, m.needs);
    }
    text.push_str("## Reference: all pairs of experts (`--all-pairs`)\n\n");
    for m in ALL_PAIRS {
        let words = [m.formula, m.chance, m.source];
        let name = format!("`{}`, all pairs", m.name);
        section(&mut text, &name, m.title, m.unit, words, m.needs);
    }
    text.push_str("## Reference: two runs of the same tokens\n\n");
    for m in COMPARISON_METRICS {
        let words = [m.formula, m.chance, m.source];
        section(&mut text, &format!("`{}`", m.name), m.title, m.unit, words, m.needs);
    }
    text.trim_end().to_owned() + "\n"
}

/// One metric, one file of its name.
#[test]
fn every_metric_has_a_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/metrics");
    for metric in METRICS {
        let text = std::fs::read_to_string(folder.join(format!("{}.rs", metric.name))).unwrap();
        let constant = format!("pub(crate) const {}: Metric", metric.name.to_uppercase());
        assert!(text.contains(&constant), "{}", metric.name);
        assert_eq!(text.matches(": Metric = Metric {").count(), 1, "{}", metric.name);
        assert!(text.contains("nterval"), "{}: says nothing of its interval", metric.name);
    }
}

/// `MOESCOPE_WRITE_DOCS=1 cargo test ... docs` writes the sections anew.
#[test]
fn every_metric_is_in_the_docs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/METRICS.md");
    let found = std::fs::read_to_string(&path).unwrap();
    let (text, sections) = found.split_once(HEADING).expect("a reference");
    if std::env::var_os("MOESCOPE_WRITE_DOCS").is_some() {
        std::fs::write(&path, format!("{text}{HEADING}{}", reference())).unwrap();
        return;
    }
    for (line, (found, expected)) in
        std::iter::zip(sections.lines(), reference().lines()).enumerate()
    {
        assert_eq!(
            found,
            expected,
            "line {} of the reference; MOESCOPE_WRITE_DOCS=1 mends it",
            line + 1
        );
    }
    assert_eq!(sections, reference(), "MOESCOPE_WRITE_DOCS=1 mends it");
}
