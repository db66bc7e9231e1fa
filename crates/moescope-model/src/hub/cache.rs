//! One repository in the cache.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use hf_hub::{Cache, CacheRepo, Repo, RepoType};

use super::{HubError, HubId, HubOptions, Need, Snapshot, id::is_commit};
use crate::checkpoint::{INDEX, SINGLE, shard_names};

/// `models--ORG--NAME` of a cache.
pub(crate) struct RepoCache {
    cache: Cache,
    repo: String,
}

impl RepoCache {
    pub(crate) fn new(options: &HubOptions<'_>, id: &HubId) -> Self {
        RepoCache { cache: Cache::new(options.cache.clone()), repo: id.repo.clone() }
    }

    fn at(&self, revision: &str) -> CacheRepo {
        let model = RepoType::Model;
        self.cache.repo(Repo::with_revision(self.repo.clone(), model, revision.to_owned()))
    }

    /// The commit of a revision, as far as the cache knows.
    pub(crate) fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return self.snapshot(revision).dir.is_dir().then(|| revision.to_owned());
        }
        let refs = self.root().join("refs").join(revision);
        let commit = fs::read_to_string(refs).ok()?.trim().to_owned();
        is_commit(&commit).then_some(commit)
    }

    /// Notes which commit a branch or tag is.
    pub(crate) fn point(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if is_commit(revision) {
            return Ok(());
        }
        let path = || self.root().join("refs").join(revision);
        self.at(revision).create_ref(commit).map_err(|source| error(&path(), source))
    }

    /// Where the files of a commit lie.
    pub(crate) fn snapshot(&self, commit: &str) -> Snapshot {
        Snapshot { dir: self.at(commit).pointer_path(commit), commit: commit.to_owned() }
    }

    /// Where the content with an etag lies.
    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.root().join("blobs").join(etag)
    }

    /// The first file of a commit that is needed and not there.
    pub(crate) fn missing(&self, commit: &str, need: Need) -> Option<String> {
        let dir = self.snapshot(commit).dir;
        let lacks = |name: &str| !dir.join(name).is_file();
        if lacks("config.json") {
            return Some("config.json".into());
        }
        if need == Need::Config {
            return None;
        }
        if lacks(INDEX) {
            return lacks(SINGLE).then(|| SINGLE.to_owned());
        }
        match shard_names(&dir.join(INDEX)) {
            Ok(shards) => shards.into_iter().find(|shard| lacks(shard)),
            // Opening it will say what is wrong.
            Err(_) => None,
        }
    }

    /// Makes `name` in the snapshot of `commit` stand for a blob.
    pub(crate) fn link(&self, etag: &str, commit: &str, name: &str) -> Result<(), HubError> {
        let dir = self.snapshot(commit).dir;
        fs::create_dir_all(&dir).map_err(|source| error(&dir, source))?;
        let pointer = dir.join(name);
        // A link to a blob that is gone is in the way.
        let _ = fs::remove_file(&pointer);
        link(&self.blob(etag), etag, &pointer).map_err(|source| error(&pointer, source))
    }

    fn root(&self) -> PathBuf {
        // `.../models--ORG--NAME/snapshots/COMMIT`
        let snapshot = self.at("main").pointer_path("any");
        snapshot.ancestors().nth(2).unwrap_or(&snapshot).to_owned()
    }
}

#[cfg(unix)]
fn link(_blob: &Path, etag: &str, pointer: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(Path::new("../../blobs").join(etag), pointer)
}

#[cfg(not(unix))]
fn link(blob: &Path, _etag: &str, pointer: &Path) -> io::Result<()> {
    // Symbolic links need a privilege elsewhere.
    fs::hard_link(blob, pointer)
}

/// The error of a file of the cache.
pub(crate) fn error(path: &Path, source: io::Error) -> HubError {
    HubError::Cache { path: path.to_owned(), source }
}
