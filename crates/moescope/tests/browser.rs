//! The report in a real browser: it draws, fits a phone, and asks the network for nothing.

use std::{path::Path, process::Command};

use serde_json::{Value, json};

use moescope_analysis::{RunData, Sequence};
use moescope_trace::Run;

use crate::common::{moescope, prompts, run_command, succeed};

/// A Chromium, wherever distributions put it.
pub(crate) fn chromium() -> Command {
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
        // Containers have little of it, and a page that needs more dies.
        "--disable-dev-shm-usage",
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
        .args(["--allow-file-access-from-files", "--dump-dom"])
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

/// Opens a probe, a page that replaces itself by what it saw as JSON; returns that and what was logged.
fn probed(probe: &Path) -> (Value, String) {
    let (dom, log) = open(probe, 1800);
    let json = dom.split("<pre id=\"seen\">").nth(1).and_then(|rest| rest.split("</pre>").next());
    let json = json.unwrap_or_else(|| panic!("the probe saw nothing: {dom}\n{log}"));
    (serde_json::from_str(json).unwrap(), log)
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
    let (seen, log) = probed(&probe);
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

/// What the probe does in the token view, in the words of the page: it chooses experts with the mouse
/// and with keys and writes down which tokens light up.
const TOKEN_PROBE: &str = r#"<script>onload = () => {
    const page = document.querySelector("iframe").contentDocument;
    const part = (name) => page.querySelector(`[data-part="${name}"]`);
    const options = () => [...part("text").querySelectorAll('[role="option"]')];
    const lit = () => options().flatMap((option, n) => option.getAttribute("aria-selected") === "true" ? [n] : []);
    const dimmed = () => options().flatMap((option, n) =>
        option.ownerDocument.defaultView.getComputedStyle(option).opacity < 1 ? [n] : []);
    const set = (name, value, event) => { part(name).value = value; part(name).dispatchEvent(new Event(event)); };
    const seen = { clicks: [], keys: [], details: [] };
    for (let sequence = 0; sequence < 2; sequence++) {
        set("sequence", sequence, "change");
        for (let layer = 0; layer <= Number(part("layer").max); layer++) {
            set("layer", layer, "input");
            const experts = [...part("experts").querySelectorAll("button")].map((button) => Number(button.dataset.expert));
            for (const expert of experts.slice(0, 3)) {
                part("experts").querySelector(`[data-expert="${expert}"]`).click();
                seen.clicks.push({ sequence, layer, expert, tokens: options().length, lit: lit(), dimmed: dimmed(),
                                   status: part("status").textContent });
            }
        }
    }
    const press = (key) => page.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
    const note = (what) => seen.keys.push({ what, at: options().indexOf(page.activeElement), layer: Number(part("layer").value),
                                            lit: lit(), stops: options().filter((option) => option.tabIndex === 0).length });
    set("sequence", 0, "change");
    set("layer", 1, "input");
    options()[0].focus();
    for (const key of ["ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft", "Enter", "Enter", "2", "]", "1", "Escape", "End", "Home", "ArrowDown", "ArrowUp"]) {
        press(key);
        note(key);
    }
    options()[5].dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
    seen.details = [...part("detail").querySelectorAll("tbody tr")].map((row) =>
        [...row.querySelectorAll("button")].map((button) => Number(button.dataset.expert)));
    // An expert of another layer, chosen in the list of one token.
    part("detail").querySelector('tbody tr:nth-child(3) button').click();
    note("detail");
    seen.text = part("text").textContent;
    document.body.innerHTML = "<pre id=seen></pre>";
    document.getElementById("seen").textContent = JSON.stringify(seen);
}</script>"#;

#[test]
fn the_token_view_lights_up_the_tokens_that_use_an_expert() {
    let dir = tempfile::tempdir().unwrap();
    let hostile =
        "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u{202e}gpj\u{200b}\n";
    let records = [
        json!({"id": "a", "domain": "<b>domain</b>", "text": hostile.repeat(3)}),
        json!({"id": "b", "domain": "prose", "text": "The house by the river was empty. ".repeat(6)}),
    ];
    let prompts = prompts(dir.path(), &records);
    let run = dir.path().join("run");
    succeed(run_command(&prompts, &run).args(["--max-tokens", "8"]));
    let report = dir.path().join("report");
    succeed(moescope().arg("report").arg(&run).arg("-o").arg(&report));
    let probe = dir.path().join("probe.html");
    let frame = "<iframe src='report/index.html' width='1280' height='900'></iframe>";
    std::fs::write(&probe, format!("<!doctype html><body>{frame}{TOKEN_PROBE}</body>")).unwrap();
    let (seen, log) = probed(&probe);
    assert!(!log.contains(":CONSOLE"), "the console is not empty: {log}");

    // What the run says, read without the report.
    let data = RunData::load(&Run::open(&run).unwrap()).unwrap();
    let using = |sequence: usize, layer: usize, expert: u16| -> Vec<usize> {
        let Sequence { start, end, .. } = data.sequences[sequence];
        (start..end)
            .filter(|&token| data.layers[layer].experts_of(token).contains(&expert))
            .map(|token| token - start)
            .collect()
    };
    let numbers = |value: &Value| -> Vec<usize> { serde_json::from_value(value.clone()).unwrap() };
    let clicks = seen["clicks"].as_array().unwrap();
    assert_eq!(clicks.len(), 2 * data.layers.len() * 3);
    for click in clicks {
        let number = |name: &str| click[name].as_u64().unwrap() as usize;
        let (sequence, layer, expert) =
            (number("sequence"), number("layer"), number("expert") as u16);
        let expected = using(sequence, layer, expert);
        let Sequence { start, end, .. } = data.sequences[sequence];
        assert_eq!(number("tokens"), end - start);
        assert_eq!(numbers(&click["lit"]), expected, "{click}");
        assert!(!expected.is_empty(), "an expert that no token uses was offered: {click}");
        let others: Vec<usize> = (0..end - start).filter(|n| !expected.contains(n)).collect();
        assert_eq!(numbers(&click["dimmed"]), others, "{click}");
        let status = click["status"].as_str().unwrap();
        let words = format!(
            "Expert {expert} of layer {layer}: used by {} of the {}",
            expected.len(),
            end - start
        );
        assert!(status.starts_with(&words), "{status}");
    }

    // Keys: moving, choosing the first and the second expert, the next layer, letting go.
    let experts = |layer: usize, token: usize| data.layers[layer].experts_of(token).to_vec();
    let top = experts(1, 2);
    let last = data.sequences[0].end - 1;
    let expected = [
        ("ArrowRight", 1, 1, vec![]),
        ("ArrowRight", 2, 1, vec![]),
        ("ArrowRight", 3, 1, vec![]),
        ("ArrowLeft", 2, 1, vec![]),
        ("Enter", 2, 1, using(0, 1, top[0])),
        ("Enter", 2, 1, vec![]),
        ("2", 2, 1, using(0, 1, top[1])),
        ("]", 2, 2, vec![]),
        ("1", 2, 2, using(0, 2, experts(2, 2)[0])),
        ("Escape", 2, 2, vec![]),
        ("End", last, 2, vec![]),
        ("Home", 0, 2, vec![]),
    ];
    let keys = seen["keys"].as_array().unwrap();
    for (key, (what, at, layer, lit)) in keys.iter().zip(expected) {
        assert_eq!(key["what"], what);
        assert_eq!((&key["at"], &key["layer"]), (&json!(at), &json!(layer)), "{key}");
        assert_eq!(numbers(&key["lit"]), lit, "{key}");
        assert_eq!(key["stops"], 1, "Tab stops at one token: {key}");
    }
    let (down, up, detail) = (&keys[12], &keys[13], &keys[14]);
    assert!(down["at"].as_u64().unwrap() > 0 && up["at"] == 0, "{down} {up}");
    // The pointer over a token shows its experts in every layer, in rank order.
    let shown: Vec<Vec<u16>> = serde_json::from_value(seen["details"].clone()).unwrap();
    assert_eq!(shown, (0..data.layers.len()).map(|layer| experts(layer, 5)).collect::<Vec<_>>());
    assert_eq!(detail["layer"], 2);
    assert_eq!(numbers(&detail["lit"]), using(0, 2, experts(2, 5)[0]));
    let text = seen["text"].as_str().unwrap();
    assert!(!text.contains(['\u{202e}', '\u{200b}', '\n']), "{text:?}");
    assert!(text.contains('↵') && text.contains("script"), "{text:?}");
}
