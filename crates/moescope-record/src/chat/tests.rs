//! Templates against what Jinja2 renders (`fixtures/make_expected.py`), and hostile ones.

use std::{fs, path::PathBuf};

use serde::Deserialize;
use tempfile::TempDir;

use super::*;

/// 2025-08-05, the day the expected texts were rendered on.
const DAY: i64 = 1_754_395_200;

#[derive(Deserialize)]
struct Case {
    template: String,
    messages: Vec<Json>,
    text: Option<String>,
    refused: Option<String>,
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/chat/fixtures").join(name)
}

fn template(source: &str) -> ChatTemplate {
    ChatTemplate {
        path: "chat_template.jinja".into(),
        place: "",
        source: source.to_owned(),
        tokens: vec![("bos_token".into(), "<bos>".into()), ("eos_token".into(), "<eos>".into())],
        now: DateTime::from_timestamp(DAY, 0).unwrap(),
        dated: Arc::default(),
    }
}

fn messages(json: &str) -> Vec<Json> {
    serde_json::from_str(json).unwrap()
}

fn hello() -> Vec<Json> {
    messages(r#"[{"role": "user", "content": "Hello"}]"#)
}

fn refusal(source: &str) -> String {
    template(source).render(&hello()).expect_err(source).to_string()
}

#[test]
fn templates_render_as_jinja_renders_them() {
    let cases: Vec<Case> =
        serde_json::from_slice(&fs::read(fixture("expected.json")).unwrap()).unwrap();
    assert!(cases.len() > 25);
    for (i, case) in cases.iter().enumerate() {
        let source = fs::read_to_string(fixture(&format!("{}.jinja", case.template))).unwrap();
        let rendered = template(&source).render(&case.messages);
        match (&case.text, &case.refused, rendered) {
            (Some(text), _, Ok(rendered)) => assert_eq!(&rendered, text, "{} {i}", case.template),
            (None, Some(why), Err(error)) => {
                let error = error.to_string();
                assert!(error.contains(why), "{} {i}: {error} does not say {why:?}", case.template);
            }
            (text, _, rendered) => panic!("{} {i}: {rendered:?}, expected {text:?}", case.template),
        }
    }
}

#[test]
fn the_day_is_told_when_a_template_asks() {
    let plain = template("{{ messages[0].content }}");
    plain.render(&hello()).unwrap();
    assert_eq!(plain.date(), None);
    let dated = template("{{ strftime_now('%d %B %Y') }}");
    assert_eq!(dated.render(&hello()).unwrap(), "05 August 2025");
    assert_eq!(dated.date().unwrap(), "2025-08-05");
    assert!(refusal("{{ strftime_now('%!') }}").contains("unknown format"));
}

#[test]
fn errors_name_file_and_line() {
    let unclosed = refusal("one\n{% if true %}\ntwo");
    assert!(unclosed.contains("chat_template.jinja:") && unclosed.contains("`text`"), "{unclosed}");
    for (source, line, says) in [
        ("\n\n{{ raise_exception('no such role') }}", 3, "no such role"),
        ("\n{{ messages | no_such_filter }}", 2, "no_such_filter"),
        ("{{ messages[0].a.b }}", 1, "undefined"),
        ("\n{{ messages[0].content.no_such_method() }}", 2, "no_such_method"),
        ("{% include 'other' %}", 1, "include"),
    ] {
        let error = refusal(source);
        assert!(error.contains(&format!("chat_template.jinja:{line}: ")), "{source}: {error}");
        assert!(error.contains(says), "{source}: {error}");
    }
}

/// A template is somebody else's program.
#[test]
fn hostile_templates_end() {
    let forever = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}\
                   {% endfor %}{% endfor %}{% endfor %}";
    assert!(refusal(forever).contains("steps"));
    let flood = "{% for a in range(9999) %}{% for b in range(9999) %}\
                 {{ '0123456789' * 5000 }}{% endfor %}{% endfor %}";
    assert!(refusal(flood).contains("bytes"));
    let deep = "{% macro again(n) %}{{ again(n + 1) }}{% endmacro %}{{ again(0) }}";
    assert!(refusal(deep).contains("recursion"), "{}", refusal(deep));
    for out in ["{{ messages.append(1) }}", "{{ ''.__class__.__mro__[1].__subclasses__() }}"] {
        refusal(out);
    }
    assert!(refusal("{{ messages | tojson(indent=2000000000) }}").contains("indent"));
    assert!(refusal("{% for a in range(100000000) %}{% endfor %}").contains("range"));
}

fn dir(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}

fn render(files: &[(&str, &str)]) -> Result<String> {
    open(dir(files).path())?.render(&hello())
}

#[test]
fn places_a_template_lies_in() {
    let config = r#"{"chat_template": "config {{ bos_token }}", "bos_token": "<s>"}"#;
    let processor = ("chat_template.json", r#"{"chat_template": "processor"}"#);
    let jinja = ("chat_template.jinja", "jinja {{ bos_token }}");
    let config = ("tokenizer_config.json", config);
    assert_eq!(render(&[config]).unwrap(), "config <s>");
    assert_eq!(render(&[config, processor]).unwrap(), "processor");
    assert_eq!(render(&[config, processor, jinja]).unwrap(), "jinja <s>");
    let named = r#"{"chat_template": [
        {"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}
    ]}"#;
    assert_eq!(render(&[("tokenizer_config.json", named)]).unwrap(), "plain");
}

#[test]
fn special_tokens_in_every_spelling() {
    let config = r#"{
        "bos_token": {"content": "<b>", "special": true}, "eos_token": "<e>", "pad_token": null,
        "extra_special_tokens": {"image_token": "<i>"}
    }"#;
    let special = r#"{"eos_token": "<old>", "unk_token": {"content": "<u>"}}"#;
    let jinja = "{{ bos_token }}{{ eos_token }}{{ unk_token }}{{ image_token }}{{ pad_token }}|";
    let files = [
        ("tokenizer_config.json", config),
        ("special_tokens_map.json", special),
        ("chat_template.jinja", jinja),
    ];
    assert_eq!(render(&files).unwrap(), "<b><e><u><i>|");
}

#[test]
fn without_a_sound_template_the_error_says_what_to_do() {
    for (files, says) in [
        (&[][..], &["no chat template", "tokenizer_config.json", "`text`"][..]),
        (&[("tokenizer_config.json", "{")], &["tokenizer_config.json", "JSON"]),
        (&[("tokenizer_config.json", r#"{"chat_template": 3}"#)], &["chat_template", "default"]),
        (&[("tokenizer_config.json", r#"{"chat_template": "{{"}"#)], &["`chat_template`:1"]),
        (
            &[("tokenizer_config.json", r#"{"chat_template": [{"name": "rag", "template": ""}]}"#)],
            &["chat_template", "default"],
        ),
    ] {
        let error = render(files).unwrap_err().to_string();
        for part in says {
            assert!(error.contains(part), "{error:?} does not say {part:?}");
        }
    }
}
