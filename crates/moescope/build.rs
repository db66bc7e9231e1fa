//! Tells the binary the commit it is built from, where there is a git checkout, and whether the tree has changes
//! that this commit does not.

use std::{path::Path, process::Command};

/// What the binary is built from, from the root of the repository: tests are no part of it.
const SOURCES: &[&str] =
    &["crates", "datasets/catalog", "Cargo.toml", "Cargo.lock", ":(exclude)crates/*/tests"];
const ROOT: &str = "../..";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) {
        let changed = git(&[&["diff", "--name-only", "HEAD", "--"], SOURCES].concat());
        let added = git(&[&["ls-files", "--others", "--exclude-standard", "--"], SOURCES].concat());
        let dirty = [changed, added].into_iter().any(|found| found.is_none_or(|s| !s.is_empty()));
        let mark = if dirty { "-dirty" } else { "" };
        println!("cargo:rustc-env=MOESCOPE_GIT_COMMIT={commit}{mark}");
        // Whether the tree is as in HEAD changes with the tree and with HEAD: no look at the index, which every
        // `git status` may write.
        let inside = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten();
        let crates = inside(&Path::new(ROOT).join("crates"));
        let parts = crates.flat_map(|one| inside(&one.path())).map(|part| part.path());
        let shared = SOURCES[1..4].iter().map(|path| Path::new(ROOT).join(path));
        for path in parts.chain(shared).filter(|path| !path.ends_with("tests") && path.exists()) {
            println!("cargo:rerun-if-changed={}", path.display());
        }
    }
    // HEAD moves with every commit; only this crate is rebuilt for it.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"]);
    if let Some(log) = log.map(|log| Path::new(ROOT).join(log)).filter(|log| log.exists()) {
        println!("cargo:rerun-if-changed={}", log.display());
    }
}

/// What git says in the root of the repository; `None` where it fails or there is none.
fn git(arguments: &[&str]) -> Option<String> {
    let mut git = Command::new("git");
    let output = git.args(["-C", ROOT]).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
