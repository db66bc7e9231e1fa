//! Small files of the kernel, read with care: they may be missing, unreadable, or not what they should be.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

/// Where the kernel shows its files. Another place in tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// `/sys`.
    pub sys: PathBuf,
    /// `/proc`.
    pub proc: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Roots { sys: "/sys".into(), proc: "/proc".into() }
    }
}

/// More than any file of sysfs holds (a page); what is longer is not one.
const LONGEST: u64 = 64 << 10;

/// The text of a small file.
pub(crate) fn text(path: &Path) -> Option<String> {
    let mut text = String::new();
    // A directory opens and fails to be read; a pipe would wait for ever.
    let file = File::open(path).ok().filter(|file| file.metadata().is_ok_and(|m| m.is_file()))?;
    let read = file.take(LONGEST + 1).read_to_string(&mut text).ok()?;
    (read as u64 <= LONGEST).then_some(text)
}

/// The one word or line of a file, for people to read: short and printable.
pub(crate) fn word(path: &Path) -> Option<String> {
    let text = text(path)?;
    let word = text.trim();
    let fits = !word.is_empty() && word.len() <= 64 && !word.contains(char::is_control);
    fits.then(|| word.to_owned())
}

/// The one number of a file that counts or measures something.
pub(crate) fn number(path: &Path) -> Option<u64> {
    word(path)?.parse().ok()
}

/// Entries of a directory, sorted by name; none where it is not there.
pub(crate) fn entries(path: &Path) -> Vec<PathBuf> {
    let read = std::fs::read_dir(path).into_iter().flatten();
    let mut entries: Vec<PathBuf> = read.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    entries
}

/// Name of an entry; empty where it is not text.
pub(crate) fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}
