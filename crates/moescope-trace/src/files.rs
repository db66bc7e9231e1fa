//! Files of a run directory: names of parts, writing in one move, and clearing a run for `--force`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::TraceError;
use crate::schema::TABLES;

/// Name of the manifest in a run directory.
pub(crate) const MANIFEST: &str = "manifest.json";

/// Name of part `number`.
pub(crate) fn part_name(number: u32) -> String {
    format!("part-{number:05}.parquet")
}

/// Number of the part with this file name; `None` for anything else, such as a part under way.
pub(crate) fn part_number(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("part-")?.strip_suffix(".parquet")?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// Name a file has until it is whole. The leading dot hides it from readers and from globs.
fn temporary_name(name: &str) -> String {
    format!(".{name}.tmp")
}

/// Writes `bytes` to `folder/name` so that a reader sees the old content or the new, never a half:
/// a temporary file is written, synchronised and renamed.
pub(crate) fn write_whole(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), TraceError> {
    let path = folder.join(name);
    let temporary = folder.join(temporary_name(name));
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        // Without this a crash of the machine can leave a renamed, empty file.
        file.sync_data()
    });
    if let Err(source) = written {
        // On a full disk the half file would keep the space that the message asks to free.
        let _ = fs::remove_file(&temporary);
        return Err(TraceError::io(&path, "write", source));
    }
    fs::rename(&temporary, &path).map_err(|source| TraceError::io(&path, "write", source))
}

/// Parts of a table in order of their numbers; empty when the folder is not there.
pub(crate) fn list_parts(folder: &Path) -> Result<Vec<(u32, PathBuf)>, TraceError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(TraceError::io(folder, "list", source)),
    };
    let mut parts = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| TraceError::io(folder, "list", source))?;
        if let Some(number) = entry.file_name().to_str().and_then(part_number) {
            parts.push((number, entry.path()));
        }
    }
    parts.sort();
    Ok(parts)
}

/// Removes what a run consists of from `dir` (parts, parts under way, empty folders, the manifest) and
/// nothing else: a file someone put beside them stays.
pub(crate) fn clear_run(dir: &Path) -> Result<(), TraceError> {
    for table in TABLES {
        clear_table(&dir.join(table.folder))?;
    }
    remove_if_there(&dir.join(temporary_name(MANIFEST)))?;
    // Last: until then the directory is recognised as a run.
    remove_if_there(&dir.join(MANIFEST))
}

fn clear_table(folder: &Path) -> Result<(), TraceError> {
    // A link is removed, not what it points to.
    match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(TraceError::io(folder, "read", source)),
        Ok(metadata) if !metadata.is_dir() => return remove_if_there(folder),
        Ok(_) => {}
    }
    let entries = fs::read_dir(folder).map_err(|source| TraceError::io(folder, "list", source))?;
    for entry in entries {
        let entry = entry.map_err(|source| TraceError::io(folder, "list", source))?;
        let name = entry.file_name();
        let whole = name.to_str().map(|name| {
            name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp")).unwrap_or(name)
        });
        if whole.and_then(part_number).is_some() {
            remove_if_there(&entry.path())?;
        }
    }
    match fs::remove_dir(folder) {
        // Something that is not ours is in there.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        Err(source) => Err(TraceError::io(folder, "remove", source)),
        Ok(()) => Ok(()),
    }
}

fn remove_if_there(path: &Path) -> Result<(), TraceError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(TraceError::io(path, "remove", error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_names() {
        assert_eq!(part_number(&part_name(7)), Some(7));
        assert_eq!(part_number(&part_name(123_456)), Some(123_456));
        assert_eq!(part_number("part-0.parquet"), Some(0));
        for other in ["part-.parquet", ".part-00000.parquet.tmp", "part-+1.parquet", "x.parquet"] {
            assert_eq!(part_number(other), None, "{other}");
        }
        assert_eq!(part_number("part-99999999999.parquet"), None);
    }
}
