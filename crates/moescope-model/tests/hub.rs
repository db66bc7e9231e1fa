//! Checkpoints of the Hub: fetched once, found again, and nothing believed that would leave the cache.

use std::{cell::RefCell, fs};

use burn::tensor::Device;
use moescope_model::{
    HubError, HubId, HubOptions, HubProgress, MoeImpl, Need,
    hub::{Snapshot, snapshot},
};
use tempfile::TempDir;

use crate::{
    common::{fixture, load_f32},
    hub_server::{COMMIT, Faults, Hub, Request, TAGGED, etag_of},
};

const SHARDED: &str = "gemma4-moe-multimodal-sharded";

/// A cache, and what was said while it was filled.
struct Cache {
    dir: TempDir,
    notes: RefCell<Vec<String>>,
    progress: RefCell<Vec<(u64, u64)>>,
}

impl Cache {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Cache { dir, notes: RefCell::default(), progress: RefCell::default() }
    }

    fn get(
        &self,
        id: &str,
        hub: &Hub,
        with: impl Fn(&mut HubOptions<'_>),
    ) -> Result<Snapshot, HubError> {
        self.fetch(id, Need::All, hub, with)
    }

    fn config(&self, id: &str, hub: &Hub) -> Result<Snapshot, HubError> {
        self.fetch(id, Need::Config, hub, |_| {})
    }

    fn fetch(
        &self,
        id: &str,
        need: Need,
        hub: &Hub,
        with: impl Fn(&mut HubOptions<'_>),
    ) -> Result<Snapshot, HubError> {
        let progress = |p: HubProgress<'_>| self.progress.borrow_mut().push((p.done, p.total));
        let note = |text: &str| self.notes.borrow_mut().push(text.to_owned());
        let mut options = HubOptions {
            endpoint: hub.endpoint.clone(),
            cache: self.dir.path().join("hub"),
            token: None,
            offline: false,
            progress: &progress,
            note: &note,
        };
        with(&mut options);
        let id: HubId = id.parse().unwrap();
        snapshot(&id, need, &options)
    }

    fn all(&self, id: &str, hub: &Hub) -> Result<Snapshot, HubError> {
        self.get(id, hub, |_| {})
    }
}

fn of_weights(requests: &[Request]) -> Vec<&Request> {
    requests.iter().filter(|r| r.cdn).collect()
}

#[test]
fn a_sharded_model_is_fetched_and_runs() {
    let hub = Hub::of(&fixture(SHARDED));
    hub.insert("README.md", "not needed");
    hub.insert("original/consolidated.00.pth", "not needed");
    let cache = Cache::new();
    let found = cache.all("org/name", &hub).unwrap();
    assert_eq!(found.commit, COMMIT);
    assert!(found.dir.ends_with(format!("models--org--name/snapshots/{COMMIT}")));
    load_f32(&found.dir, &Device::flex(), MoeImpl::Selected);
    for entry in fs::read_dir(fixture(SHARDED)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name != "expected.safetensors" {
            assert_eq!(fs::read(&path).unwrap(), fs::read(found.dir.join(name)).unwrap(), "{name}");
        }
    }
    assert!(!found.dir.join("README.md").exists() && !found.dir.join("original").exists());
    let requests = hub.requests();
    assert!(requests.iter().all(|r| !r.path.contains("README") && !r.path.contains("original")));
    // The layout other tools read.
    let repo = found.dir.ancestors().nth(2).unwrap();
    assert_eq!(fs::read_to_string(repo.join("refs/main")).unwrap(), COMMIT);
    #[cfg(unix)]
    assert!(found.dir.join("config.json").symlink_metadata().unwrap().is_symlink());

    // Progress runs up to the whole.
    let progress = cache.progress.borrow();
    assert!(progress.windows(2).all(|w| w[0].0 <= w[1].0), "{progress:?}");
    let (done, total) = *progress.last().unwrap();
    assert!(done == total && total > 400_000, "{done} of {total}");
}

#[test]
fn what_is_there_is_not_fetched_again() {
    let hub = Hub::of(&fixture("gemma4-moe"));
    hub.insert("tokenizer.json", "{}");
    let cache = Cache::new();
    let first = cache.all("org/name", &hub).unwrap();
    hub.requests();
    // A branch may have moved: one question.
    assert_eq!(cache.all("org/name", &hub).unwrap(), first);
    let again = hub.requests();
    assert!(again.len() == 1 && again[0].path.starts_with("/api/models/org/name"), "{again:?}");
    // A commit never does: none.
    assert_eq!(cache.all(&format!("org/name@{COMMIT}"), &hub).unwrap(), first);
    assert!(hub.requests().is_empty());
    // Nor offline.
    assert_eq!(cache.get("org/name", &hub, |o| o.offline = true).unwrap(), first);
    assert!(hub.requests().is_empty());
}

#[test]
fn a_config_alone_is_one_file() {
    let hub = Hub::of(&fixture(SHARDED));
    let dir = tempfile::tempdir().unwrap();
    let options = HubOptions {
        endpoint: hub.endpoint.clone(),
        cache: dir.path().to_owned(),
        token: None,
        offline: false,
        progress: &|_| {},
        note: &|_| {},
    };
    let id: HubId = "org/name".parse().unwrap();
    let found = snapshot(&id, Need::Config, &options).unwrap();
    assert_eq!(fs::read_dir(&found.dir).unwrap().count(), 1);
    // It does not pass for the whole.
    let error = snapshot(&id, Need::All, &HubOptions { offline: true, ..options }).unwrap_err();
    assert!(error.to_string().contains("model.safetensors"), "{error}");
}

#[test]
fn revisions_are_pinned() {
    let hub = Hub::of(&fixture("gemma4-moe"));
    let cache = Cache::new();
    assert_eq!(cache.all("org/name@v1", &hub).unwrap().commit, TAGGED);
    assert_eq!(cache.all("org/name", &hub).unwrap().commit, COMMIT);
    // Files are asked for by commit, so that a branch that moves meanwhile mixes nothing.
    let files = hub.requests().into_iter().filter(|r| r.path.contains("/resolve/"));
    files.for_each(|r| assert!(r.path.contains(COMMIT) || r.path.contains(TAGGED), "{}", r.path));
    let error = cache.all("org/name@v2", &hub).unwrap_err().to_string();
    assert!(
        error.contains("org/name@v2") && error.contains("revision \"v2\" not found"),
        "{error}"
    );
}

#[test]
fn the_token_goes_to_the_hub_and_nowhere_else() {
    let hub = Hub::of(&fixture("gemma4-moe"));
    hub.set(Faults { token: Some("secret".into()), ..Faults::default() });
    let cache = Cache::new();
    for (token, says) in [(None, "gated"), (Some("wrong"), "the token has no access")] {
        let error =
            cache.get("org/name", &hub, |o| o.token = token.map(str::to_owned)).unwrap_err();
        assert!(matches!(error, HubError::Denied { status: 401, .. }), "{error}");
        let error = error.to_string();
        for part in [says, "HF_TOKEN", "/org/name", "settings/tokens"] {
            assert!(error.contains(part), "{error:?} does not say {part:?}");
        }
        assert!(!error.contains("wrong"), "a token is not printed: {error}");
    }
    hub.requests();
    cache.get("org/name", &hub, |o| o.token = Some("secret".into())).unwrap();
    let requests = hub.requests();
    assert!(!of_weights(&requests).is_empty());
    for request in requests {
        assert_eq!(request.headers.contains_key("authorization"), !request.cdn, "{request:?}");
    }
}

#[test]
fn a_broken_download_goes_on_where_it_broke() {
    let weights = fs::read(fixture("gemma4-moe").join("model.safetensors")).unwrap();
    let hub = Hub::of(&fixture("gemma4-moe"));
    let cache = Cache::new();
    // More often than it goes on by itself, without a byte.
    hub.set(Faults { break_after: Some((0, 100)), ..Faults::default() });
    let error = cache.all("org/name", &hub).unwrap_err();
    assert!(matches!(error, HubError::Broken { at: 0, .. }), "{error}");
    // Twice with some bytes: the third request asks for the rest.
    hub.requests();
    hub.set(Faults { break_after: Some((100_000, 2)), ..Faults::default() });
    let found = cache.all("org/name", &hub).unwrap();
    assert_eq!(fs::read(found.dir.join("model.safetensors")).unwrap(), weights);
    let requests = hub.requests();
    let ranges: Vec<&str> =
        of_weights(&requests).iter().map(|r| r.headers["range"].as_str()).collect();
    // The first is the question what the file is; breaking it costs nothing.
    assert_eq!(ranges, ["bytes=0-", "bytes=0-", "bytes=100000-"]);
}

#[test]
fn a_later_run_goes_on_too_and_a_server_without_ranges_starts_again() {
    let weights = fs::read(fixture("gemma4-moe").join("model.safetensors")).unwrap();
    for ignore_range in [false, true] {
        let hub = Hub::of(&fixture("gemma4-moe"));
        let cache = Cache::new();
        let etag = etag_of(&weights);
        let blobs = cache.dir.path().join("hub/models--org--name/blobs");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join(format!("{etag}.part")), &weights[..70_000]).unwrap();
        hub.set(Faults { ignore_range, ..Faults::default() });
        let found = cache.all("org/name", &hub).unwrap();
        assert_eq!(fs::read(found.dir.join("model.safetensors")).unwrap(), weights);
        let requests = hub.requests();
        assert_eq!(of_weights(&requests).last().unwrap().headers["range"], "bytes=70000-");
        assert!(!blobs.join(format!("{etag}.part")).exists());
    }
}

