//! What the Hub's name for a content says of it: SHA-256 in hex of what lies in large storage, git's SHA-1 of
//! everything else.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Bytes read at a time.
const PIECE: usize = 1 << 20;

/// Whether a file holds the content with this etag. Etags that are no hash (of mirrors) say nothing, and hold
/// for every content.
///
/// # Errors
///
/// The file can't be read.
pub(crate) fn is_of(path: &Path, etag: &str) -> io::Result<bool> {
    if !etag.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(true);
    }
    let hash = match etag.len() {
        64 => digest(path, Sha256::new())?,
        40 => {
            // As git hashes a blob.
            let header = format!("blob {}\0", std::fs::metadata(path)?.len());
            digest(path, Sha1::new().chain_update(header))?
        }
        _ => return Ok(true),
    };
    Ok(hash.eq_ignore_ascii_case(etag))
}

/// The hash of a file after what the hasher has seen, in hex.
fn digest(path: &Path, mut hasher: impl Digest) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece)? {
            0 => break,
            n => hasher.update(&piece[..n]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_as_git_and_sha256sum_print_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "hello\n").unwrap();
        let holds = |etag: &str| is_of(&path, etag).unwrap();
        // `git hash-object`, `sha256sum`.
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        assert!(holds(git) && holds(sha256) && holds(&sha256.to_uppercase()));
        assert!(!holds(&git.replace('c', "d")) && !holds(&sha256.replace('5', "6")));
        // No hash of a content.
        assert!(holds("0123") && holds("of-a-mirror") && holds(&"x".repeat(64)));
        std::fs::write(&path, "hello!").unwrap();
        assert!(!holds(git) && !holds(sha256));
    }
}
