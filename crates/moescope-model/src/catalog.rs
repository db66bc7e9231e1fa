//! Real models without their weights: shapes, published sizes and where each figure comes from.
//!
//! The entries are `datasets/catalog/NAME.json`, part of the binary. Their configs have the spelling of
//! Hugging Face, so that the same family reads them as reads a checkpoint.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    error::{ModelError, Result},
    footprint::Stored,
    spec::{ModelSpec, Part},
};

/// Name and content of every entry.
const FILES: &[(&str, &str)] = &[
    ("gemma-4-26b-a4b", include_str!("../../../datasets/catalog/gemma-4-26b-a4b.json")),
    ("gemma-4-31b", include_str!("../../../datasets/catalog/gemma-4-31b.json")),
    ("gemma-4-120b-a15b", include_str!("../../../datasets/catalog/gemma-4-120b-a15b.json")),
    ("gemma-3-27b", include_str!("../../../datasets/catalog/gemma-3-27b.json")),
    ("qwen3-30b-a3b", include_str!("../../../datasets/catalog/qwen3-30b-a3b.json")),
    ("qwen3-235b-a22b", include_str!("../../../datasets/catalog/qwen3-235b-a22b.json")),
    ("olmoe-1b-7b", include_str!("../../../datasets/catalog/olmoe-1b-7b.json")),
    ("mixtral-8x7b", include_str!("../../../datasets/catalog/mixtral-8x7b.json")),
    ("deepseek-v3", include_str!("../../../datasets/catalog/deepseek-v3.json")),
    ("gpt-oss-20b", include_str!("../../../datasets/catalog/gpt-oss-20b.json")),
    ("gpt-oss-120b", include_str!("../../../datasets/catalog/gpt-oss-120b.json")),
    ("glm-4.5-air", include_str!("../../../datasets/catalog/glm-4.5-air.json")),
];

/// A model of the catalog.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Name on the command line.
    pub name: String,
    /// Name as its makers write it.
    pub title: String,
    /// Repository on the Hugging Face Hub, where one exists.
    pub hub: Option<String>,
    /// Whether nobody has published this model: its shapes are then assumed, as `notes` say.
    pub rumour: bool,
    /// Parameter counts as published.
    pub published: Published,
    /// How the published weights are stored.
    pub stored: Stored,
    /// What a reader of its numbers should know.
    pub notes: Vec<String>,
    /// Where the figures come from.
    pub sources: Vec<Source>,
    /// Keys of the config (and other fields) for which there is no source but common knowledge.
    pub from_memory: Vec<String>,
    /// `config.json`, as far as it describes the text model.
    pub config: Map<String, Value>,
}

/// Parameter counts as published: numbers of a model card, with what they count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// In all, such as `25.2B`.
    pub total: String,
    /// Used per token.
    pub active: String,
    /// What `total` counts.
    pub total_counts: Counts,
    /// What `active` counts.
    pub active_counts: Counts,
    /// How the numbers were cut to their digits.
    pub rounded: Rounded,
}

/// Which parameters a published number counts. Makers differ in what they do with the two big tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Counts {
    /// All of them.
    All,
    /// All but the input embedding, of which a token reads one row.
    WithoutEmbedding,
    /// All but input embedding and output head.
    WithoutEmbeddingAndHead,
}

/// How a published number was cut to its digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rounded {
    /// To the nearest.
    Nearest,
    /// Down.
    Down,
}

/// Where a figure comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Which figures.
    #[serde(rename = "for")]
    pub figures: String,
    /// Address.
    pub url: String,
    /// When, in which revision or through which copy it was read.
    pub read: String,
}

/// Names of all entries.
pub fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

/// The entry of this name, if there is one.
///
/// # Errors
///
/// The entry is malformed: impossible in a build whose tests passed.
pub fn find(name: &str) -> Result<Option<Entry>> {
    let file = FILES.iter().find(|(known, _)| *known == name);
    file.map(|(name, text)| {
        serde_json::from_str(text)
            .map_err(|source| ModelError::Json { path: path(name).into(), source })
    })
    .transpose()
}

