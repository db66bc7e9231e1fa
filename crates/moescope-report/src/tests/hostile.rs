//! Names that try to be more than text.

use moescope_analysis::Analysis;
use xml::reader::EventReader;

use super::fixture::{Shape, analysis, excerpt};
use super::rendered;

const NAMES: [&str; 9] = [
    "<script>alert(1)</script>",
    "]]></svg><img src=x onerror=alert(1)>",
    "\u{1b}[31mred\u{7}\r\nnext",
    "a | b",
    "**bold** [link](javascript:alert(1)) `code`",
    "\u{202e}gnp.exe",
    "日本語の文章 🙂 \u{fffe}",
    "{{ 7 * 7 }}{% raw %}&amp;\"'",
    "# heading <!-- -->",
];

fn hostile() -> Vec<Analysis> {
    let mut analyses = Vec::new();
    for (n, name) in NAMES.iter().enumerate().take(2) {
        let mut shape = Shape::new(name, 2, 8, 2);
        shape.domains = NAMES.iter().map(|name| name.to_string()).collect();
        shape.domains.push("x".repeat(5000));
        shape.seed = n as u64 + 1;
        let mut analysis = analysis(&shape);
        analysis.excerpt = excerpt(&shape, &NAMES);
        let manifest = &mut analysis.manifest;
        for text in [
            &mut manifest.model.source,
            &mut manifest.model.architecture,
            &mut manifest.model.dtype,
            &mut manifest.device.adapter,
            &mut manifest.settings.moe_impl,
            &mut manifest.created_at,
            &mut manifest.host.os,
        ] {
            *text = NAMES.concat();
        }
        manifest.command = NAMES.map(String::from).to_vec();
        manifest.device.limits.insert(NAMES[0].into(), 3);
        analyses.push(analysis);
    }
    analyses
}

#[test]
fn hostile_names_are_text_in_every_output() {
    let report = rendered("hostile", &hostile());
    let (html, markdown) = (report.html(), report.markdown());

    for (output, text) in [("HTML", &html), ("Markdown", &markdown)] {
        let acting = |c: char| {
            (c.is_control() && c != '\n')
                || matches!(c, '\u{200b}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}')
        };
        assert!(!text.contains(acting), "{output} has a control character");
        assert!(text.contains('␛') && text.contains("U+202E"), "{output} hides them");
        assert!(text.contains("7 * 7") || text.contains("7 \\* 7"), "{output} ran a template");
        assert!(!text.contains(&"x".repeat(200)), "{output} has an endless name");
    }
    for tag in ["<img", "]]></svg>", "<!--"] {
        assert!(!html.contains(tag), "HTML has {tag}");
    }
    // The token view and its data, and nothing else.
    assert_eq!((html.matches("<script").count(), html.matches("</script").count()), (2, 2));
    assert!(html.contains("&lt;script&gt;alert(1)"));
    for (number, line) in markdown.lines().enumerate() {
        for tag in ["<script", "<img", "<!--", "**bold**", "[link]("] {
            let mut rest = line;
            while let Some(at) = rest.find(tag) {
                // In a code block (the command) everything is text.
                let escaped = at > 0 && rest.as_bytes()[at - 1] == b'\\';
                assert!(escaped || line.starts_with("moescope "), "line {number}: {line}");
                rest = &rest[at + 1..];
            }
        }
    }
    for path in &report.paths.figures {
        if path.extension().is_some_and(|kind| kind == "svg") {
            let svg = std::fs::read_to_string(path).unwrap();
            let parsed: Result<Vec<_>, _> = EventReader::new(svg.as_bytes()).into_iter().collect();
            parsed.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(!svg.contains("<script") && !svg.contains("<img"));
        } else {
            let png = std::fs::read(path).unwrap();
            assert!(png.starts_with(b"\x89PNG") && png.len() > 5000, "{}", path.display());
        }
    }
}

/// Table rows keep their number of columns whatever is in a cell.
#[test]
fn markdown_tables_keep_their_shape() {
    let report = rendered("hostile-tables", &hostile());
    let columns = |line: &str| line.replace("\\|", "").matches('|').count();
    let markdown = report.markdown();
    let mut expected = None;
    for line in markdown.lines() {
        if !line.starts_with('|') {
            expected = None;
            continue;
        }
        assert_eq!(columns(line), *expected.get_or_insert(columns(line)), "{line}");
    }
}
