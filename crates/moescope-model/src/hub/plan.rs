//! Which files of a repository are fetched.

use std::path::Path;

use super::{HubError, HubId, Need};
use crate::checkpoint::{INDEX, SINGLE, format_of_extension, is_plain_name, shard_names};

/// Files beside the weights, all but the first optional.
const SMALL: &[&str] = &[
    "config.json",
    "generation_config.json",
    INDEX,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
];

/// What the Hub says of a repository at a commit.
pub(crate) struct RepoInfo {
    pub(crate) commit: String,
    pub(crate) files: Vec<RepoFile>,
}

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RepoFile {
    pub(crate) name: String,
    /// Bytes, where the Hub tells.
    pub(crate) size: Option<u64>,
}

impl RepoInfo {
    fn file(&self, name: &str) -> Option<&RepoFile> {
        self.files.iter().find(|file| file.name == name)
    }

    /// What weights there are, in words.
    fn holds(&self) -> String {
        let extension =
            |file: &RepoFile| Path::new(&file.name).extension()?.to_str().map(str::to_owned);
        let extensions = self.files.iter().filter_map(extension);
        let mut formats: Vec<_> = extensions.filter_map(|e| format_of_extension(&e)).collect();
        formats.sort_unstable();
        formats.dedup();
        let adapter = self.file("adapter_config.json").map(|_| "a LoRA adapter");
        formats.extend(adapter);
        match formats.is_empty() {
            true => "no weights".into(),
            false => formats.join(", "),
        }
    }
}

/// Files to fetch, and how far that is.
pub(crate) struct Plan {
    pub(crate) files: Vec<RepoFile>,
    pub(crate) done: u64,
    pub(crate) total: u64,
}

impl Plan {
    /// What comes before the weights.
    pub(crate) fn small(repo: &RepoInfo, need: Need, id: &HubId) -> Result<Plan, HubError> {
        if repo.file("config.json").is_none() {
            return Err(HubError::NoWeights { id: id.to_string(), found: repo.holds() });
        }
        let wanted = match need {
            Need::Config => &SMALL[..1],
            Need::All => SMALL,
        };
        let mut plan = Plan { files: Vec::new(), done: 0, total: 0 };
        wanted.iter().filter_map(|name| repo.file(name)).for_each(|file| plan.add(file));
        Ok(plan)
    }

    /// The shards that the index in `dir` names, or the one file.
    pub(crate) fn add_weights(
        &mut self,
        repo: &RepoInfo,
        dir: &Path,
        id: &HubId,
    ) -> Result<(), HubError> {
        let index = dir.join(INDEX);
        if !index.is_file() {
            let file = repo
                .file(SINGLE)
                .ok_or_else(|| HubError::NoWeights { id: id.to_string(), found: repo.holds() })?;
            self.add(file);
            return Ok(());
        }
        let shards = shard_names(&index)
            .map_err(|e| HubError::Answer { url: id.to_string(), reason: e.to_string() })?;
        for shard in shards {
            let wrong = |why| HubError::Shard {
                id: id.to_string(),
                index: INDEX,
                shard: shard.clone(),
                why,
            };
            if !is_plain_name(&shard) {
                return Err(wrong("which points outside the model's directory"));
            }
            self.add(repo.file(&shard).ok_or_else(|| wrong("which the repository does not have"))?);
        }
        Ok(())
    }

    fn add(&mut self, file: &RepoFile) {
        self.total += file.size.unwrap_or(0);
        self.files.push(file.clone());
    }
}
