//! Two commands run in turns: A B, B A, A B, ... so that whatever the machine does meanwhile meets both.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use moescope_analysis::gate::{Evidence, Look, Pair};
use moescope_trace::BenchResult;

use crate::{commands::interrupt::Interrupt, ui};

/// Replaced by a path in a command.
const OUT: &str = "{out}";

/// The commands of `--run` and `--vs`.
pub(super) struct Commands<'a> {
    pub(super) base: &'a str,
    pub(super) new: &'a str,
    /// Asked after every command: a command ends by itself, since Ctrl-C reaches it too.
    pub(super) interrupt: Option<&'a Interrupt>,
}

impl Commands<'_> {
    /// Runs `count` pairs.
    pub(super) fn run(&self, count: usize, look: Look) -> anyhow::Result<Vec<Pair>> {
        let folder = Folder::new()?;
        let bar = ProgressBar::with_draw_target(
            Some(2 * count as u64),
            ProgressDrawTarget::stderr_with_hz(5),
        );
        let style = ProgressStyle::with_template("{msg:<24} {wide_bar} {pos}/{len} {eta}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(match look {
            Look::First => "pairs",
            Look::Second => "again",
        });
        let mut pairs = Vec::with_capacity(count);
        for pair in 0..count {
            let one = |command, side| {
                let found = measure(command, &folder.path.join(format!("{pair}-{side}")), side);
                bar.inc(1);
                if self.interrupt.is_some_and(Interrupt::is_asked) {
                    bail!("interrupted after {} of {} measurements", bar.position(), 2 * count);
                }
                found
            };
            pairs.push(if pair % 2 == 0 {
                let base = one(self.base, "--run")?;
                (base, one(self.new, "--vs")?)
            } else {
                let new = one(self.new, "--vs")?;
                (one(self.base, "--run")?, new)
            });
        }
        bar.finish_and_clear();
        Ok(pairs)
    }
}

/// One command: its bench result from stdout or, with `{out}`, what it wrote there.
fn measure(command: &str, out: &Path, side: &str) -> anyhow::Result<Evidence> {
    let file = command.contains(OUT);
    // Not quoted: a command may have it in quotes already.
    let path = out.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || r"-_./\:~".contains(c);
    if file && !path.chars().all(plain) {
        bail!(
            "{OUT} would be {path}: set TMPDIR to a directory without spaces or quotes in its path"
        );
    }
    let script = command.replace(OUT, &path);
    let mut shell = match cfg!(windows) {
        true => {
            let mut shell = Command::new("cmd");
            shell.arg("/C");
            shell
        }
        false => {
            let mut shell = Command::new("sh");
            shell.arg("-c");
            shell
        }
    };
    let output = shell
        .arg(&script)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .with_context(|| format!("{side}: cannot start a shell"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last =
            said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        bail!("{side}: `{command}` failed with {}: {last}", output.status);
    }
    if file {
        if !out.exists() {
            bail!("{side}: `{command}` wrote nothing to {OUT}");
        }
        let mut found = super::evidence(out).with_context(|| side.to_owned())?;
        found.name = side.to_owned();
        return Ok(found);
    }
    let said = String::from_utf8(output.stdout)
        .with_context(|| format!("{side}: `{command}` printed no text"))?;
    let results = BenchResult::parse(&said, Path::new(&format!("{side} (stdout)")))?;
    Ok(Evidence::of_bench(side, &results)?)
}

/// A directory that goes when it is no longer needed.
struct Folder {
    path: std::path::PathBuf,
}

impl Folder {
    fn new() -> anyhow::Result<Self> {
        let stamp = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos());
        let name = format!("moescope-gate-{}-{stamp}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // Not `create_dir_all`: nobody else's directory is taken.
        std::fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            ui::note(format!("{} is left behind: {error}", self.path.display()));
        }
    }
}
