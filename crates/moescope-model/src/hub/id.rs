//! `org/name@revision`.

use std::{fmt, str::FromStr};

/// A model repository of the Hub at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubId {
    /// `org/name`.
    pub repo: String,
    /// Branch, tag or commit.
    pub revision: String,
}

/// The branch a repository starts with.
pub(crate) const DEFAULT_REVISION: &str = "main";

impl HubId {
    /// The repository's own name, without its owner.
    pub fn name(&self) -> &str {
        self.repo.rsplit('/').next().unwrap_or(&self.repo)
    }

    /// Whether the revision is a whole commit hash.
    pub(crate) fn is_commit(&self) -> bool {
        is_commit(&self.revision)
    }
}

/// Whether `text` is a whole commit hash.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

impl fmt::Display for HubId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.repo, self.revision)
    }
}

impl FromStr for HubId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (repo, revision) = text.split_once('@').unwrap_or((text, DEFAULT_REVISION));
        let Some((org, name)) = repo.split_once('/') else {
            return Err("a Hub id has the form org/name".into());
        };
        for part in [org, name] {
            if !is_name(part) {
                return Err(format!("{part:?} is no name of the Hub"));
            }
        }
        // A revision becomes a path in the cache and in the address.
        if !revision.split('/').all(is_name) {
            return Err(format!("{revision:?} is no branch, tag or commit"));
        }
        Ok(HubId { repo: repo.to_owned(), revision: revision.to_owned() })
    }
}

fn is_name(text: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || b"._-+".contains(&b);
    !text.is_empty()
        && text.len() <= 255
        && text.bytes().all(known)
        && !text.starts_with(['.', '-'])
        && !text.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_with_and_without_revision() {
        let id: HubId = "Qwen/Qwen3-30B-A3B".parse().unwrap();
        assert_eq!((id.repo.as_str(), id.revision.as_str()), ("Qwen/Qwen3-30B-A3B", "main"));
        assert_eq!(id.name(), "Qwen3-30B-A3B");
        let id: HubId = "a/b.c@refs/pr/7".parse().unwrap();
        assert_eq!((id.repo.as_str(), id.revision.as_str()), ("a/b.c", "refs/pr/7"));
        assert_eq!(id.to_string(), "a/b.c@refs/pr/7");
    }

    #[test]
    fn what_would_leave_the_cache_is_no_id() {
        for text in [
            "name",
            "/name",
            "org/",
            "org/a/b",
            "../x",
            "a/..",
            "a/b@",
            "a/b@../../etc",
            "a/b@/etc",
            "a/b@x//y",
            "a/b c",
            "a/b?x",
            "a/b@a%2e",
            "./model",
            "~/model",
            "a\\b/c",
            "a/b@.hidden",
        ] {
            assert!(text.parse::<HubId>().is_err(), "{text}");
        }
    }
}
