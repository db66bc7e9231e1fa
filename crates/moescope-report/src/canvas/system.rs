//! Fonts of the machine, for the characters of PNG texts that the embedded font lacks.
//!
//! Tokens and domains are in any script; a few fonts that are common on Linux, macOS and Windows cover
//! most. They are looked for only when such a character is drawn. Fonts with colour pictures instead of
//! outlines (most of emoji) do not serve.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ab_glyph::FontVec;

/// Where fonts lie.
const FOLDERS: &[&str] = &[
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "/System/Library/Fonts",
    "/Library/Fonts",
    "C:\\Windows\\Fonts",
];

/// Beginnings of file names, lower case, in the order of preference: of each the first font is taken.
const NAMES: &[&str] = &[
    "notosanscjk-regular",
    "notosanscjksc-regular",
    "notosanssc-regular",
    "wqy-",
    "droidsansfallback",
    "hiragino sans gb",
    "msyh.",
    "yugothm.",
    "malgun.",
    "notosansdevanagari-regular",
    "notosansthai-regular",
    "notosanssymbols2-regular",
    "notoemoji",
    "arial unicode",
    "seguisym",
    "nirmala",
    "leelawui",
];

/// Folders are looked into this deep.
const DEPTH: usize = 4;

/// The fonts found, the preferred first; none where there are none. A file that is no font is passed over.
pub(super) fn fonts() -> &'static [FontVec] {
    static FONTS: OnceLock<Vec<FontVec>> = OnceLock::new();
    FONTS.get_or_init(|| {
        let mut files: Vec<(usize, PathBuf)> = Vec::new();
        for folder in FOLDERS {
            find(Path::new(folder), DEPTH, &mut files);
        }
        files.sort();
        files.dedup_by_key(|(rank, _)| *rank);
        let read = |(_, path): &(usize, PathBuf)| {
            FontVec::try_from_vec_and_index(fs::read(path).ok()?, 0).ok()
        };
        files.iter().filter_map(read).collect()
    })
}

fn find(folder: &Path, depth: usize, files: &mut Vec<(usize, PathBuf)>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        // What a link leads to is not followed further than a file: no cycles.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if depth > 1 {
                find(&path, depth - 1, files);
            }
            continue;
        }
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if let Some(rank) = NAMES.iter().position(|known| name.starts_with(known)) {
            files.push((rank, path));
        }
    }
}
