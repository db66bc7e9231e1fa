//! Checkpoints of the Hugging Face Hub: resolved to a commit, fetched into the shared cache, found there
//! without network.
//!
//! The cache has the layout of `huggingface_hub` (`models--ORG--NAME/{refs,blobs,snapshots}`), so that what
//! other tools fetched is not fetched again. Endpoint, cache and token come from the environment variables
//! those tools know.

mod cache;
mod content;
mod error;
mod fetch;
mod http;
mod id;
mod options;
mod plan;

pub use error::HubError;
pub use id::HubId;
pub use options::{HubOptions, HubProgress};

use self::{cache::RepoCache, fetch::Fetcher, plan::Plan};

/// How much of a checkpoint is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// `config.json` alone.
    Config,
    /// Config, weights, tokenizer and chat template.
    All,
}

/// A checkpoint in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The directory with its files.
    pub dir: std::path::PathBuf,
    /// The commit they are of, 40 hex digits.
    pub commit: String,
}

/// Brings what is needed of a repository into the cache, and says where it lies.
///
/// Nothing is requested for a commit that is in the cache, nor with [`HubOptions::offline`]. Where a request
/// fails and the cache holds the revision, that is used and a note says so.
///
/// # Errors
///
/// The repository or revision does not exist or needs a token, there is no network and nothing in the cache,
/// what arrives is not what the Hub names, the disk is full, or the repository holds no safetensors.
pub fn snapshot(id: &HubId, need: Need, options: &HubOptions<'_>) -> Result<Snapshot, HubError> {
    let cache = RepoCache::new(options, id);
    let cached = cache.commit(&id.revision);
    let local = |need| {
        let commit = cached.clone()?;
        cache.missing(&commit, need).is_none().then(|| cache.snapshot(&commit))
    };
    if options.offline {
        return local(need).ok_or_else(|| HubError::NotCached {
            id: id.to_string(),
            missing: match &cached {
                Some(commit) => cache.missing(commit, need).unwrap_or_else(|| "nothing".into()),
                None => format!("the revision {:?}", id.revision),
            },
            cache: options.cache.clone(),
        });
    }
    // A commit never changes, so a whole one needs no question.
    if id.is_commit()
        && let Some(snapshot) = local(need).filter(|s| need == Need::Config || has_tokenizer(s))
    {
        return Ok(snapshot);
    }
    match download(id, need, options, &cache) {
        Ok(snapshot) => Ok(snapshot),
        Err(error) => match local(need).filter(|_| error.is_of_the_network()) {
            None => Err(error),
            Some(snapshot) => {
                (options.note)(&format!("{error}; using {id} as it is in the cache"));
                Ok(snapshot)
            }
        },
    }
}

fn has_tokenizer(snapshot: &Snapshot) -> bool {
    snapshot.dir.join("tokenizer.json").is_file()
}

/// Asks for the commit of the revision and fetches what is not there yet, small files first: a snapshot with
/// all its weights is whole.
fn download(
    id: &HubId,
    need: Need,
    options: &HubOptions<'_>,
    cache: &RepoCache,
) -> Result<Snapshot, HubError> {
    let fetcher = Fetcher::new(id, options, cache)?;
    let repo = fetcher.info()?;
    let mut plan = Plan::small(&repo, need, id)?;
    fetcher.fetch(&repo, &mut plan)?;
    if need == Need::All {
        plan.add_weights(&repo, &cache.snapshot(&repo.commit).dir, id)?;
        fetcher.fetch(&repo, &mut plan)?;
    }
    // A config alone does not take a branch away from older weights, which can run without network.
    let whole = |commit: &String| cache.missing(commit, Need::All).is_none();
    let older = cache.commit(&id.revision).filter(|commit| *commit != repo.commit && whole(commit));
    if need == Need::All || older.is_none() {
        cache.point(&id.revision, &repo.commit)?;
    }
    Ok(cache.snapshot(&repo.commit))
}
