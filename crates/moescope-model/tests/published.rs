//! Whole configs as they were published, against the catalog; `configs/README.md` says what each is from.

use std::path::{Path, PathBuf};

use moescope_model::{Checkpoint, ModelSpec, catalog, describe};

fn config(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/configs/{name}.json"))
}

fn published(name: &str) -> ModelSpec {
    let spec = Checkpoint::open_config(&config(name)).and_then(|checkpoint| describe(&checkpoint));
    spec.unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn published_configs_are_read_whole() {
    for (name, model) in [
        ("deepseek-v3", "deepseek-v3"),
        ("gemma-4-31b-it", "gemma-4-31b"),
        ("gpt-oss-20b", "gpt-oss-20b"),
        ("mixtral-8x7b", "mixtral-8x7b"),
        ("olmoe-1b-7b-0125-instruct", "olmoe-1b-7b"),
        ("qwen3-235b-a22b-2507", "qwen3-235b-a22b"),
        ("qwen3-30b-a3b", "qwen3-30b-a3b"),
    ] {
        let spec = published(name);
        let entry = catalog::find(model).unwrap().unwrap();
        let (total, active) = entry.published.matches(&spec);
        assert!(total && active, "{name}: {:?}", entry.published);
        let known = describe(&Checkpoint::from_catalog(&entry).unwrap()).unwrap();
        assert_eq!(spec.tensors, known.tensors, "{name}");
        assert_eq!((spec.kv, spec.moe), (known.kv, known.moe), "{name}");
    }
}

/// Not in the catalog: counted by hand.
#[test]
fn gemma_4_e2b_is_read_whole() {
    let spec = published("gemma-4-e2b-it");
    assert_eq!((spec.layers, spec.context), (35, 131_072));
    let (hidden, width) = (1536u64, 256);
    // One full layer in five; the last twenty use the keys of others and have MLPs twice as wide.
    let (mut layers, mlp) = (0, 3 * hidden * 6144);
    for layer in 0..35 {
        let head = if layer % 5 == 4 { 512 } else { 256 };
        let own = layer < 15;
        layers += 2 * 8 * head * hidden + head + 4 * hidden + 1;
        layers += if own { 2 * head * hidden + head + mlp } else { 2 * mlp };
        layers += 2 * width * hidden + hidden;
    }
    let tables = 262_144 * (hidden + 35 * width) + 35 * width * hidden + width + hidden;
    assert_eq!(spec.total_parameters(), layers + tables);
    let sources: Vec<_> = spec.kv.iter().map(|kv| kv.source).collect();
    assert_eq!(sources[14..20], [None, Some(13), Some(13), Some(13), Some(13), Some(14)]);
}
