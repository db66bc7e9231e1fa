//! Prompt text is data: in no output does it act.

use std::fs;

use serde_json::json;

use crate::common::{moescope, prompts, run_command, stderr, stdout, succeed};

const SCRIPT: &str = "<script>alert('x')</script>";
const ESCAPE: &str = "\u{1b}[31mred\u{1b}]0;title\u{7}";
const MARKDOWN: &str = "**bold** | [link](javascript:x) `code`";

#[test]
fn text_stays_text() {
    let dir = tempfile::tempdir().unwrap();
    let hostile = format!("{SCRIPT} {ESCAPE} {MARKDOWN}\n");
    let records: Vec<_> = [SCRIPT, ESCAPE, MARKDOWN, "\u{202e}gnirts\u{0}"]
        .iter()
        .enumerate()
        .map(|(i, domain)| json!({"id": hostile, "domain": domain, "text": hostile.repeat(i + 2)}))
        .collect();
    let prompts = prompts(dir.path(), &records);
    let output = dir.path().join("run");
    let run = succeed(run_command(&prompts, &output).args([
        "--max-tokens",
        "4",
        "--name",
        &format!("{SCRIPT}{ESCAPE}"),
    ]));
    let report = dir.path().join("report");
    let mut command = moescope();
    command.arg("report").arg(&output).arg("-o").arg(&report).args(["--title", &hostile]);
    let reported = succeed(&mut command);
    for said in [stdout(&run), stderr(&run), stdout(&reported), stderr(&reported)] {
        assert!(!said.contains('\u{1b}') && !said.contains('\u{7}'), "{said:?}");
    }

    let html = fs::read_to_string(report.join("index.html")).unwrap();
    let markdown = fs::read_to_string(report.join("report.md")).unwrap();
    assert!(html.contains("&lt;script&gt;"), "the text is shown");
    assert!(!html.contains("<script>alert"), "a script");
    // In Markdown a backslash makes it text; inside a fenced block it is text already.
    let prose: String = markdown.split("```").step_by(2).collect();
    assert!(prose.contains("\\<script>alert"), "the text is shown");
    assert!(!prose.replace("\\<", "").contains("<script>alert"), "a script");
    for text in [&html, &markdown] {
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}') && !text.contains('\u{0}'));
    }
    assert!(!prose.contains("[link](javascript"), "a link");
    for entry in fs::read_dir(report.join("figures")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "svg") {
            let svg = fs::read_to_string(&path).unwrap();
            assert!(
                !svg.contains("<script>alert") && !svg.contains('\u{1b}'),
                "{}",
                path.display()
            );
        }
    }

    // The table keeps the text as it was.
    let tokens = moescope_trace::Run::open(&output).unwrap().read().unwrap().tokens;
    assert!(
        tokens.domains.iter().any(|d| d == SCRIPT) && tokens.domains.iter().any(|d| d == ESCAPE)
    );
}

/// Errors quote hostile names without their escapes.
#[test]
fn errors_are_sanitised() {
    let dir = tempfile::tempdir().unwrap();
    let path = prompts(dir.path(), &[json!({"id": ESCAPE, "token_ids": [9999]})]);
    let output = run_command(&path, &dir.path().join("run")).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(!stderr(&output).contains('\u{1b}'), "{:?}", stderr(&output));
}
