//! Whole pages.

use moescope_analysis::Finding;

use super::fixture::{Shape, analysis};
use super::{rendered, shapes};
use crate::{ReportError, ReportOptions, render};

/// The page without its drawings and style, which have tests of their own.
fn skeleton(html: &str) -> String {
    let mut text = html.to_owned();
    for (open, close) in [("<svg", "</svg>"), ("<style>", "</style>"), ("<script", "</script>")] {
        let mut kept = String::new();
        let mut rest = text.as_str();
        while let Some(at) = rest.find(open) {
            kept.push_str(&rest[..at]);
            kept.push_str(open);
            kept.push('…');
            let end = rest[at..].find(close).unwrap();
            rest = &rest[at + end..];
        }
        kept.push_str(rest);
        text = kept;
    }
    text
}

/// Definitions are the business of moescope-analysis.
fn without(text: &str, from: &str, to: &str) -> String {
    let start = text.find(from).unwrap() + from.len();
    let end = start + text[start..].find(to).unwrap();
    format!("{}\n…\n{}", &text[..start], &text[end..])
}

fn small() -> Vec<moescope_analysis::Analysis> {
    let mut shape = Shape::new("tiny", 2, 8, 2);
    shape.domains.truncate(3);
    let other =
        Shape { name: "tiny (2)".into(), seed: 2, speed: 0.6, partial: true, ..shape.clone() };
    vec![analysis(&shape), analysis(&other)]
}

#[test]
fn markdown_of_a_small_report() {
    let markdown = rendered("small-md", &small()).markdown();
    insta::assert_snapshot!(without(&markdown, "## Definitions", "## Conditions"));
}

#[test]
fn html_of_a_small_report() {
    let html = skeleton(&rendered("small-html", &small()).html());
    insta::assert_snapshot!(without(&html, "<dl class=\"definitions\">", "</dl>"));
}

#[test]
fn sections_are_written_as_asked() {
    let analyses = small();
    let folder = tempfile::tempdir().unwrap();
    let with = |sections: &[&str]| ReportOptions {
        out_dir: folder.path().join(sections.concat()),
        sections: sections.iter().map(|name| name.to_string()).collect(),
        ..Default::default()
    };
    let comparisons = super::comparisons(&analyses);
    let paths = render(&analyses, &comparisons, &[], &with(&["speed", "load"])).unwrap();
    let html = std::fs::read_to_string(&paths.html).unwrap();
    let markdown = std::fs::read_to_string(&paths.markdown).unwrap();
    let ids: Vec<&str> =
        html.split("<section id=\"").skip(1).map(|s| s.split('"').next().unwrap()).collect();
    assert_eq!(ids, ["runs", "load", "speed", "conditions"]);
    assert!(!html.contains("<script") && html.contains("script-src 'none'"));
    let headings: Vec<&str> =
        markdown.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(headings, ["Runs", "Load", "Speed", "Conditions"]);
    assert!(paths.figures.iter().all(|path| path.exists() && !path.ends_with("memory.png")));
    let error = render(&analyses, &comparisons, &[], &with(&["laod"])).unwrap_err();
    assert!(matches!(error, ReportError::UnknownSection { .. }));
    assert!(error.to_string().contains("laod") && error.to_string().contains("findings, tokens"));
}

#[test]
fn every_shape_makes_a_page() {
    for (name, analyses) in shapes() {
        let report = rendered(name, &analyses);
        let html = report.html();
        // Self-contained: nothing is loaded, from the network or from beside the file.
        for attribute in ["src=", "href=\"http", "url(", "@import", "<link rel=\"style"] {
            assert!(!html.contains(attribute), "{name} has {attribute}");
        }
        let scripts = html.matches("<script").count();
        assert!(scripts == 0 || scripts == 2, "{name}: only the token view and its data");
        let addresses = html.matches("http").count() - html.matches("http-equiv").count();
        let namespaces = html.matches("xmlns=\"http://www.w3.org/2000/svg\"").count();
        assert_eq!(addresses, namespaces, "{name} names an address");
        for analysis in &analyses {
            for label in analysis.labels() {
                assert!(
                    html.contains(label) && report.markdown().contains(label),
                    "{name}: {label}"
                );
            }
        }
        // Every link within the page has a target, ids are unique.
        let ids: Vec<&str> =
            html.split(" id=\"").skip(1).filter_map(|s| s.split('"').next()).collect();
        let mut unique = ids.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(ids.len(), unique.len(), "{name}: {ids:?}");
        for link in html.split("href=\"#").skip(1).filter_map(|s| s.split('"').next()) {
            assert!(ids.contains(&link), "{name}: #{link} leads nowhere");
        }
        for path in &report.paths.figures {
            assert!(path.exists(), "{}", path.display());
        }
        assert!(html.len() < 6_000_000, "{name}: {} bytes", html.len());
    }
}

#[test]
fn a_dense_model_gets_sentences_instead_of_figures() {
    let (_, analyses) = shapes().into_iter().find(|(name, _)| *name == "dense").unwrap();
    let html = rendered("dense-sentences", &analyses).html();
    assert!(html.contains("the models have no MoE layers"));
    assert!(!html.contains("id=\"fig-utilisation\"") && html.contains("id=\"fig-latency\""));
}

#[test]
fn the_same_input_gives_the_same_files() {
    let (a, b) = (rendered("same-a", &small()), rendered("same-b", &small()));
    assert_eq!(a.html(), b.html());
    assert_eq!(a.markdown(), b.markdown());
    for (a, b) in a.paths.figures.iter().zip(&b.paths.figures) {
        assert!(std::fs::read(a).unwrap() == std::fs::read(b).unwrap(), "{}", a.display());
    }
}

#[test]
fn a_newer_report_replaces_an_older_one() {
    let folder = tempfile::tempdir().unwrap();
    let options = ReportOptions { out_dir: folder.path().join("out"), ..Default::default() };
    assert!(matches!(render(&[], &[], &[], &options), Err(ReportError::NoRuns)));
    let small = small();
    render(&small, &super::comparisons(&small), &[], &options).unwrap();
    assert!(options.out_dir.join("figures/utilisation-difference.png").exists());
    let paths = render(&small[..1], &[], &[], &options).unwrap();
    // A figure that the new report lacks does not stay behind.
    assert!(!options.out_dir.join("figures/utilisation-difference.png").exists());
    assert!(std::fs::read_to_string(paths.html).unwrap().contains("Nothing does"));
}

#[test]
fn what_holds_of_many_runs_is_said_once() {
    let finding = |headline: &str, figure: &'static str, caveat: bool| Finding {
        headline: headline.into(),
        detail: String::new(),
        figure: Some(figure),
        run: None,
        layer: None,
        effect: 1.0,
        caveat,
    };
    let names = ["base", "base (2)", "base (3)"];
    let analyses = names.map(|name| analysis(&Shape::new(name, 1, 4, 1)));
    let findings = [
        finding("few tokens in base", "utilisation", true),
        finding("52 % are the same in base and base (2)", "overlap", false),
        finding("1.5 times as fast in base (2) as in base", "throughput", false),
        finding("48.5 % are the same in base and base (3)", "overlap", false),
        finding("48.5 % are the same in base and base (3)", "divergence", false),
        finding("few tokens in base (2)", "utilisation", true),
    ];
    let groups = crate::grouped_findings(&findings, &analyses);
    let sizes: Vec<usize> = groups.iter().map(Vec::len).collect();
    assert_eq!(sizes, [1, 2, 1, 1, 1]);
    assert!(std::ptr::eq(groups[1][1], &findings[3]));
}
