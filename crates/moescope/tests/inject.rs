//! Faults for tests of the gate: hidden from help, found by the gate, named wherever their numbers are.

use std::path::Path;

use serde_json::json;

use crate::common::{moescope, prompts, stdout, succeed, tiny};

const SLOW: &str = "injected slow-down, for tests of the gate";
const ASTRAY: &str = "injected routing, for tests of the gate";

/// Records the bundled model in `dir/name` and returns what was printed.
fn record(dir: &Path, name: &str, more: &[&str]) -> String {
    let text = "The router sends every token to four of thirty-two experts.";
    let records: Vec<_> =
        (0..5).map(|n| json!({"id": n.to_string(), "domain": "d", "text": text})).collect();
    let mut command = moescope();
    command.arg("run").arg(tiny()).arg("--prompts").arg(prompts(dir, &records));
    command.arg("-o").arg(dir.join(name)).args(["--device", "flex", "--max-tokens", "5"]);
    stdout(&succeed(command.args(more)))
}

#[test]
fn faults_are_named_in_every_output_and_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    record(dir.path(), "base", &[]);
    // The times of a loaded machine are not what this test is about.
    std::fs::write(path("moescope.toml"), "[gate]\nthreshold = 50.0\n").unwrap();
    for (name, option, label) in [
        ("slow", &["--inject-slowdown", "50"][..], SLOW),
        ("astray", &["--inject-routing"][..], ASTRAY),
    ] {
        for format in ["text", "json", "csv"] {
            let more = [option, &["--force", "--format", format]].concat();
            let said = record(dir.path(), name, &more);
            assert!(said.contains(label), "{format}: {said}");
        }
        let mut command = moescope();
        command.current_dir(dir.path()).args(["gate", "base", name]);
        let gate = command.output().unwrap();
        let said = stdout(&gate);
        assert_eq!(gate.status.code(), Some(i32::from(name == "astray")), "{said}");
        assert!(
            said.contains(label) && said.contains("overlap 0.") == (name == "astray"),
            "{said}"
        );
        for arguments in [vec!["analyze", name], vec!["compare", "base", name]] {
            let mut command = moescope();
            let said = stdout(&succeed(command.current_dir(dir.path()).args(arguments)));
            assert!(said.contains(label), "{said}");
        }
        let mut command = moescope();
        succeed(command.current_dir(dir.path()).args(["report", name, "-o", "report"]));
        let report = std::fs::read_to_string(path("report/report.md")).unwrap();
        assert!(report.contains(label) && report.contains("put into the forward pass on purpose"));
    }
    let mut command = moescope();
    let help = stdout(&succeed(command.args(["run", "--help"])));
    assert!(help.contains("--profile") && !help.contains("inject"), "{help}");
}
