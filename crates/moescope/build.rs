//! Tells the binary the commit it is built from, where there is a git checkout.

use std::process::Command;

fn main() {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    if let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) {
        println!("cargo:rustc-env=MOESCOPE_GIT_COMMIT={commit}");
    }
    // HEAD moves with every commit; only this crate is rebuilt for it.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        let path = std::path::Path::new(&log);
        if path.exists() {
            println!("cargo:rerun-if-changed={log}");
        }
    }
    println!("cargo:rerun-if-changed=build.rs");
}
