//! The file of `-o`: results are appended, nothing in it is touched.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use super::{Form, Printed, csv};

/// A file that can be appended to.
pub(super) struct File {
    path: PathBuf,
    form: Form,
    file: fs::File,
    /// Removed again where nothing is written.
    is_new: bool,
    empty: bool,
}

impl File {
    /// Opens it before anything is measured, so that a path that can't be written costs no time. `-` is stdout,
    /// where results go anyway.
    pub(super) fn open(path: &Path) -> anyhow::Result<Option<Self>> {
        if path == Path::new("-") {
            return Ok(None);
        }
        let form = form(path);
        let is_new = !path.exists();
        let mut options = fs::OpenOptions::new();
        let file = options.append(true).create(true).open(path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        let mut opened = File { path: path.to_owned(), form, file, is_new, empty: true };
        if !is_new {
            opened.check()?;
        }
        Ok(Some(opened))
    }

    /// A file of something else is not appended to.
    fn check(&mut self) -> anyhow::Result<()> {
        let path = &self.path;
        let read = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let text = String::from_utf8_lossy(&read);
        self.empty = text.trim().is_empty();
        let first = text.lines().next().unwrap_or_default();
        match self.form {
            _ if self.empty => Ok(()),
            Form::Csv if first != csv::header() => bail!(
                "{}: has other columns than this version of bench writes; name another file",
                path.display()
            ),
            Form::Csv if !text.ends_with('\n') => {
                bail!("{}: its last line is not whole; name another file", path.display())
            }
            Form::Jsonl => {
                moescope_trace::BenchResult::read(path)
                    .context("bench appends to files of bench results only")?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn append(&mut self, printed: &Printed<'_>) -> anyhow::Result<()> {
        let text = match self.form {
            Form::Csv if !self.empty => csv::rows(printed),
            Form::Markdown | Form::Text if !self.empty => format!("\n{}", self.form.of(printed)?),
            form => form.of(printed)?,
        };
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.flush());
        written.with_context(|| format!("cannot write {}", self.path.display()))?;
        self.is_new = false;
        Ok(())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if self.is_new {
            // An empty file left behind harms nobody.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn form(path: &Path) -> Form {
    match path.extension().and_then(|e| e.to_str()) {
        Some("csv") => Form::Csv,
        Some("md") => Form::Markdown,
        Some("txt") => Form::Text,
        _ => Form::Jsonl,
    }
}
