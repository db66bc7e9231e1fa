//! The tokenizer of a model: text to ids, ids to the text of single tokens.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use tokenizers::Tokenizer;

use crate::error::{RecordError, Result};

/// `tokenizer.json` of a model directory.
pub struct Text {
    path: PathBuf,
    tokenizer: Option<Tokenizer>,
    cache: Mutex<HashMap<u32, String>>,
}

impl Text {
    /// Loads the tokenizer beside a model. Without one, only prompts given as `token_ids` can run, and
    /// tokens have no text.
    ///
    /// # Errors
    ///
    /// `tokenizer.json` is there but malformed.
    pub fn open(model_dir: &Path) -> Result<Self> {
        let path = model_dir.join("tokenizer.json");
        let tokenizer = match path.is_file() {
            false => None,
            true => Some(Tokenizer::from_file(&path).map_err(|e| RecordError::Tokenizer {
                path: path.clone(),
                reason: format!("not a tokenizer: {e}"),
            })?),
        };
        Ok(Text { path, tokenizer, cache: Mutex::default() })
    }

    /// Token ids of a text, with the special tokens the tokenizer adds (BOS).
    ///
    /// # Errors
    ///
    /// There is no tokenizer, or it refuses the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let error = |reason| RecordError::Tokenizer { path: self.path.clone(), reason };
        let tokenizer = self.tokenizer.as_ref().ok_or_else(|| {
            error("not found; without a tokenizer, give prompts as token_ids".into())
        })?;
        let encoding = tokenizer.encode_fast(text, true).map_err(|e| error(e.to_string()))?;
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
