//! A run killed half-way.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use moescope_trace::Run;

use crate::common::{datasets, moescope, run_command, stderr, succeed};

/// SIGKILL while parts are being written: what was written opens as `partial`, and a report over it
/// says so.
#[test]
fn a_killed_run_stays_readable() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("run");
    let mut command = run_command(&datasets().join("prompts"), &output);
    command.args(["--max-tokens", "256"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let parts = || {
        let parts = std::fs::read_dir(output.join("routing")).into_iter().flatten();
        parts
            .filter(|p| !p.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'))
            .count()
    };
    let start = Instant::now();
    while parts() < 2 {
        assert!(start.elapsed() < Duration::from_secs(120), "no part after two minutes");
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it could be killed");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();

    let run = Run::open(&output).unwrap();
    assert!(run.is_partial());
    let tables = run.read().unwrap();
    assert!(!tables.tokens.token_id.is_empty());
    assert_eq!(tables.routing.layer.len(), 6 * tables.tokens.token_id.len());

    let report = dir.path().join("report");
    let said = succeed(moescope().arg("report").arg(&output).arg("-o").arg(&report));
    assert!(stderr(&said).contains("partial"), "{}", stderr(&said));
    for file in ["index.html", "report.md"] {
        let text = std::fs::read_to_string(report.join(file)).unwrap();
        assert!(text.contains("partial"), "{file} does not say that the run is partial");
    }
}