/// As the Hub names contents: SHA-256 of weights, git's SHA-1 of the rest.
fn hash_of(name: &str, bytes: &[u8]) -> String {
    use sha1::Digest;
    let hex = |hash: &[u8]| hash.iter().map(|byte| format!("{byte:02x}")).collect();
    if name.ends_with(".safetensors") {
        return hex(&sha2::Sha256::digest(bytes));
    }
    let blob = [format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat();
    hex(&sha1::Sha1::digest(blob))
}

#[test]
fn contents_are_held_against_their_hash() {
    let weights = fs::read(fixture("gemma4-moe").join("model.safetensors")).unwrap();
    let etags = Some(hash_of as fn(&str, &[u8]) -> String);
    let fetch = |faults: Faults| {
        let hub = Hub::of(&fixture("gemma4-moe"));
        hub.set(Faults { etags, ..faults });
        let cache = Cache::new();
        let found = cache.all("org/name", &hub);
        (found, hub, cache)
    };
    // The question what the weights are is not read to its end; then they come wrong once, and right.
    for (damage, requests) in [(0, 2), (2, 3)] {
        let (found, hub, _cache) = fetch(Faults { damage, ..Faults::default() });
        assert_eq!(fs::read(found.unwrap().dir.join("model.safetensors")).unwrap(), weights);
        assert_eq!(of_weights(&hub.requests()).len(), requests);
    }
    // Wrong every time: nothing of it stays.
    let (found, hub, cache) = fetch(Faults { damage: u32::MAX, ..Faults::default() });
    let error = found.unwrap_err();
    assert!(matches!(error, HubError::Content { .. }), "{error}");
    let hash = hash_of("model.safetensors", &weights);
    assert!(error.to_string().contains(&hash) && error.to_string().contains("model.safetensors"));
    let blobs = cache.dir.path().join("hub/models--org--name/blobs");
    assert!(!blobs.join(format!("{hash}.part")).exists() && !blobs.join(&hash).exists());
    assert_eq!(of_weights(&hub.requests()).len(), 3);
    // Small files by git's hash.
    let wrong: fn(&str, &[u8]) -> String = |name, bytes| match name {
        "config.json" => "0".repeat(40),
        _ => hash_of(name, bytes),
    };
    let hub = Hub::of(&fixture("gemma4-moe"));
    hub.set(Faults { etags: Some(wrong), ..Faults::default() });
    let error = Cache::new().all("org/name", &hub).unwrap_err().to_string();
    assert!(error.contains("config.json") && error.contains("0000"), "{error}");
}

/// A branch moves, and only the config of what it is now is fetched.
#[test]
fn a_config_alone_leaves_a_branch_with_its_weights() {
    let hub = Hub::of(&fixture("gemma4-moe"));
    let cache = Cache::new();
    let first = cache.all("org/name", &hub).unwrap();
    hub.set(Faults { sha: Some(TAGGED.into()), ..Faults::default() });
    let config = cache.config("org/name", &hub).unwrap();
    assert_eq!(config.commit, TAGGED);
    assert_eq!(cache.get("org/name", &hub, |o| o.offline = true).unwrap(), first);
    // The weights take it along.
    assert_eq!(cache.all("org/name", &hub).unwrap(), config);
    assert_eq!(cache.get("org/name", &hub, |o| o.offline = true).unwrap(), config);
}

#[test]
fn without_network_the_cache_serves_and_a_note_says_so() {
    let hub = Hub::of(&fixture("gemma4-moe"));
    let cache = Cache::new();
    let first = cache.all("org/name", &hub).unwrap();
    hub.set(Faults { refuse: Some((503, "")), ..Faults::default() });
    assert_eq!(cache.all("org/name", &hub).unwrap(), first);
    // Nobody listens on port 1.
    let away = |o: &mut HubOptions<'_>| o.endpoint = "http://127.0.0.1:1".into();
    assert_eq!(cache.get("org/name", &hub, away).unwrap(), first);
    let notes = cache.notes.borrow();
    assert_eq!(notes.len(), 2);
    assert!(notes[0].contains("HTTP 503") && notes[0].contains("in the cache"), "{notes:?}");
    assert!(notes[1].contains("127.0.0.1:1") && notes[1].contains("in the cache"), "{notes:?}");
    // With nothing cached, the error is the network's.
    let error = Cache::new().get("org/name", &hub, away).unwrap_err();
    assert!(matches!(error, HubError::Network { .. }), "{error}");
    let error = Cache::new().get("org/name", &hub, |o| o.offline = true).unwrap_err().to_string();
    assert!(error.contains("offline") && error.contains("HF_HOME"), "{error}");
}

#[test]
fn repositories_without_what_is_read_say_what_they_hold() {
    let config = fs::read(fixture("gemma4-moe").join("config.json")).unwrap();
    for (name, says) in [
        ("model-Q4_K_M.gguf", "GGUF"),
        ("pytorch_model.bin", "PyTorch pickle"),
        ("README.md", "no weights"),
    ] {
        let hub = Hub::with([("config.json".into(), config.clone())].into());
        hub.insert(name, "content");
        let error = Cache::new().all("org/name", &hub).unwrap_err().to_string();
        assert!(error.contains("safetensors") && error.contains(says), "{error}");
    }
    let hub = Hub::with([("model-Q8_0.gguf".into(), vec![0; 8])].into());
    let error = Cache::new().all("org/name", &hub).unwrap_err().to_string();
    assert!(error.contains("GGUF"), "{error}");
    let error = Cache::new().all("org/other", &hub).unwrap_err();
    assert!(matches!(error, HubError::NotFound { .. }), "{error}");
}

#[test]
fn nothing_a_hub_says_leaves_the_cache() {
    let small = |index: &str| {
        let config = fs::read(fixture("gemma4-moe").join("config.json")).unwrap();
        let hub = Hub::with([("config.json".into(), config)].into());
        hub.insert("model.safetensors.index.json", index);
        hub
    };
    let refused = |hub: &Hub, says: &str| {
        let cache = Cache::new();
        fs::write(cache.dir.path().join("precious"), "kept").unwrap();
        let error = cache.all("org/name", hub).unwrap_err().to_string();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
        let outside: Vec<_> = fs::read_dir(cache.dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "hub")
            .collect();
        assert_eq!(outside, ["precious"], "{says}");
        assert_eq!(fs::read_to_string(cache.dir.path().join("precious")).unwrap(), "kept");
    };
    for shard in ["../../../../precious", "/etc/passwd", "a/b.safetensors", "..", "a\\b", "a%2fb"] {
        let index = serde_json::json!({"weight_map": {"x": shard}}).to_string();
        refused(&small(&index), "outside");
    }
    refused(&small(r#"{"weight_map": {"x": "absent.safetensors"}}"#), "does not have");
    refused(&small("not json"), "JSON");
    let fault = |faults: Faults, says: &str| {
        let hub = Hub::of(&fixture("gemma4-moe"));
        hub.set(faults);
        refused(&hub, says);
    };
    for etag in ["../../../../precious", "", "a/b", ".."] {
        fault(Faults { etag: Some(etag.into()), ..Faults::default() }, "etag");
    }
    fault(Faults { sha: Some("../../../precious".into()), ..Faults::default() }, "no commit");
    for to in ["file:///etc/passwd", "//elsewhere/x", "ftp://x/y"] {
        fault(Faults { redirect: Some(to.into()), ..Faults::default() }, "redirects to");
    }
    // Round and round.
    let hub = Hub::of(&fixture("gemma4-moe"));
    let path = format!("/org/name/resolve/{COMMIT}/model.safetensors");
    hub.set(Faults { redirect: Some(format!("{}{path}", hub.endpoint)), ..Faults::default() });
    refused(&hub, "redirects");
}
