//! Chat templates: conversations as the text a model was trained on.

mod json;
mod python;
mod template;

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use chrono::{DateTime, Utc};
use serde_json::Value;

pub use self::json::Json;
pub(crate) use self::template::ChatTemplate;
use crate::error::{RecordError, Result};

/// Files of a tokenizer's settings; of a key in both, the first counts.
const CONFIG: &str = "tokenizer_config.json";
const SPECIAL_TOKENS: &str = "special_tokens_map.json";
/// Fixes the day a template prints: seconds since 1970, as for reproducible builds.
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// The chat template beside a model: `chat_template.jinja`, `chat_template.json`, or `chat_template` in
/// `tokenizer_config.json` (of several, the one called `default`).
///
/// # Errors
///
/// There is none, or a file is malformed.
pub(crate) fn open(dir: &Path) -> Result<ChatTemplate> {
    let config = json(&dir.join(CONFIG))?;
    let special = json(&dir.join(SPECIAL_TOKENS))?;
    let mut tokens = Vec::new();
    for map in [&special, &config].into_iter().flatten() {
        special_tokens(map, &mut tokens);
    }
    let template = |path, place, source| ChatTemplate {
        path,
        place,
        source,
        tokens,
        now: now(),
        dated: Arc::new(AtomicBool::new(false)),
    };
    let jinja = dir.join("chat_template.jinja");
    if jinja.is_file() {
        let source = std::fs::read_to_string(&jinja)
            .map_err(|source| RecordError::Io { path: jinja.clone(), source })?;
        return Ok(template(jinja, "", source));
    }
    let of_processor = json(&dir.join("chat_template.json"))?;
    for (name, map) in [("chat_template.json", of_processor), (CONFIG, config)] {
        if let Some(source) = map.as_ref().and_then(|map| map.get("chat_template")) {
            let path = dir.join(name);
            let source = default_template(source).ok_or_else(|| RecordError::Template {
                path: path.clone(),
                place: ": `chat_template`".into(),
                reason: "expected a template, or a list of them with one called \"default\"".into(),
            })?;
            return Ok(template(path, ": `chat_template`", source.to_owned()));
        }
    }
    Err(RecordError::NoTemplate { dir: dir.to_owned() })
}

/// The template, or the one called `default` of several.
fn default_template(value: &Value) -> Option<&str> {
    let named = |list: &'_ Vec<Value>| -> Option<usize> {
        list.iter().position(|entry| entry.get("name").is_some_and(|name| name == "default"))
    };
    match value {
        Value::String(source) => Some(source),
        Value::Array(list) => list[named(list)?].get("template")?.as_str(),
        Value::Object(map) => map.get("default")?.as_str(),
        _ => None,
    }
}

/// `bos_token` and the like, given as text or as objects with `content`; later maps win.
fn special_tokens(map: &Value, tokens: &mut Vec<(String, String)>) {
    let entries = map.as_object().into_iter().flatten();
    let extra = map.get("extra_special_tokens").and_then(Value::as_object).into_iter().flatten();
    for (key, value) in entries.filter(|(key, _)| key.ends_with("_token")).chain(extra) {
        let text = value.as_str().or_else(|| value.get("content")?.as_str());
        if let Some(text) = text {
            tokens.retain(|(known, _)| known != key);
            tokens.push((key.clone(), text.to_owned()));
        }
    }
}

/// The content of a JSON file, if there is one.
fn json(path: &Path) -> Result<Option<Value>> {
    if !path.is_file() {
        return Ok(None);
    }
    let io = |source| RecordError::Io { path: path.to_owned(), source };
    let bytes = std::fs::read(path).map_err(io)?;
    serde_json::from_slice(&bytes).map(Some).map_err(|e| RecordError::Tokenizer {
        path: path.to_owned(),
        reason: format!("not valid JSON: {e}"),
    })
}

fn now() -> DateTime<Utc> {
    let fixed = std::env::var(EPOCH).ok().and_then(|seconds| seconds.trim().parse().ok());
    fixed.and_then(|seconds| DateTime::from_timestamp(seconds, 0)).unwrap_or_else(Utc::now)
}

#[cfg(test)]
mod tests;
