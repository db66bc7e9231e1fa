//! The report in a real browser: it draws, fits a phone, and asks the network for nothing.

use std::{path::Path, process::Command};

use serde_json::json;

use crate::common::{moescope, prompts, run_command, succeed};

/// A Chromium, wherever distributions put it.
fn chromium() -> Command {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = names.into_iter().find(|name| {
        Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
    });
    let mut command = Command::new(found.expect("tests need Chromium; `./test` installs it"));
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-quic",
        "--enable-logging=stderr",
    ]);
    command
}

/// Opens a page and returns its DOM after scripts ran, and what was logged.
fn open(page: &Path, width: u32) -> (String, String) {
    let profile = tempfile::tempdir().unwrap();
    let output = chromium()
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--window-size={width},900"))
        .arg("--dump-dom")
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_report_opens_and_fits() {
    let dir = tempfile::tempdir().unwrap();
    let texts = ["The router sends every token to experts.", "fn main() { println!(\"hi\"); }"];
    let records: Vec<_> = texts
        .iter()
        .enumerate()
        .map(|(i, t)| json!({"id": i.to_string(), "domain": format!("domain-{i}"), "text": t.repeat(4)}))
        .collect();
    let prompts = prompts(dir.path(), &records);
    for run in ["a", "b"] {
        succeed(run_command(&prompts, &dir.path().join(run)).args(["--max-tokens", "8"]));
    }
    let report = dir.path().join("report");
    let mut command = moescope();
    command.arg("report").arg(dir.path().join("a")).arg(dir.path().join("b"));
    succeed(command.arg("-o").arg(&report));

    // The page inside frames of the widths to check, with a probe that reports what it sees.
    let probe = dir.path().join("probe.html");
    let frames: String = [390, 1280]
        .map(|w| format!("<iframe src='report/index.html' width='{w}' height='900'></iframe>"))
        .concat();
    let script = "<script>onload = () => {
        const seen = [...document.querySelectorAll('iframe')].map(frame => {
            const page = frame.contentDocument, root = page.documentElement;
            const figures = [...page.querySelectorAll('figure svg')];
            return { width: root.clientWidth, scroll: root.scrollWidth, figures: figures.length,
                     shown: figures.filter(f => f.getBoundingClientRect().width > 0).length,
                     wide: figures.filter(f => f.getBoundingClientRect().width > root.clientWidth).length,
                     title: page.title };
        });
        document.body.innerHTML = '<pre id=seen>' + JSON.stringify(seen) + '</pre>';
    }</script>";
    std::fs::write(&probe, format!("<!doctype html><body>{frames}{script}</body>")).unwrap();
    let mut log = String::new();
    let seen = {
        let profile = tempfile::tempdir().unwrap();
        let output = chromium()
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(["--window-size=1800,1000", "--allow-file-access-from-files", "--dump-dom"])
            .arg(format!("file://{}", probe.display()))
            .output()
            .unwrap();
        log.push_str(&String::from_utf8_lossy(&output.stderr));
        let dom = String::from_utf8_lossy(&output.stdout).into_owned();
        let json =
            dom.split("<pre id=\"seen\">").nth(1).and_then(|rest| rest.split("</pre>").next());
        let json = json.unwrap_or_else(|| panic!("the probe saw nothing: {dom}\n{log}")).to_owned();
        serde_json::from_str::<serde_json::Value>(&json).unwrap()
    };
    for page in seen.as_array().unwrap() {
        assert_eq!(page["width"], page["scroll"], "the page scrolls sideways: {page}");
        assert!(page["shown"].as_u64().unwrap() >= 5, "figures are missing: {page}");
        assert_eq!(page["wide"], 0, "a figure is wider than the page: {page}");
        assert!(!page["title"].as_str().unwrap().is_empty());
    }
    let (dom, direct) = open(&report.join("index.html"), 1280);
    assert!(dom.contains("What stands out"), "findings come first");
    for said in [log, direct] {
        assert!(!said.contains(":CONSOLE"), "the console is not empty: {said}");
        assert!(!said.contains("ERR_"), "something was asked of the network: {said}");
    }
}
