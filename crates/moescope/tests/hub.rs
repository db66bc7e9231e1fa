//! Models of the Hub and conversations, as a user of the binary meets them. Nothing leaves the machine.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::{
    common::{fail, moescope, prompts, stderr, stdout, succeed, tiny},
    hub_server::{COMMIT, Faults, Hub, TAGGED},
};

/// The binary, asking `hub` and keeping what it fetches in `home`.
fn asking(hub: &Hub, home: &Path) -> Command {
    let mut command = moescope();
    for name in [
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "HF_TOKEN_PATH",
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
    ] {
        command.env_remove(name);
    }
    command.env("HF_ENDPOINT", &hub.endpoint).env("HF_HOME", home);
    command
}

fn run(hub: &Hub, dir: &Path, model: &str, prompts: &Path) -> Command {
    let mut command = asking(hub, &dir.join("hf"));
    command.args(["run", model, "--device", "flex", "--max-tokens", "2", "--force", "--prompts"]);
    command.arg(prompts).arg("-o").arg(dir.join("run"));
    command
}

fn manifest(dir: &Path) -> Value {
    serde_json::from_slice(&fs::read(dir.join("run/manifest.json")).unwrap()).unwrap()
}

fn one_prompt(dir: &Path) -> std::path::PathBuf {
    prompts(dir, &[json!({"id": "a", "domain": "test", "text": "The router."})])
}

#[test]
fn a_model_of_the_hub_runs_and_its_commit_is_recorded() {
    let hub = Hub::of(&tiny());
    let dir = tempfile::tempdir().unwrap();
    let prompts = one_prompt(dir.path());
    let first = succeed(&mut run(&hub, dir.path(), "org/name", &prompts));
    assert!(stderr(&first).contains("fetching org/name@main"), "{}", stderr(&first));
    let from_hub = manifest(dir.path());
    assert_eq!(from_hub["model"]["source"], format!("org/name@{COMMIT}"));
    assert_eq!(from_hub["model"]["name"], "name");

    // The same weights as from the directory.
    succeed(&mut run(&hub, dir.path(), tiny().to_str().unwrap(), &prompts));
    let from_dir = manifest(dir.path());
    assert_eq!(from_hub["model"]["weights_hash"], from_dir["model"]["weights_hash"]);
    assert_eq!(from_hub["prompts_hash"], from_dir["prompts_hash"]);

    // Again: nothing is fetched; offline: nothing is asked.
    hub.requests();
    let again = succeed(&mut run(&hub, dir.path(), "org/name", &prompts));
    assert!(!stderr(&again).contains("fetching"), "{}", stderr(&again));
    assert_eq!(hub.requests().len(), 1);
    succeed(run(&hub, dir.path(), "org/name", &prompts).arg("--offline"));
    succeed(run(&hub, dir.path(), "org/name", &prompts).env("HF_HUB_OFFLINE", "1"));
    assert!(hub.requests().is_empty());
    // Without network the cache does, and says so.
    let mut away = run(&hub, dir.path(), "org/name", &prompts);
    let away = succeed(away.env("HF_ENDPOINT", "http://127.0.0.1:1"));
    assert!(stderr(&away).contains("as it is in the cache"), "{}", stderr(&away));

    // Another revision is another commit.
    succeed(run(&hub, dir.path(), "org/name", &prompts).args(["--revision", "v1"]));
    assert_eq!(manifest(dir.path())["model"]["source"], format!("org/name@{TAGGED}"));
    fail(run(&hub, dir.path(), "org/name@v2", &prompts).arg("--offline"), &["v2", "offline"]);
}

#[test]
fn inspect_fetches_a_config_and_no_weights() {
    let hub = Hub::of(&tiny());
    let dir = tempfile::tempdir().unwrap();
    let output =
        succeed(asking(&hub, dir.path()).args(["inspect", "org/name", "--format", "json"]));
    let document: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(document["source"], format!("org/name@{COMMIT}"));
    assert!(document["total_parameters"].as_u64().unwrap() > 6_000_000);
    let requests = hub.requests();
    assert!(requests.iter().all(|r| !r.cdn && !r.path.ends_with(".safetensors")), "{requests:?}");
    // The catalog needs no Hub.
    succeed(asking(&hub, dir.path()).args(["inspect", "qwen3-30b-a3b"]));
    assert!(hub.requests().is_empty());
}

