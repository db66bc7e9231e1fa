//! Strict reading of `config.json`: every key is used, known to be irrelevant, or an error.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{ModelError, Result};

/// Keys that describe training, tokenisation, generation or bookkeeping and never change a forward pass: those
/// of `PreTrainedConfig` of transformers 5.23.0 and of its predecessors, which wrote all of them into
/// nested configs.
const IRRELEVANT: &[&str] = &[
    // What the checkpoint is called, and what reads and writes it. The code `auto_map` names is what its family
    // was written after.
    "_attn_implementation_autoset",
    "_commit_hash",
    "_name_or_path",
    "architectures",
    "attn_implementation",
    "auto_map",
    "dtype",
    "experts_implementation",
    "model_type",
    "name_or_path",
    "tokenizer_class",
    "torch_dtype",
    "transformers_version",
    "unsloth_fixed",
    "unsloth_version",
    // What a call returns, and how it is computed.
    "chunk_size_feed_forward",
    "is_decoder",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "tie_last_hidden_states",
    "torchscript",
    "use_bfloat16",
    "use_cache",
    // Training, and heads for other tasks.
    "finetuning_task",
    "id2label",
    "initializer_range",
    "label2id",
    "num_labels",
    "problem_type",
    "task_specific_params",
    "tf_legacy_loss",
    // Tokens, and how they are chosen.
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "length_penalty",
    "max_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_scores",
    "pad_token_id",
    "prefix",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
];

/// Keys of the same classes that would make another model, unless they are false or empty.
const OFF: &[&str] =
    &["add_cross_attention", "is_encoder_decoder", "pruned_heads", "tie_encoder_decoder"];

/// Most layers, and most experts of one: runs number them in 16 bits.
const MOST: usize = u16::MAX as usize;

/// One JSON object of a config, consumed key by key.
///
/// [`Section::finish`] refuses what is left over: a switch nobody looked at is a different model.
pub struct Section {
    path: PathBuf,
    prefix: String,
    family: &'static str,
    map: Map<String, Value>,
}

impl Section {
    /// Wraps the top-level object of the config at `path`, read for `family`.
    pub fn new(path: &Path, family: &'static str, map: Map<String, Value>) -> Self {
        Section { path: path.to_owned(), prefix: String::new(), family, map }
    }

    /// Takes a nested object, if present and not null.
    pub fn section(&mut self, key: &str) -> Result<Option<Section>> {
        match self.map.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Section {
                path: self.path.clone(),
                prefix: format!("{}{key}.", self.prefix),
                family: self.family,
                map,
            })),
            Some(other) => Err(self.wrong(key, "an object", &other)),
        }
    }

    /// Takes a key that must be there.
    pub fn required<T: DeserializeOwned>(&mut self, key: &str) -> Result<T> {
        let expected = std::any::type_name::<T>();
        self.optional(key)?.ok_or_else(|| ModelError::Config {
            path: self.path.clone(),
            key: format!("{}{key}", self.prefix),
            expected: expected.into(),
            found: "nothing".into(),
        })
    }

    /// Takes a key that may be absent or null.
    pub fn optional<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>> {
        match self.map.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value.clone())
                .map(Some)
                .map_err(|_| self.wrong(key, std::any::type_name::<T>(), &value)),
        }
    }

    /// Takes a positive size.
    pub fn size(&mut self, key: &str) -> Result<usize> {
        let n = self.required::<usize>(key)?;
        self.bounded(key, n)
    }

    fn bounded(&self, key: &str, size: usize) -> Result<usize> {
        match size {
            0 => Err(self.wrong(key, "a size above 0", &Value::from(0))),
            // No model is so large; past this, sizes of tensors would overflow.
            n if n > u32::MAX as usize => {
                Err(self.wrong(key, "a size below 2^32", &Value::from(n)))
            }
            n => Ok(n),
        }
    }

    /// Takes a small number of things that may be absent, null or 0: experts, layers.
    pub fn optional_count(&mut self, key: &str) -> Result<Option<usize>> {
        match self.optional::<usize>(key)? {
            Some(n) if n > MOST => Err(self.wrong(key, "at most 65535", &Value::from(n))),
            n => Ok(n),
        }
    }

    /// Takes the number of layers.
    pub fn layers(&mut self) -> Result<usize> {
        const KEY: &str = "num_hidden_layers";
        match self.size(KEY)? {
            n if n > MOST => Err(self.wrong(KEY, "at most 65535", &Value::from(n))),
            n => Ok(n),
        }
    }

    /// Takes a number above 0 that may be absent or null.
    pub fn optional_positive(&mut self, key: &str) -> Result<Option<f32>> {
        match self.optional::<f32>(key)? {
            Some(n) if !(n > 0.0 && n.is_finite()) => {
                Err(self.wrong(key, "a number above 0", &Value::from(n)))
            }
            n => Ok(n),
        }
    }

    /// Takes a size that may be absent or null.
    pub fn optional_size(&mut self, key: &str) -> Result<Option<usize>> {
        self.optional(key)?.map(|size| self.bounded(key, size)).transpose()
    }

    /// Takes a size that is `default` where the key is absent or null.
    pub fn size_or(&mut self, key: &str, default: usize) -> Result<usize> {
        Ok(self.optional_size(key)?.unwrap_or(default))
    }

    /// Takes a size that has had several names; under more than one it must be the same.
    pub fn size_of(&mut self, names: &[&str]) -> Result<usize> {
        let mut found: Option<(&str, usize)> = None;
        for name in names {
            let Some(size) = self.optional_size(name)? else { continue };
            match found {
                Some((other, first)) if first != size => {
                    let expected = format!("{first}, as `{other}`");
                    return Err(self.wrong(name, &expected, &Value::from(size)));
                }
                _ => found = Some((name, size)),
            }
        }
        match (found, names.first()) {
            (Some((_, size)), _) => Ok(size),
            (None, Some(name)) => self.size(name),
            (None, None) => unreachable!("a size has a name"),
        }
    }

    /// Takes a key whose only implemented values are `values` (absent and null pass).
    pub fn only(&mut self, key: &str, values: &[Value]) -> Result<()> {
        match self.map.remove(key) {
            None | Some(Value::Null) => Ok(()),
            Some(value) if values.contains(&value) => Ok(()),
            Some(value) => Err(self.unsupported(key, &value)),
        }
    }

    /// Drops keys that don't matter to a forward pass.
    pub fn ignore(&mut self, keys: &[&str]) {
        for key in keys {
            self.map.remove(*key);
        }
    }

    /// Refuses every key that nobody took. To a config null is as good as absent.
    pub fn finish(mut self) -> Result<()> {
        self.ignore(IRRELEVANT);
        let off = |value: &Value| match value {
            Value::Bool(on) => !on,
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        for key in OFF {
            if self.map.get(*key).is_some_and(off) {
                self.map.remove(*key);
            }
        }
        match self.map.iter().find(|(_, value)| !value.is_null()) {
            None => Ok(()),
            Some((key, value)) => Err(self.unsupported(key, value)),
        }
    }

    /// The keys of a nested object that is not taken yet; none where there is no such object.
    pub fn keys_in(&self, key: &str) -> Vec<String> {
        let nested = self.map.get(key).and_then(Value::as_object);
        nested.map_or_else(Vec::new, |map| map.keys().cloned().collect())
    }

    /// Whether a key that is not taken yet is there, null or not.
    pub fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// The keys left, for sections with free names.
    pub fn keys(&self) -> Vec<String> {
        self.map.keys().cloned().collect()
    }

    /// The error for a value that is not what it should be.
    pub fn wrong(&self, key: &str, expected: &str, found: &Value) -> ModelError {
        ModelError::Config {
            path: self.path.clone(),
            key: format!("{}{key}", self.prefix),
            expected: expected.into(),
            found: shorten(found),
        }
    }

    /// The error for a switch the family does not implement.
    pub fn unsupported(&self, key: &str, value: &Value) -> ModelError {
        ModelError::Unsupported {
            path: self.path.clone(),
            key: format!("{}{key}", self.prefix),
            value: shorten(value),
            family: self.family,
        }
    }
}

