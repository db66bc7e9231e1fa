//! How CubeCL chooses among variants of a kernel: by trying them, the first time a shape is met.
//!
//! Answers are kept for the life of the process; the builds of this workspace have CubeCL's cache on disk off
//! (its `persistence` feature), so each process decides anew, and two processes may decide otherwise.

use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
    time::SystemTime,
};

use burn::tensor::Device;
use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
use moescope_model::ops;
use serde_json::Value;

/// How hard CubeCL searches (`CUBECL_AUTOTUNE_LEVEL`, or `cubecl.toml`): `minimal`, `balanced`, `extensive` or
/// `full`. `None` on the CPU, where nothing is tuned.
pub fn level(device: &Device) -> Option<String> {
    if ops::on_cpu(device) {
        return None;
    }
    let level = serde_json::to_value(&CubeClRuntimeConfig::get().autotune.level).ok()?;
    Some(level.as_str()?.to_owned())
}

/// What CubeCL decides from now on, written down by itself (`autotune.decisions` of its configuration) in a
/// file that is removed in the end.
#[derive(Debug)]
pub struct Decisions {
    path: PathBuf,
}

impl Decisions {
    /// Starts to listen. Has to come before anything that opens a device: CubeCL reads its configuration once.
    ///
    /// `None` where that has happened, where the user's own configuration writes decisions elsewhere, or where
    /// there is no place for the file: decisions are then not known.
    pub fn watch() -> Option<Self> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let name = format!("moescope-autotune-{}-{}.jsonl", std::process::id(), now.as_nanos());
        let decisions = Decisions { path: std::env::temp_dir().join(name) };
        // A file of that name which somebody else put there is not ours to write.
        OpenOptions::new().write(true).create_new(true).open(&decisions.path).ok()?;
        let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
        if config.autotune.decisions_enabled() {
            return None;
        }
        config.autotune.decisions.file = Some(decisions.path.clone());
        CubeClRuntimeConfig::try_set(config).then_some(decisions)
    }

    /// The variants chosen so far, one per kernel and shape class, sorted: `key -> variant`.
    pub fn chosen(&self) -> Vec<String> {
        chosen(&self.path)
    }
}

impl Drop for Decisions {
    fn drop(&mut self) {
        // A file left behind in the temporary directory harms nobody.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Reads the lines of CubeCL's file; what is not a decision is left out.
fn chosen(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut all: Vec<String> = text.lines().filter_map(decision).collect();
    all.sort();
    all.dedup();
    all
}

/// One line: the key and its fastest variant by name.
fn decision(line: &str) -> Option<String> {
    let value: Value = serde_json::from_str(line).ok()?;
    let fastest = value.get("fastest_index")?.as_u64()?;
    let key = value.get("key")?;
    let outcomes = value.get("results")?.as_array()?.iter();
    let outcomes = outcomes.filter_map(|result| result.get("outcome")?.get("Ok"));
    let mut names = outcomes.filter_map(|outcome| {
        let same = outcome.get("index")?.as_u64()? == fastest;
        same.then(|| outcome.get("name")?.as_str()).flatten()
    });
    let name = names.next()?;
    Some(format!("{key} -> {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_read_from_lines() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let line = |key: &str, fastest: u32| {
            let outcomes = (0..2).map(|index| {
                serde_json::json!({"outcome": {"Ok": {"name": format!("v{index}"), "index": index}}})
            });
            let failed = serde_json::json!({"outcome": {"Err": "Skip"}});
            serde_json::json!({
                "key": key, "fastest_index": fastest,
                "results": outcomes.chain([failed]).collect::<Vec<_>>(),
            })
        };
        let lines = [
            line("matmul b", 1).to_string(),
            "Autotune is chatty".into(),
            "{\"error\": \"no\"}".into(),
            line("matmul a", 0).to_string(),
            line("matmul a", 0).to_string(),
            line("unmeasured", 7).to_string(),
        ];
        std::fs::write(file.path(), lines.join("\n")).unwrap();
        assert_eq!(chosen(file.path()), ["\"matmul a\" -> v0", "\"matmul b\" -> v1"]);
        assert_eq!(chosen(Path::new("/nowhere")), Vec::<String>::new());
    }

    #[test]
    fn nothing_is_tuned_on_the_cpu() {
        assert_eq!(level(&Device::flex()), None);
    }
}