/// Where an entry lies in the project.
pub(crate) fn path(name: &str) -> String {
    format!("datasets/catalog/{name}.json")
}

impl Counts {
    /// What is left out, for a sentence.
    pub const fn as_str(self) -> &'static str {
        match self {
            Counts::All => "everything",
            Counts::WithoutEmbedding => "all but the input embedding",
            Counts::WithoutEmbeddingAndHead => "all but input embedding and output head",
        }
    }

    /// The parameters of `spec` this counts: in all, or per token.
    ///
    /// A model that uses one table for both ends counts it once, whatever is left out.
    pub fn of(self, spec: &ModelSpec, active: bool) -> u64 {
        let parts = spec.by_part();
        let part = |wanted: Part| {
            let found = parts.iter().find(|(part, ..)| *part == wanted);
            found.map_or(0, |(_, total, used)| if active { *used } else { *total })
        };
        let all = if active { spec.active_parameters() } else { spec.total_parameters() };
        let tied = part(Part::Head) == 0;
        match self {
            Counts::WithoutEmbedding if !tied => all - part(Part::Embedding),
            Counts::WithoutEmbeddingAndHead => all - part(Part::Embedding) - part(Part::Head),
            Counts::All | Counts::WithoutEmbedding => all,
        }
    }
}

impl Published {
    /// Whether the counts of `spec` come out at the published digits: (total, active).
    pub fn matches(&self, spec: &ModelSpec) -> (bool, bool) {
        let total = self.total_counts.of(spec, false);
        let active = self.active_counts.of(spec, true);
        (self.rounded.agrees(total, &self.total), self.rounded.agrees(active, &self.active))
    }
}

impl Rounded {
    /// Whether `count` cut to the digits of `published` (`25.2B`) is `published`.
    fn agrees(self, count: u64, published: &str) -> bool {
        let digits = published.trim_end_matches('B');
        let decimals = digits.split_once('.').map_or(0, |(_, fraction)| fraction.len());
        let scale = 10f64.powi(decimals as i32);
        let billions = count as f64 / 1e9 * scale;
        let cut = match self {
            Rounded::Nearest => billions.round(),
            // Cards that cut differ in whether both of their numbers needed it.
            Rounded::Down => billions.floor(),
        };
        format!("{:.*}", decimals, cut / scale) == digits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_well_formed_and_cites_its_figures() {
        for name in names() {
            let entry = find(name).unwrap().unwrap();
            assert_eq!(entry.name, name);
            assert!(entry.config.contains_key("architectures"), "{name}");
            assert!(!entry.sources.is_empty(), "{name}");
            for source in &entry.sources {
                assert!(source.url.starts_with("https://") && !source.read.is_empty(), "{name}");
            }
            assert_eq!(entry.hub.is_none(), entry.rumour, "{name}");
            assert!(!entry.rumour || entry.notes.iter().any(|n| n.contains("ssumed")), "{name}");
        }
        assert_eq!(find("gpt-5").unwrap(), None);
    }

    #[test]
    fn no_file_is_forgotten() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets/catalog");
        let mut files: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        files.sort();
        let mut known: Vec<&str> = names().collect();
        known.sort_unstable();
        assert_eq!(files, known);
    }

    #[test]
    fn digits_are_compared_as_published() {
        assert!(Rounded::Nearest.agrees(25_233_141_790, "25.2B"));
        assert!(!Rounded::Nearest.agrees(25_260_000_000, "25.2B"));
        assert!(Rounded::Nearest.agrees(671_026_419_200, "671B"));
        assert!(Rounded::Down.agrees(3_353_032_704, "3.3B"));
        assert!(!Rounded::Nearest.agrees(3_353_032_704, "3.3B"));
    }
}
