//! Strict reading of `config.json`: every key is used, known to be irrelevant, or an error.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{ModelError, Result};

/// Keys that describe training, tokenisation or bookkeeping and never change a forward pass.
const IRRELEVANT: &[&str] = &[
    "_name_or_path",
    "architectures",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "initializer_range",
    "model_type",
    "pad_token_id",
    "torch_dtype",
    "transformers_version",
    "use_cache",
];

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

    /// Refuses every key that nobody took.
    pub fn finish(mut self) -> Result<()> {
        self.ignore(IRRELEVANT);
        match self.map.iter().next() {
            None => Ok(()),
            Some((key, value)) => Err(self.unsupported(key, value)),
        }
    }

    /// The keys of a nested object that is not taken yet; none where there is no such object.
    pub fn keys_in(&self, key: &str) -> Vec<String> {
        let nested = self.map.get(key).and_then(Value::as_object);
        nested.map_or_else(Vec::new, |map| map.keys().cloned().collect())
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
