//! Running the binary and looking at what it says.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

/// The binary, quiet and without colours.
pub(crate) fn moescope() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moescope"));
    command.env("NO_COLOR", "1").env_remove("MOESCOPE_LOG").stdin(Stdio::null());
    command
}

/// The project's `datasets/`.
pub(crate) fn datasets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets")
}

/// The bundled model.
pub(crate) fn tiny() -> PathBuf {
    datasets().join("tiny-gemma4-moe")
}

/// A `run` of the bundled model on the CPU over a prompt file.
pub(crate) fn run_command(prompts: &Path, output: &Path) -> Command {
    let mut command = moescope();
    command.arg("run").arg(tiny()).arg("--prompts").arg(prompts);
    command.arg("-o").arg(output).args(["--device", "flex"]);
    command
}

/// Writes JSON lines and returns their path.
pub(crate) fn prompts(dir: &Path, records: &[Value]) -> PathBuf {
    let path = dir.join("prompts.jsonl");
    let lines: Vec<String> = records.iter().map(Value::to_string).collect();
    std::fs::write(&path, lines.join("\n")).unwrap();
    path
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command that must succeed.
pub(crate) fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}\n{}", stdout(&output), stderr(&output));
    output
}

/// Runs a command that must fail with exit code 2 and an error that says all of `parts`.
pub(crate) fn fail(command: &mut Command, parts: &[&str]) {
    let output = command.output().unwrap();
    let error = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{command:?}\n{error}");
    assert!(stdout(&output).is_empty(), "stdout carries results only: {}", stdout(&output));
    for part in parts {
        assert!(error.contains(part), "{command:?}: {error:?} does not say {part:?}");
    }
}
