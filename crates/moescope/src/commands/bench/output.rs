//! The file of `-o`: results are added, those in it stay as they are.

use std::{
    fs,
    io::{self, Write},
    ops::Range,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use super::{Form, Printed, csv, document};

/// A file that results are added to.
pub(super) struct File {
    path: PathBuf,
    form: Form,
    file: fs::File,
    /// Removed again where nothing is written.
    is_new: bool,
    /// Its first line, where there is something in it.
    first: Option<String>,
    /// What this bench has written.
    own: Option<Range<u64>>,
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
        let mut opened = File { path: path.to_owned(), form, file, is_new, first: None, own: None };
        if !is_new {
            opened.check()?;
        }
        Ok(Some(opened))
    }

    /// A file of something else is not added to.
    fn check(&mut self) -> anyhow::Result<()> {
        let path = &self.path;
        let read = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let text = String::from_utf8_lossy(&read);
        if text.trim().is_empty() {
            return Ok(());
        }
        self.first = text.lines().next().map(str::to_owned);
        match self.form {
            Form::Csv if !text.ends_with('\n') => {
                bail!("{}: its last line is not whole; name another file", path.display())
            }
            Form::Json | Form::Jsonl => {
                moescope_trace::BenchResult::read(path)
                    .context("bench adds to files of bench results only")?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Refuses a table of other columns than those of `printed`.
    pub(super) fn check_columns(&self, printed: &Printed<'_>) -> anyhow::Result<()> {
        match &self.first {
            Some(first) if self.form == Form::Csv && *first != csv::header(printed) => bail!(
                "{}: has other columns than this version of bench writes; name another file",
                self.path.display()
            ),
            _ => Ok(()),
        }
    }

    /// Whether what was written can be replaced: a pipe can't.
    pub(super) fn is_regular(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.is_file())
    }

    /// Writes the result. What this bench wrote before makes room for it; where another program has added to a
    /// file of lines since, it stays instead.
    pub(super) fn write(&mut self, printed: &Printed<'_>) -> anyhow::Result<()> {
        let text = self.text(printed)?;
        let written = match self.form {
            Form::Json if self.is_regular() => self.replace(&text),
            _ => self.append(&text),
        };
        written.with_context(|| format!("cannot write {}", self.path.display()))?;
        self.is_new = false;
        Ok(())
    }

    /// What is added, or of a JSON document all of it.
    fn text(&self, printed: &Printed<'_>) -> anyhow::Result<String> {
        match self.form {
            Form::Json if self.is_regular() => {
                let held = fs::read_to_string(&self.path)
                    .with_context(|| format!("cannot read {}", self.path.display()))?;
                document::joined(&held, &printed.result.id, &Form::Jsonl.of(printed)?)
            }
            Form::Csv if self.first.is_some() => Ok(csv::rows(printed)),
            Form::Markdown | Form::Text if self.first.is_some() => {
                Ok(format!("\n{}", self.form.of(printed)?))
            }
            form => form.of(printed),
        }
    }

    /// At the end of the file.
    fn append(&mut self, text: &str) -> io::Result<()> {
        let mut start = self.file.metadata()?.len();
        if let Some(own) = self.own.clone() {
            if own.end != start {
                return Ok(());
            }
            self.file.set_len(own.start)?;
            start = own.start;
        }
        self.file.write_all(text.as_bytes())?;
        self.file.flush()?;
        self.own = Some(start..start + text.len() as u64);
        Ok(())
    }

    /// The file as a whole: at no time is it half written.
    fn replace(&self, text: &str) -> io::Result<()> {
        let path = fs::canonicalize(&self.path)?;
        let mut new = path.clone().into_os_string();
        new.push(".new");
        fs::write(&new, text).and_then(|()| fs::rename(&new, &path))
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
        Some("json") => Form::Json,
        _ => Form::Jsonl,
    }
}
