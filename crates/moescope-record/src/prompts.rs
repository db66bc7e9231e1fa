//! Prompts: one JSON record per line, plain text files, directories of both, or stdin.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    chat::Json,
    error::{RecordError, Result},
};

/// One prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Name in messages.
    pub id: String,
    /// What kind of text it is; metrics are split by it.
    pub domain: String,
    /// The tokens, or the text they are made of.
    pub input: PromptInput,
}

/// What a prompt consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PromptInput {
    /// To be tokenised, with the special tokens the tokenizer adds.
    Text(String),
    /// Taken as they are; nothing is added.
    TokenIds(Vec<u32>),
    /// A conversation, made into text by the model's chat template up to where the model speaks.
    Messages(Vec<Json>),
}

/// A line of a `.jsonl` file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    id: Option<String>,
    domain: Option<String>,
    text: Option<String>,
    token_ids: Option<Vec<u32>>,
    messages: Option<Vec<Json>>,
}

/// Reads prompts from a file, a directory (`.jsonl` and `.txt`, by name), or stdin (`-`, JSON lines).
///
/// # Errors
///
/// A path can't be read, a record is malformed (file and line are named), a prompt is empty, or there
/// is none at all.
pub fn read(source: &Path) -> Result<Vec<Prompt>> {
    let prompts = if source == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(|e| io(Path::new("stdin"), e))?;
        records("stdin", "stdin", &text)?
    } else if source.is_dir() {
        let mut all = Vec::new();
        for file in files(source)? {
            all.extend(read_file(&file)?);
        }
        all
    } else {
        read_file(source)?
    };
    match prompts.is_empty() {
        true => Err(RecordError::NoPrompts { path: source.to_owned() }),
        false => Ok(prompts),
    }
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| io(dir, e))? {
        let path = entry.map_err(|e| io(dir, e))?.path();
        if path.extension().is_some_and(|e| e == "jsonl" || e == "txt") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path) -> Result<Vec<Prompt>> {
    let bytes = std::fs::read(path).map_err(|e| io(path, e))?;
    let place = path.display().to_string();
    let text = String::from_utf8(bytes).map_err(|e| RecordError::Record {
        place: place.clone(),
        reason: format!("not UTF-8: {}", e.utf8_error()),
    })?;
    let stem = path.file_stem().map_or_else(|| place.clone(), |s| s.to_string_lossy().into_owned());
    if path.extension().is_some_and(|e| e == "txt") {
        if text.trim().is_empty() {
            return Err(RecordError::Empty { place });
        }
        return Ok(vec![Prompt { id: stem.clone(), domain: stem, input: PromptInput::Text(text) }]);
    }
    records(&place, &stem, &text)
}

/// Parses JSON lines; blank lines are skipped. `stem` names domain and ids where records do not.
fn records(place: &str, stem: &str, text: &str) -> Result<Vec<Prompt>> {
    let mut prompts = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let place = format!("{place}:{}", number + 1);
        let wrong = |reason: String| RecordError::Record { place: place.clone(), reason };
        let record: Record = serde_json::from_str(line).map_err(|e| {
            wrong(format!(
                "{e}; expected an object with id, domain and one of text, messages and token_ids"
            ))
        })?;
        let input = match (record.text, record.token_ids, record.messages) {
            (Some(text), None, None) if !text.is_empty() => PromptInput::Text(text),
            (None, Some(ids), None) if !ids.is_empty() => PromptInput::TokenIds(ids),
            (None, None, Some(messages)) if !messages.is_empty() => {
                let role = |message: &Json| matches!(message.get("role"), Some(Json::String(_)));
                if let Some(at) = messages.iter().position(|message| !role(message)) {
                    return Err(wrong(format!(
                        "message {}: expected an object with `role` and `content`",
                        at + 1
                    )));
                }
                PromptInput::Messages(messages)
            }
            (None, None, None) => {
                return Err(wrong("none of `text`, `messages` and `token_ids`".into()));
            }
            (Some(_), None, None) | (None, Some(_), None) | (None, None, Some(_)) => {
                return Err(RecordError::Empty { place });
            }
            _ => {
                return Err(wrong("more than one of `text`, `messages` and `token_ids`".into()));
            }
        };
        prompts.push(Prompt {
            id: record.id.unwrap_or_else(|| format!("{stem}-{}", number + 1)),
            domain: record.domain.unwrap_or_else(|| stem.to_owned()),
            input,
        });
    }
    Ok(prompts)
}

fn io(path: &Path, source: std::io::Error) -> RecordError {
    RecordError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<Prompt>> {
        records("file.jsonl", "file", text)
    }

    #[test]
    fn records_with_all_spellings() {
        let prompts =
            parse("{\"id\":\"a\",\"domain\":\"c\",\"text\":\"int x;\"}\n\n{\"token_ids\":[1,2]}\n")
                .unwrap();
        assert_eq!(prompts[0].domain, "c");
        assert_eq!(prompts[1].id, "file-3");
        assert_eq!(prompts[1].domain, "file");
        assert_eq!(prompts[1].input, PromptInput::TokenIds(vec![1, 2]));
    }

    #[test]
    fn broken_records_name_file_and_line() {
        for (text, says) in [
            ("{\"text\":\"a\"}\n{\"text\":", "file.jsonl:2"),
            ("{\"txt\":\"a\"}", "txt"),
            ("{\"text\":\"\"}", "empty"),
            ("{\"token_ids\":[]}", "empty"),
            ("{\"token_ids\":[-1]}", "file.jsonl:1"),
            ("{\"token_ids\":[1],\"text\":\"a\"}", "more than one"),
            ("{\"id\":\"x\"}", "none of"),
            ("{\"messages\":[]}", "empty"),
            ("{\"messages\":\"hello\"}", "expected an object"),
            ("{\"messages\":[{\"role\":\"user\"},{\"content\":\"a\"}]}", "message 2"),
            ("{\"messages\":[{\"role\":\"user\"}],\"text\":\"a\"}", "more than one"),
            ("[1]", "expected an object"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_directory_is_read_in_name_order() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("b.jsonl"), "{\"text\":\"two\"}").unwrap();
        std::fs::write(dir.path().join("a.txt"), "one").unwrap();
        std::fs::write(dir.path().join("README.md"), "not a prompt").unwrap();
        let prompts = read(dir.path()).unwrap();
        let domains: Vec<&str> = prompts.iter().map(|p| p.domain.as_str()).collect();
        assert_eq!(domains, ["a", "b"]);
    }

    #[test]
    fn nothing_to_read_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(read(dir.path()), Err(RecordError::NoPrompts { .. })));
        assert!(matches!(read(&dir.path().join("none.jsonl")), Err(RecordError::Io { .. })));
        std::fs::write(dir.path().join("bad.txt"), [0xff, 0xfe, 0x00]).unwrap();
        assert!(matches!(read(dir.path()), Err(RecordError::Record { .. })));
    }
}