fn shorten(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn section(value: Value) -> Section {
        let Value::Object(map) = value else { panic!("not an object") };
        Section::new(Path::new("config.json"), "Test", map)
    }

    #[test]
    fn unknown_switch_is_named() {
        let mut s = section(json!({"hidden_size": 8, "turbo_mode": true}));
        assert_eq!(s.size("hidden_size").unwrap(), 8);
        let error = s.finish().unwrap_err().to_string();
        assert!(error.contains("`turbo_mode` = true"), "{error}");
    }

    /// Written into nested configs by `PreTrainedConfig` whatever the model.
    #[test]
    fn keys_of_every_config_say_nothing_unless_they_make_another_model() {
        let usual = json!({
            "auto_map": {"AutoModel": "modeling.Model"}, "chunk_size_feed_forward": 0,
            "id2label": {"0": "LABEL_0"}, "is_encoder_decoder": false, "output_attentions": false,
            "pruned_heads": {}, "add_cross_attention": false, "temperature": 1.0, "prefix": null,
        });
        section(usual).finish().unwrap();
        for (key, value) in [
            ("is_encoder_decoder", json!(true)),
            ("pruned_heads", json!({"0": [1]})),
            ("add_cross_attention", json!(true)),
        ] {
            let error = section(json!({ key: value })).finish().unwrap_err().to_string();
            assert!(error.contains(key) && error.contains("not implemented"), "{error}");
        }
    }

    #[test]
    fn a_null_nobody_knows_switches_nothing_on() {
        section(json!({"turbo_mode": null})).finish().unwrap();
        let error = section(json!({"a": null, "turbo_mode": 1})).finish().unwrap_err().to_string();
        assert!(error.contains("`turbo_mode` = 1"), "{error}");
    }

    #[test]
    fn wrong_type_and_missing_key_are_named() {
        let mut s = section(json!({"hidden_size": "wide"}));
        let error = s.size("hidden_size").unwrap_err().to_string();
        assert!(error.contains("`hidden_size`") && error.contains("wide"), "{error}");
        let error = s.size("head_dim").unwrap_err().to_string();
        assert!(error.contains("`head_dim`") && error.contains("nothing"), "{error}");
    }

    #[test]
    fn sizes_under_several_names() {
        let names = ["num_experts", "num_local_experts"];
        let mut s = section(json!({"num_local_experts": 8, "num_experts": 8}));
        assert_eq!(s.size_of(&names).unwrap(), 8);
        s.finish().unwrap();
        let error = |value| section(value).size_of(&names).unwrap_err().to_string();
        let two = error(json!({"num_local_experts": 8, "num_experts": 4}));
        assert!(
            two.contains("`num_local_experts`") && two.contains("4, as `num_experts`"),
            "{two}"
        );
        let none = error(json!({}));
        assert!(none.contains("`num_experts`") && none.contains("nothing"), "{none}");
        let zero = error(json!({"num_local_experts": 0}));
        assert!(zero.contains("above 0"), "{zero}");
    }

    #[test]
    fn nested_keys_carry_their_section() {
        let mut s = section(json!({"text_config": {"x": 1}}));
        let inner = s.section("text_config").unwrap().unwrap();
        let error = inner.finish().unwrap_err().to_string();
        assert!(error.contains("`text_config.x`"), "{error}");
    }
}