#[test]
fn tokens_are_sent_and_never_shown() {
    let hub = Hub::of(&tiny());
    hub.set(Faults { token: Some("hf_right".into()), ..Faults::default() });
    let dir = tempfile::tempdir().unwrap();
    let prompts = one_prompt(dir.path());
    fail(&mut run(&hub, dir.path(), "org/name", &prompts), &["gated", "HF_TOKEN", "org/name"]);
    let mut wrong = run(&hub, dir.path(), "org/name", &prompts);
    let output = wrong.env("HF_TOKEN", "hf_wrong").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(!stderr(&output).contains("hf_wrong"), "{}", stderr(&output));
    succeed(run(&hub, dir.path(), "org/name", &prompts).env("HF_TOKEN", "hf_right"));
    let written = fs::read_to_string(dir.path().join("run/manifest.json")).unwrap();
    assert!(!written.contains("hf_right"));
}

#[test]
fn names_that_are_no_models_say_what_was_tried() {
    let hub = Hub::of(&tiny());
    let dir = tempfile::tempdir().unwrap();
    let prompts = one_prompt(dir.path());
    let check =
        |model: &str, says: &[&str]| fail(&mut run(&hub, dir.path(), model, &prompts), says);
    check("qwen3-30b", &["qwen3-30b", "no such file", "org/name", "qwen3-30b-a3b"]);
    check("org/other", &["org/other@main", "not found", "HF_TOKEN"]);
    check("qwen3-30b-a3b", &["shapes, not weights", "Qwen/Qwen3-30B-A3B"]);
    assert!(!dir.path().join("run").exists());
    hub.insert("model.safetensors.index.json", r#"{"weight_map": {"x": "../../etc/passwd"}}"#);
    check("org/name", &["../../etc/passwd", "outside"]);
}

/// A cache on a file system of 4 MiB, mounted in a namespace of its own.
#[test]
fn a_full_disk_names_the_file_and_what_is_missing() {
    let hub = Hub::of(&tiny());
    let dir = tempfile::tempdir().unwrap();
    let prompts = one_prompt(dir.path());
    let script = format!(
        "mount -t tmpfs -o size=4m tmpfs {0} && HF_ENDPOINT={1} HF_HOME={0}/hf exec {2} run org/name \
         --prompts {3} --device flex -o {0}/run",
        dir.path().join("small").display(),
        hub.endpoint,
        env!("CARGO_BIN_EXE_moescope"),
        prompts.display(),
    );
    fs::create_dir(dir.path().join("small")).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", &script]);
    fail(&mut command, &["small/hf/hub/models--org--name/blobs", "no space left", "HF_HOME"]);
}

/// A template like those of real models, beside the bundled one.
#[test]
fn conversations_run_through_the_chat_template() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    fs::create_dir(&model).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "generation_config.json"] {
        fs::copy(tiny().join(name), model.join(name)).unwrap();
    }
    let hub = Hub::of(&model);
    let conversation = json!({"id": "a", "domain": "chat", "messages": [
        {"role": "user", "content": "The router."}, {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "And?"},
    ]});
    let chat = prompts(dir.path(), &[conversation]);
    let path = model.to_str().unwrap();
    fail(&mut run(&hub, dir.path(), path, &chat), &["\"a\"", "no chat template", "`text`"]);

    let template = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
                    {% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}";
    let config = json!({"chat_template": template, "bos_token": "<bos>"});
    fs::write(model.join("tokenizer_config.json"), config.to_string()).unwrap();
    succeed(&mut run(&hub, dir.path(), path, &chat));
    let of_messages = manifest(dir.path());

    // The text it comes to, given as token ids, is the same prompt: with one BOS, not two.
    let text = "user: The router.\nassistant: Yes.\nuser: And?\nassistant:";
    let same = prompts(dir.path(), &[json!({"id": "a", "domain": "chat", "text": text})]);
    succeed(&mut run(&hub, dir.path(), path, &same));
    assert_eq!(of_messages["prompts_hash"], manifest(dir.path())["prompts_hash"]);

    let broken = json!({"chat_template": "{{ raise_exception('only one turn') }}"});
    fs::write(model.join("tokenizer_config.json"), broken.to_string()).unwrap();
    let says = ["\"a\"", "tokenizer_config.json", "`chat_template`:1", "only one turn"];
    let conversation = json!({"id": "a", "messages": [{"role": "user", "content": "x"}]});
    fail(&mut run(&hub, dir.path(), path, &prompts(dir.path(), &[conversation])), &says);
}
