//! The MODEL argument: what it names, and where that lies.

use std::path::{Path, PathBuf};

use crate::{
    catalog,
    error::{ModelError, Result},
    hub::{self, HubId, HubOptions, Need},
};

/// What a MODEL argument names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A directory or file.
    Path(PathBuf),
    /// A model of the catalog: shapes without weights.
    Catalog(&'static str),
    /// A repository of the Hub.
    Hub(HubId),
}

impl Source {
    /// What `model` names: what exists on disk comes first, then the catalog, then the Hub.
    ///
    /// `revision` overrides the one of a Hub id. A note says so where the choice may surprise.
    ///
    /// # Errors
    ///
    /// It is none of the three ([`ModelError::NoModel`] says why not), or has no revisions and one is asked for.
    pub fn of(model: &str, revision: Option<&str>, note: &dyn Fn(&str)) -> Result<Source> {
        let no_model = |reason: String| ModelError::NoModel { model: model.to_owned(), reason };
        let unrevised = |what: &str| match revision {
            None => Ok(()),
            Some(_) => Err(no_model(format!("--revision is for the Hub, and this is {what}"))),
        };
        let path = Path::new(model);
        if path.exists() {
            unrevised("a path")?;
            if model.parse::<HubId>().is_ok() {
                note(&format!(
                    "{model}: the directory of that name; for the Hub, say {model}@main"
                ));
            }
            return Ok(Source::Path(path.to_owned()));
        }
        if let Some(name) = catalog::names().find(|name| *name == model) {
            unrevised("a model of the catalog")?;
            return Ok(Source::Catalog(name));
        }
        let mut id: HubId = model.parse().map_err(|why| no_model(tried(model, why)))?;
        if let Some(revision) = revision {
            if model.contains('@') && id.revision != revision {
                let two = format!("--revision {revision} and @{} differ; give one", id.revision);
                return Err(no_model(two));
            }
            let with = format!("{}@{revision}", id.repo);
            id = with.parse().map_err(|why| no_model(format!("--revision: {why}")))?;
        }
        Ok(Source::Hub(id))
    }
}

/// What a name was compared with.
fn tried(model: &str, why: String) -> String {
    let mut text = format!("not found: no such file or directory; {why}");
    let names: Vec<&str> = catalog::names().collect();
    // A path is a path; everything else may be a misspelt name.
    if !model.contains(['/', '\\', '.']) || !model.starts_with(['/', '.', '~']) {
        text.push_str(&format!("; the catalog has {}", names.join(", ")));
    }
    text
}

/// A checkpoint on disk, wherever it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// Directory or file to open.
    pub path: PathBuf,
    /// Where it came from, for the manifest: the argument, or `org/name@commit`.
    pub source: String,
    /// Name for tables and legends.
    pub name: String,
}

impl Local {
    /// What a path names.
    pub fn path(path: &Path) -> Local {
        let dir = if path.is_file() { path.parent().unwrap_or(path) } else { path };
        // `.` and the parent of a bare file name have no name of their own.
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        let full = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        let name = full.file_name().unwrap_or(full.as_os_str()).to_string_lossy().into_owned();
        Local { path: path.to_owned(), source: path.display().to_string(), name }
    }

    /// A repository of the Hub, fetched as far as it is needed.
    ///
    /// # Errors
    ///
    /// As [`hub::snapshot`].
    pub fn hub(id: &HubId, need: Need, options: &HubOptions<'_>) -> Result<Local> {
        let snapshot = hub::snapshot(id, need, options).map_err(ModelError::Hub)?;
        let source = format!("{}@{}", id.repo, snapshot.commit);
        Ok(Local { path: snapshot.dir, source, name: id.name().to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(model: &str, revision: Option<&str>) -> Result<Source, String> {
        Source::of(model, revision, &|_| {}).map_err(|e| e.to_string())
    }

    #[test]
    fn paths_then_the_catalog_then_the_hub() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        assert_eq!(of(path, None), Ok(Source::Path(path.into())));
        assert_eq!(of("qwen3-30b-a3b", None), Ok(Source::Catalog("qwen3-30b-a3b")));
        let hub = |revision: &str| {
            let (repo, revision) = ("Qwen/Qwen3-30B-A3B".to_owned(), revision.to_owned());
            Ok(Source::Hub(HubId { repo, revision }))
        };
        assert_eq!(of("Qwen/Qwen3-30B-A3B", None), hub("main"));
        assert_eq!(of("Qwen/Qwen3-30B-A3B@v1", None), hub("v1"));
        assert_eq!(of("Qwen/Qwen3-30B-A3B", Some("v1")), hub("v1"));
        assert_eq!(of("Qwen/Qwen3-30B-A3B@v1", Some("v1")), hub("v1"));
    }

    #[test]
    fn what_is_none_of_them_says_what_was_tried() {
        for (model, revision, says) in [
            ("qwen3-30b", None, "the catalog has gemma-4-26b-a4b"),
            ("qwen3-30b", None, "org/name"),
            ("/no/such/model", None, "no such file"),
            ("a/b@v1", Some("v2"), "differ"),
            ("a/b", Some("../v2"), "--revision"),
            ("deepseek-v3", Some("v2"), "catalog"),
            (".", Some("v2"), "path"),
        ] {
            let error = of(model, revision).unwrap_err();
            assert!(error.contains(says) && error.contains(model), "{error}");
        }
    }

    #[test]
    fn names_of_paths() {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("tiny");
        std::fs::create_dir(&model).unwrap();
        std::fs::write(model.join("model.safetensors"), "").unwrap();
        assert_eq!(Local::path(&model).name, "tiny");
        assert_eq!(Local::path(&model.join("model.safetensors")).name, "tiny");
    }
}
