//! The tokenizer of a model: text to ids, ids to the text of single tokens.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
};

use tokenizers::Tokenizer;

use crate::{
    chat::{self, ChatTemplate, Json},
    error::{RecordError, Result},
};

/// `tokenizer.json` of a model directory.
pub struct Text {
    path: PathBuf,
    tokenizer: Option<Tokenizer>,
    /// Opened when the first conversation asks for it.
    template: OnceLock<ChatTemplate>,
    /// Bytes stand in for tokens.
    bytes: bool,
    cache: Mutex<HashMap<u32, String>>,
}

impl Text {
    /// Loads the tokenizer of another model than the one that runs: a directory with `tokenizer.json`, or such
    /// a file. A chat template is looked for beside it.
    ///
    /// # Errors
    ///
    /// There is none, or it is malformed.
    pub fn open_other(path: &Path) -> Result<Self> {
        let file = if path.is_dir() { path.join("tokenizer.json") } else { path.to_owned() };
        match file.is_file() {
            true => Self::read(file),
            false => Err(RecordError::Tokenizer { path: file, reason: "not there".into() }),
        }
    }

    /// Loads the tokenizer beside a model. Without one, only prompts given as `token_ids` can run, and
    /// tokens have no text.
    ///
    /// # Errors
    ///
    /// `tokenizer.json` is there but malformed.
    pub fn open(model_dir: &Path) -> Result<Self> {
        Self::read(model_dir.join("tokenizer.json"))
    }

    fn read(path: PathBuf) -> Result<Self> {
        let tokenizer = match path.is_file() {
            false => None,
            true => Some(whole(&path).map_err(|e| RecordError::Tokenizer {
                path: path.clone(),
                reason: format!("not a tokenizer: {e}"),
            })?),
        };
        Ok(Text {
            path,
            tokenizer,
            template: OnceLock::new(),
            bytes: false,
            cache: Mutex::default(),
        })
    }

    /// A stand-in for models without weights: every byte of a text is a token, its value the id.
    pub fn bytes(model_dir: &Path) -> Self {
        Text {
            path: model_dir.join("tokenizer.json"),
            tokenizer: None,
            template: OnceLock::new(),
            bytes: true,
            cache: Mutex::default(),
        }
    }

    /// Whether there is a tokenizer.
    pub fn has_tokenizer(&self) -> bool {
        self.tokenizer.is_some()
    }

    /// Token ids of a text, with the special tokens the tokenizer adds (BOS).
    ///
    /// # Errors
    ///
    /// There is no tokenizer, or it refuses the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.ids(text, true)
    }

    /// The text of a conversation by the model's chat template, up to where the model speaks.
    ///
    /// # Errors
    ///
    /// There is no template, it is malformed, or it refuses the messages.
    pub fn render(&self, messages: &[Json]) -> Result<String> {
        let template = match self.template.get() {
            Some(template) => template,
            None => {
                let dir = self.path.parent().unwrap_or(Path::new("."));
                let opened = chat::open(dir)?;
                self.template.get_or_init(|| opened)
            }
        };
        template.render(messages)
    }

    /// Token ids of a conversation. The template writes BOS where there is to be one, so none is added.
    ///
    /// # Errors
    ///
    /// As [`Text::render`] and [`Text::encode`].
    pub fn encode_messages(&self, messages: &[Json]) -> Result<Vec<u32>> {
        self.ids(&self.render(messages)?, false)
    }

    /// The day that the chat template wrote into prompts, if it did: such prompts change from day to day.
    pub fn prompt_date(&self) -> Option<String> {
        self.template.get().and_then(ChatTemplate::date)
    }

    fn ids(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        if self.bytes {
            return Ok(text.bytes().map(u32::from).collect());
        }
        let error = |reason| RecordError::Tokenizer { path: self.path.clone(), reason };
        let tokenizer = self.tokenizer.as_ref().ok_or_else(|| {
            error("not found; without a tokenizer, give prompts as token_ids".into())
        })?;
        let encoding =
            tokenizer.encode_fast(text, add_special).map_err(|e| error(e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of one token; lossy where the token is part of a character, its number in angle
    /// brackets where there is no tokenizer.
    pub fn token(&self, id: u32) -> String {
        // A panic elsewhere can't leave the map half-changed.
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let decode = || self.tokenizer.as_ref()?.decode(&[id], false).ok();
        cache.entry(id).or_insert_with(|| decode().unwrap_or_else(|| format!("<{id}>"))).clone()
    }
}

/// The tokenizer in a file, without the truncation and padding it may have been saved with for training: a prompt
/// is what it says, no less and no more.
fn whole(path: &Path) -> tokenizers::Result<Tokenizer> {
    let mut tokenizer = Tokenizer::from_file(path)?;
    tokenizer.with_truncation(None)?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn truncation_and_padding_of_training_do_not_reach_prompts() {
        let dir = tempfile::tempdir().unwrap();
        let tokenizer = json!({
            "version": "1.0", "added_tokens": [], "normalizer": null, "post_processor": null,
            "decoder": null, "pre_tokenizer": {"type": "Whitespace"},
            "truncation": {
                "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0,
            },
            "padding": {
                "strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null,
                "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
            },
            "model": {"type": "WordLevel", "unk_token": "[PAD]", "vocab": {
                "[PAD]": 0, "a": 1, "b": 2,
            }},
        });
        std::fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        let text = Text::open(dir.path()).unwrap();
        assert_eq!(text.encode("a b").unwrap(), [1, 2]);
        assert_eq!(text.encode("a b a b a").unwrap(), [1, 2, 1, 2, 1]);
    }
}
