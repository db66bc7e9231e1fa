//! Putting a report in place: all of it or, as far as the file system allows, nothing.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::ReportError;

/// What makes a directory a report's: this text in its `index.html`.
pub(crate) const GENERATOR: &str = "<meta name=\"generator\" content=\"moescope";

/// A directory beside the target in which a report is written before it moves into place.
#[derive(Debug)]
pub(crate) struct Staging {
    target: PathBuf,
    folder: PathBuf,
}

impl Staging {
    /// Checks the target and makes the folder.
    ///
    /// # Errors
    ///
    /// [`ReportError::OutputExists`] for a directory with foreign files, unless `force`; with it, they
    /// stay and the report's files are put among them.
    pub(crate) fn new(target: &Path, force: bool) -> Result<Self, ReportError> {
        if target.exists() {
            if !target.is_dir() {
                return Err(ReportError::OutputIsFile { path: target.into() });
            }
            let mut entries = fs::read_dir(target).map_err(|source| write_error(target, source))?;
            let empty = entries.next().is_none();
            if !empty && !force && !is_report(target) {
                return Err(ReportError::OutputExists { path: target.into() });
            }
        }
        // Beside the target, so that moving it into place is a rename within one file system.
        let mut name = OsString::from(".");
        name.push(target.file_name().unwrap_or("report".as_ref()));
        name.push(format!(".partial-{}", std::process::id()));
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() && target.file_name().is_some() => {
                parent
            }
            // `.` and `..` have no name to stand beside.
            _ if target.file_name().is_none() => target,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(|source| write_error(parent, source))?;
        let folder = parent.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(|source| write_error(&folder, source))?;
        }
        let figures = folder.join("figures");
        fs::create_dir_all(&figures).map_err(|source| write_error(&figures, source))?;
        Ok(Self { target: target.into(), folder })
    }

    /// Where a file is written for now.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a text file.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<(), ReportError> {
        let path = self.path(name);
        fs::write(&path, text).map_err(|source| write_error(&path, source))
    }

    /// Moves everything into place; `files` are moved in that order when the target already exists, so
    /// the page that shows the others comes last. Figures of an older report that this one does not
    /// have (`stale`) are removed.
    pub(crate) fn finish(self, files: &[String], stale: &[String]) -> Result<(), ReportError> {
        if !self.target.exists() {
            let moved = fs::rename(&self.folder, &self.target);
            return moved.map_err(|source| write_error(&self.target, source));
        }
        let figures = self.target.join("figures");
        fs::create_dir_all(&figures).map_err(|source| write_error(&figures, source))?;
        for name in files {
            let path = self.target.join(name);
            fs::rename(self.path(name), &path).map_err(|source| write_error(&path, source))?;
        }
        for name in stale {
            let path = self.target.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(write_error(&path, error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After `finish` it is gone or empty; after an error this is the clean-up. A folder that cannot
        // be removed is not worth hiding the first error for.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn is_report(folder: &Path) -> bool {
    fs::read_to_string(folder.join("index.html")).is_ok_and(|page| page.contains(GENERATOR))
}

fn write_error(path: &Path, source: io::Error) -> ReportError {
    ReportError::Write { path: path.into(), source }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_foreign_directory_is_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("thesis.txt"), "mine").unwrap();
        let error = Staging::new(&target, false).unwrap_err();
        assert!(matches!(error, ReportError::OutputExists { .. }), "{error}");
        assert!(error.to_string().contains("--force") && error.to_string().contains("out"));

        let staging = Staging::new(&target, true).unwrap();
        staging.write("index.html", GENERATOR).unwrap();
        staging.finish(&["index.html".into()], &[]).unwrap();
        assert_eq!(names(&target), ["figures", "index.html", "thesis.txt"]);
        assert_eq!(names(folder.path()), ["out"]);
        // Now it is a report and may be replaced.
        Staging::new(&target, false).unwrap();
    }

    #[test]
    fn a_failed_report_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a/b/out");
        drop(Staging::new(&target, false).unwrap());
        assert!(!target.exists());
        assert_eq!(names(&folder.path().join("a/b")), Vec::<String>::new());

        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(Staging::new(&file, true), Err(ReportError::OutputIsFile { .. })));
    }
}
