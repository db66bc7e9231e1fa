//! A chat template, rendered as transformers renders it.
//!
//! Checked against transformers 5.23.0, `utils/chat_template_utils.py`, with Jinja2 3.1.6 (see
//! `src/chat/fixtures/make_expected.py`).

use std::{
    fmt::Write as _,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use chrono::{DateTime, Utc};
use minijinja::{
    Environment, Error, ErrorKind, State, Value,
    value::{Kwargs, ValueKind},
};
use minijinja_contrib::pycompat;

use super::{Json, python};
use crate::error::{RecordError, Result};

/// Steps a template may take for one prompt. A published template takes some hundred per message.
const FUEL: u64 = 20_000_000;
/// Longest text of one prompt, bytes.
const LONGEST: usize = 64 << 20;
/// Name of the template inside its environment.
const NAME: &str = "chat";

/// A template with the special tokens it may print.
pub(crate) struct ChatTemplate {
    /// Where it was read from.
    pub(crate) path: PathBuf,
    /// The place in that file, starting with a separator, or nothing.
    pub(crate) place: &'static str,
    pub(crate) source: String,
    /// `bos_token` and the like.
    pub(crate) tokens: Vec<(String, String)>,
    /// What `strftime_now` says.
    pub(crate) now: DateTime<Utc>,
    /// Whether it asked what day it is.
    pub(crate) dated: Arc<AtomicBool>,
}

impl ChatTemplate {
    /// The text of a conversation, up to where the model speaks.
    ///
    /// # Errors
    ///
    /// The template is malformed, refuses the messages, or takes longer or says more than is sound.
    pub(crate) fn render(&self, messages: &[Json]) -> Result<String> {
        let source = without_generation_tags(&self.source);
        let env = self.environment();
        let failed = |error: Error| RecordError::Template {
            path: self.path.clone(),
            place: match error.line() {
                Some(line) => format!("{}:{line}", self.place),
                None => self.place.to_owned(),
            },
            reason: reason(&error),
        };
        let template = env.template_from_named_str(NAME, &source).map_err(failed)?;
        let messages: Vec<Value> = messages.iter().map(Json::to_value).collect();
        let none = || Value::from(());
        let mut context = vec![
            ("messages".to_owned(), Value::from(messages)),
            ("tools".to_owned(), none()),
            ("documents".to_owned(), none()),
            ("add_generation_prompt".to_owned(), Value::from(true)),
        ];
        context.extend(self.tokens.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))));
        let mut out = Bounded(Vec::new());
        template
            .render_captured_to(context.into_iter().collect::<Value>(), &mut out)
            .map_err(failed)?;
        // Only strings are written to it.
        Ok(String::from_utf8_lossy(&out.0).into_owned())
    }

    /// The day that was written into a prompt, if one was.
    pub(crate) fn date(&self) -> Option<String> {
        self.dated.load(Ordering::Relaxed).then(|| self.now.format("%Y-%m-%d").to_string())
    }

    fn environment(&self) -> Environment<'static> {
        let mut env = Environment::new();
        env.set_trim_blocks(true);
        env.set_lstrip_blocks(true);
        env.set_fuel(Some(FUEL));
        env.set_recursion_limit(200);
        env.set_unknown_method_callback(pycompat::unknown_method_callback);
        env.set_formatter(|out, _: &State<'_, '_>, value| Ok(out.write_str(&python::str(value)?)?));
        env.add_filter("tojson", |value: Value, indent: Option<usize>, options: Kwargs| {
            python::tojson(value, indent, options)
        });
        env.add_filter("string", |value: Value| python::str(&value));
        // In Python, text and dictionaries can be indexed and iterated over too.
        let holds = |value: &Value, iterator: bool| match value.kind() {
            ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Bytes => true,
            ValueKind::Iterable => iterator,
            _ => false,
        };
        env.add_test("sequence", move |value: &Value| holds(value, false));
        env.add_test("iterable", move |value: &Value| holds(value, true));
        env.add_function(
            "raise_exception",
            |message: String| -> std::result::Result<Value, Error> {
                Err(Error::new(
                    ErrorKind::InvalidOperation,
                    format!("it refuses the messages: {message}"),
                ))
            },
        );
        let (now, dated) = (self.now, Arc::clone(&self.dated));
        env.add_function("strftime_now", move |format: &str| {
            dated.store(true, Ordering::Relaxed);
            let mut text = String::new();
            // An unknown directive is an error of the writer.
            match write!(text, "{}", now.format(format)) {
                Ok(()) => Ok(text),
                Err(_) => Err(Error::new(
                    ErrorKind::InvalidOperation,
                    format!("strftime_now: unknown format {format:?}"),
                )),
            }
        });
        env
    }
}

/// The innermost reason of an error, with its kind where it says nothing.
fn reason(error: &Error) -> String {
    match error.kind() {
        ErrorKind::OutOfFuel => format!("more than {FUEL} steps for one prompt; refused"),
        ErrorKind::WriteFailure => format!("more than {LONGEST} bytes for one prompt; refused"),
        kind => match error.detail() {
            Some(detail) => detail.to_owned(),
            None => kind.to_string(),
        },
    }
}

/// Takes no more than a sound text.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > LONGEST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `{% generation %}` marks what the model says, for training; the text is the same without.
///
/// The tags become ones that always hold, so that lines and white space stay as they are.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        out.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            continue;
        };
        let (inside, after) = tag.split_at(end);
        let word = inside.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        match word {
            "generation" => out.push_str(&inside.replacen("generation", "if true", 1)),
            "endgeneration" => out.push_str(&inside.replacen("endgeneration", "endif", 1)),
            _ => out.push_str(inside),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}
