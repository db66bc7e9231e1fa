//! What can go wrong between an id and a directory.

use std::path::PathBuf;

/// An error of the Hub or its cache.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Nothing may be requested, and the cache does not have it.
    #[error(
        "{id}: offline, and {missing} is not in the cache {cache}; run once with network, or point HF_HOME at \
         a cache that has it",
        cache = cache.display()
    )]
    NotCached {
        /// Repository and revision.
        id: String,
        /// The first thing missing.
        missing: String,
        /// The cache.
        cache: PathBuf,
    },
    /// No answer.
    #[error("{url}: no answer ({reason}); check the network and HF_ENDPOINT")]
    Network {
        /// What was asked for.
        url: String,
        /// The system's reason.
        reason: String,
    },
    /// The connection broke too often.
    #[error(
        "{url}: the connection broke {attempts} times in a row at byte {at} ({reason}); run again to go on from \
         there"
    )]
    Broken {
        /// What was asked for.
        url: String,
        /// Attempts without a byte more.
        attempts: u32,
        /// Bytes that are there.
        at: u64,
        /// The last reason.
        reason: String,
    },
    /// What arrived has another hash, twice.
    #[error(
        "{url}: what arrives is not the content with the hash {hash}, twice in a row; something between the Hub \
         and here changes it: try another network or HF_ENDPOINT"
    )]
    Content {
        /// What was asked for.
        url: String,
        /// SHA-256, or git's SHA-1, as the Hub names it.
        hash: String,
    },
    /// Access is refused.
    #[error(
        "{id}: access refused (HTTP {status}){why}; accept the model's terms on {page}, make a read token on \
         {settings} and set HF_TOKEN to it"
    )]
    Denied {
        /// Repository and revision.
        id: String,
        /// 401 or 403.
        status: u16,
        /// What is known of the reason, starting with a separator.
        why: String,
        /// The model's page.
        page: String,
        /// Where tokens are made.
        settings: String,
    },
    /// No such repository, revision or file.
    #[error(
        "{id}: {what} not found at {endpoint}; check the spelling, or set HF_TOKEN if it is private"
    )]
    NotFound {
        /// Repository and revision.
        id: String,
        /// What is not there.
        what: String,
        /// The Hub asked.
        endpoint: String,
    },
    /// Another refusal.
    #[error("{url}: HTTP {status}; try again later")]
    Status {
        /// What was asked for.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// An answer that is not what a Hub says.
    #[error("{url}: not an answer of a Hub: {reason}; check HF_ENDPOINT")]
    Answer {
        /// What was asked for.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The repository has no weights that are read.
    #[error("{id}: no safetensors; the repository holds {found}")]
    NoWeights {
        /// Repository and revision.
        id: String,
        /// What it holds.
        found: String,
    },
    /// The index names a file that is not a shard of the repository.
    #[error("{id}: {index} names the shard {shard:?}, {why}; refused")]
    Shard {
        /// Repository and revision.
        id: String,
        /// The index.
        index: &'static str,
        /// The shard's name.
        shard: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The disk is full.
    #[error(
        "{path}: no space left, {needed} bytes to go; free some, or set HF_HOME to a larger disk (what is there \
         is kept and gone on from)",
        path = path.display()
    )]
    Full {
        /// The file.
        path: PathBuf,
        /// Bytes still to be written.
        needed: u64,
    },
    /// The cache can't be read or written.
    #[error("{path}: {source}", path = path.display())]
    Cache {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl HubError {
    /// Whether the cache is as good an answer: the Hub could not be asked, or refused.
    pub(crate) fn is_of_the_network(&self) -> bool {
        matches!(
            self,
            HubError::Network { .. }
                | HubError::Broken { .. }
                | HubError::Content { .. }
                | HubError::Status { .. }
                | HubError::Denied { .. }
                | HubError::NotFound { .. }
                | HubError::Answer { .. }
        )
    }
}
