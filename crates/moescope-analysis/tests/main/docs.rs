//! `docs/METRICS.md` has a section for every metric, and says what the registry says.

use std::fmt::Write;
use std::path::Path;

use moescope_analysis::METRICS;

const HEADING: &str = "## Reference\n\n";

/// The sections of all metrics.
fn reference() -> String {
    let mut text = String::new();
    for metric in METRICS {
        let needs: Vec<&str> = metric.needs.iter().map(|need| need.what()).collect();
        writeln!(text, "### `{}`\n", metric.name).unwrap();
        writeln!(text, "{}, in {}.\n", metric.title, metric.unit).unwrap();
        writeln!(text, "- Definition: {}", metric.formula).unwrap();
        let chance = if metric.chance.is_empty() { "none" } else { metric.chance };
        writeln!(text, "- Chance: {chance}").unwrap();
        writeln!(text, "- Source: {}", metric.source).unwrap();
        writeln!(text, "- Needs: {}\n", needs.join(", ")).unwrap();
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
