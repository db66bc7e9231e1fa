//! Broken, hostile and unsupported checkpoints: each is refused with an error that names the thing.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::Device;
use moescope_model::{
    Checkpoint, DType, LoadOptions, ModelError, MoeImpl, Result, Unobserved, check_ids, describe,
    load,
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{fixture, forward_all, load_f32, tiny};

/// A writable copy of a fixture.
pub(crate) fn copy(name: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture(name)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    dir
}

pub(crate) fn try_load(path: &Path) -> Result<()> {
    let checkpoint = Checkpoint::open(path)?;
    let options = LoadOptions {
        device: &Device::flex(),
        dtype: DType::F32,
        moe_impl: MoeImpl::Selected,
        progress: &|_, _| {},
    };
    load(&checkpoint, &options).map(|_| ())
}

pub(crate) fn message(path: &Path) -> String {
    try_load(path).expect_err("should be refused").to_string()
}

pub(crate) fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
}

pub(crate) fn edit_config(dir: &Path, edit: impl FnOnce(&mut Value)) {
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut config);
    fs::write(path, config.to_string()).unwrap();
}

pub(crate) type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

pub(crate) fn edit_weights(dir: &Path, edit: impl FnOnce(&mut Tensors)) {
    let path = dir.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let mut tensors: Tensors = SafeTensors::deserialize(&bytes)
        .unwrap()
        .iter()
        .map(|(n, t)| (n.to_owned(), (t.dtype(), t.shape().to_vec(), t.data().to_vec())))
        .collect();
    edit(&mut tensors);
    let views: Vec<(String, TensorView<'_>)> = tensors
        .iter()
        .map(|(n, (dtype, shape, data))| {
            (n.clone(), TensorView::new(*dtype, shape.clone(), data).unwrap())
        })
        .collect();
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn missing_path() {
    assert_says(&message(Path::new("/no/such/model")), &["/no/such/model", "not found"]);
}

#[test]
fn directory_without_config_or_weights() {
    let dir = tempfile::tempdir().unwrap();
    assert_says(&message(dir.path()), &["config.json", "not found"]);
    fs::copy(fixture("gemma4-moe").join("config.json"), dir.path().join("config.json")).unwrap();
    assert_says(&message(dir.path()), &["model.safetensors", "not found"]);
}

#[test]
fn malformed_config() {
    let dir = copy("gemma4-moe");
    fs::write(dir.path().join("config.json"), "{\"architectures\": [").unwrap();
    assert_says(&message(dir.path()), &["config.json", "not valid JSON"]);
    fs::write(dir.path().join("config.json"), "[1]").unwrap();
    assert_says(&message(dir.path()), &["config.json", "an object"]);
}

#[test]
fn unknown_architecture() {
    let dir = copy("gemma4-moe");
    edit_config(dir.path(), |c| c["architectures"] = json!(["MysteryForCausalLM"]));
    assert_says(&message(dir.path()), &["MysteryForCausalLM", "Gemma4ForCausalLM"]);
    edit_config(dir.path(), |c| c["architectures"] = json!(null));
    assert_says(&message(dir.path()), &["architectures"]);
}

#[test]
fn config_switches_are_honoured_or_refused_by_name() {
    for (key, value) in [
        ("turbo_mode", json!(true)),
        ("attention_bias", json!(true)),
        ("use_bidirectional_attention", json!("all")),
        ("hidden_activation", json!("relu")),
        ("tie_word_embeddings", json!(false)),
        ("rope_scaling", json!({"rope_type": "yarn"})),
    ] {
        let dir = copy("gemma4-moe");
        edit_config(dir.path(), |c| c[key] = value.clone());
        assert_says(&message(dir.path()), &["config.json", key, "not implemented"]);
    }
    let dir = copy("gemma4-moe");
    edit_config(dir.path(), |c| {
        c["rope_parameters"]["full_attention"]["rope_type"] = json!("yarn");
    });
    assert_says(&message(dir.path()), &["rope_parameters.full_attention.rope_type", "yarn"]);
    let dir = copy("gemma4-moe");
    edit_config(dir.path(), |c| c["layer_types"][0] = json!("linear_attention"));
    assert_says(&message(dir.path()), &["layer_types", "linear_attention"]);
}

#[test]
fn impossible_sizes() {
    for (key, value, says) in [
        ("hidden_size", json!(0), "above 0"),
        ("hidden_size", json!("wide"), "wide"),
        ("top_k_experts", json!(9), "at most 8"),
        ("num_key_value_heads", json!(3), "divisor of 4"),
        ("num_kv_shared_layers", json!(6), "fewer than"),
        ("vocab_size", json!(null), "nothing"),
    ] {
        let dir = copy("gemma4-moe");
        edit_config(dir.path(), |c| c[key] = value.clone());
        assert_says(&message(dir.path()), &[key, says]);
    }
}

#[test]
fn both_config_spellings_mean_the_same() {
    let dir = copy("gemma4-moe");
    edit_config(dir.path(), |c| {
        let map = c.as_object_mut().unwrap();
        map.remove("per_layer_config");
        map.insert("global_head_dim".into(), json!(32));
        map.insert("num_global_key_value_heads".into(), json!(1));
    });
    try_load(dir.path()).unwrap();
    let spec = |path: &Path| describe(&Checkpoint::open_config(path).unwrap()).unwrap();
    let (published, newer) = (spec(dir.path()), spec(&fixture("gemma4-moe")));
    assert_eq!(published.tensors, newer.tensors);
    assert_eq!(published.kv, newer.kv);
}

#[test]
fn truncated_file_and_shard() {
    for (name, file) in [
        ("gemma4-moe", "model.safetensors"),
        ("gemma4-moe-multimodal-sharded", "model-00002-of-00005.safetensors"),
    ] {
        for keep in [0, 7, 100, 100_000] {
            let dir = copy(name);
            let path = dir.path().join(file);
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..keep]).unwrap();
            assert_says(&message(dir.path()), &[file]);
        }
    }
}

fn index_path(dir: &TempDir) -> PathBuf {
    dir.path().join("model.safetensors.index.json")
}

fn edit_index(dir: &TempDir, edit: impl FnOnce(&mut Value)) {
    let mut index: Value = serde_json::from_slice(&fs::read(index_path(dir)).unwrap()).unwrap();
    edit(&mut index);
    fs::write(index_path(dir), index.to_string()).unwrap();
}

#[test]
fn broken_shard_index() {
    let name = "gemma4-moe-multimodal-sharded";
    let dir = copy(name);
    fs::remove_file(dir.path().join("model-00003-of-00005.safetensors")).unwrap();
    assert_says(&message(dir.path()), &["index.json", "model-00003-of-00005.safetensors"]);

    for outside in ["../model.safetensors", "/etc/passwd", "a/b.safetensors", ".."] {
        let dir = copy(name);
        edit_index(&dir, |i| i["weight_map"]["model.language_model.norm.weight"] = outside.into());
        assert_says(&message(dir.path()), &["index.json", outside, "outside"]);
    }

    let dir = copy(name);
    edit_index(&dir, |i| {
        i["weight_map"]["model.language_model.nothing"] = "model-00001-of-00005.safetensors".into();
    });
    assert_says(&message(dir.path()), &["index.json", "model.language_model.nothing"]);

    let dir = copy(name);
    fs::write(index_path(&dir), "{}").unwrap();
    assert_says(&message(dir.path()), &["index.json", "weight_map"]);
}

#[test]
fn wrong_weights() {
    const NORM: &str = "model.layers.1.input_layernorm.weight";
    let check = |edit: &dyn Fn(&mut Tensors), says: &[&str]| {
        let dir = copy("gemma4-moe");
        edit_weights(dir.path(), edit);
        let message = message(dir.path());
        assert_says(&message, &[NORM]);
        assert_says(&message, says);
    };
    check(&|t| drop(t.remove(NORM)), &["missing", "[48]"]);
    check(
        &|t| drop(t.insert(format!("{NORM}.bias"), t[NORM].clone())),
        &["unexpected", ".bias", "[48]"],
    );
    check(&|t| t.get_mut(NORM).unwrap().1 = vec![4, 12], &["expected shape [48]", "found [4, 12]"]);
    check(&|t| *t.get_mut(NORM).unwrap() = (Dtype::I32, vec![48], vec![0; 192]), &["I32", "BF16"]);
    check(
        &|t| t.get_mut(NORM).unwrap().2[8..12].copy_from_slice(&f32::NAN.to_le_bytes()),
        &["element 2", "NaN"],
    );
}

/// A sound weight that f16 can't hold is no damage, and the error says what helps.
#[test]
fn weights_beyond_f16() {
    let name = "model.layers.2.mlp.up_proj.weight";
    let dir = copy("gemma4-moe");
    edit_weights(dir.path(), |t| {
        t.get_mut(name).unwrap().2[4..8].copy_from_slice(&1e6f32.to_le_bytes());
    });
    let load_as = |dtype| {
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let options = LoadOptions {
            device: &Device::flex(),
            dtype,
            moe_impl: MoeImpl::Selected,
            progress: &|_, _| {},
        };
        load(&checkpoint, &options).map(|_| ())
    };
    let message = load_as(DType::F16).unwrap_err().to_string();
    assert_says(&message, &[name, "element 1 ", "does not fit f16", "bf16"]);
    load_as(DType::Bf16).unwrap();
}

#[test]
fn other_formats_are_named() {
    let dir = copy("gemma4-moe");
    fs::rename(dir.path().join("model.safetensors"), dir.path().join("model.gguf")).unwrap();
    assert_says(&message(dir.path()), &["GGUF"]);
    assert_says(&message(&dir.path().join("model.gguf")), &["GGUF"]);
    fs::rename(dir.path().join("model.gguf"), dir.path().join("pytorch_model.bin")).unwrap();
    assert_says(&message(dir.path()), &["pickle"]);
    // Without a config beside it too, and whatever it is called.
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("model-Q4_K_M.gguf"), "GGUF").unwrap();
    assert_says(&message(dir.path()), &["GGUF"]);
    assert_says(&message(&dir.path().join("model-Q4_K_M.gguf")), &["GGUF"]);
    for (start, format) in [
        (&b"GGUF\x03\0\0\0rest of it"[..], "GGUF"),
        (b"PK\x03\x04rest of it", "pickle"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    ] {
        let dir = copy("gemma4-moe");
        fs::write(dir.path().join("model.safetensors"), start).unwrap();
        assert_says(&message(dir.path()), &["model.safetensors", format]);
    }
}

#[test]
fn quantised_formats_are_named() {
    let dir = copy("gemma4-moe");
    edit_config(dir.path(), |c| c["quantization_config"] = json!({"quant_method": "gptq"}));
    assert_says(&message(dir.path()), &["config.json", "GPTQ", "quant_method", "bf16"]);
    // The tensors give it away where the config does not.
    let name = "model.layers.0.mlp.up_proj";
    for (tensor, dtype, format) in [
        ("qweight", Dtype::I32, "GPTQ or AWQ"),
        ("q_weight", Dtype::I32, "EXL2"),
        ("weight_packed", Dtype::I32, "compressed-tensors"),
        ("weight.absmax", Dtype::F32, "bitsandbytes"),
        ("weight_scale", Dtype::F32, "FP8"),
    ] {
        let dir = copy("gemma4-moe");
        edit_weights(dir.path(), |t| {
            t.remove(&format!("{name}.weight")).unwrap();
            t.insert(format!("{name}.{tensor}"), (dtype, vec![2], vec![0; 8]));
        });
        assert_says(
            &message(dir.path()),
            &["model.safetensors", &format!("{name}.{tensor}"), format],
        );
    }
}

/// A weight in FP8 blocks is the stored value times the scale of its block: exact here, as both are chosen.
#[test]
fn fp8_blocks_are_decoded() {
    let name = "model.layers.1.self_attn.q_proj.weight";
    let dir = copy("gemma4-moe");
    let plain = copy("gemma4-moe");
    let mut shape = Vec::new();
    edit_weights(dir.path(), |t| {
        let weight = t.get_mut(name).unwrap();
        shape.clone_from(&weight.1);
        // Codes 0x38 = 1 and 0xc0 = -2, alternating.
        let codes = (0..shape[0] * shape[1]).map(|i| [0x38, 0xc0][i % 2]).collect();
        *weight = (Dtype::F8_E4M3, shape.clone(), codes);
        let blocks = [shape[0].div_ceil(16), shape[1].div_ceil(32)];
        let scales: Vec<f32> = (0..blocks[0] * blocks[1]).map(|i| (1 + i) as f32 / 64.0).collect();
        let bytes = scales.iter().flat_map(|x| x.to_le_bytes()).collect();
        t.insert(format!("{name}_scale_inv"), (Dtype::F32, blocks.to_vec(), bytes));
    });
    edit_config(dir.path(), |c| {
        c["quantization_config"] =
            json!({"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [16, 32]});
    });
    edit_weights(plain.path(), |t| {
        let columns = shape[1].div_ceil(32);
        let value = |i: usize| {
            let block = i / shape[1] / 16 * columns + i % shape[1] / 32;
            [1.0, -2.0][i % 2] * (1 + block) as f32 / 64.0
        };
        let values = (0..shape[0] * shape[1]).flat_map(|i| value(i).to_le_bytes()).collect();
        t.get_mut(name).unwrap().2 = values;
    });
    assert_eq!(
        Checkpoint::open(dir.path()).unwrap().quantisation().unwrap().to_string(),
        "FP8 in blocks of 16 x 32, decoded on load"
    );
    let logits = |path: &Path| {
        let model = load_f32(path, &Device::flex(), MoeImpl::Selected);
        forward_all(model.as_ref(), &[3, 5, 7, 11], 1, &mut Unobserved)
    };
    assert_eq!(logits(dir.path()), logits(plain.path()));

    // Scales of another shape, or none, are errors that name the tensor.
    let scale = format!("{name}_scale_inv");
    edit_weights(dir.path(), |t| {
        t.insert(scale.clone(), (Dtype::F32, vec![1, 1], vec![0; 4]));
    });
    assert_says(&message(dir.path()), &[&scale, "found [1, 1]"]);
    edit_weights(dir.path(), |t| drop(t.remove(&scale)));
    assert_says(&message(dir.path()), &[name, "F8_E4M3", "block scales"]);
}

#[test]
fn one_file_is_a_model_too() {
    try_load(&fixture("gemma4-moe").join("model.safetensors")).unwrap();
}

/// An index, or any of the shards it names, stands for all of them.
#[test]
fn a_part_of_a_sharded_model_is_the_model() {
    let dir = fixture("gemma4-moe-multimodal-sharded");
    for name in ["model.safetensors.index.json", "model-00002-of-00005.safetensors"] {
        try_load(&dir.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    // A file the index does not name is a model of its own, or not.
    let other = copy("gemma4-moe-multimodal-sharded");
    let shard = other.path().join("model-00002-of-00005.safetensors");
    fs::copy(shard, other.path().join("other.safetensors")).unwrap();
    assert_says(&message(&other.path().join("other.safetensors")), &["missing"]);
    // What is wrong with an index is said of it.
    fs::write(other.path().join("model.safetensors.index.json"), "{}").unwrap();
    let index = other.path().join("model.safetensors.index.json");
    assert_says(&message(&index), &["index.json", "weight_map"]);
}

#[test]
fn token_ids_beyond_the_vocabulary() {
    assert!(check_ids(&[0, 255], 256).is_ok());
    let error = check_ids(&[0, 255, 256], 256).unwrap_err();
    assert!(matches!(error, ModelError::TokenId { id: 256, position: 2, vocab: 256 }), "{error}");
}

#[test]
fn the_hash_is_of_the_weights() {
    let hash = |path: &Path| {
        let checkpoint = Checkpoint::open(path).unwrap();
        let options = LoadOptions {
            device: &Device::flex(),
            dtype: DType::F32,
            moe_impl: MoeImpl::Selected,
            progress: &|_, _| {},
        };
        load(&checkpoint, &options).unwrap().1
    };
    let original = hash(&fixture("gemma4-moe"));
    let dir = copy("gemma4-moe");
    assert_eq!(hash(dir.path()), original);
    edit_weights(dir.path(), |t| t.get_mut("model.norm.weight").unwrap().2[0] ^= 1);
    assert_ne!(hash(dir.path()).hash, original.hash);
    assert_eq!(hash(dir.path()).bytes, original.bytes);
}

#[test]
fn parameters_match_the_files() {
    for path in [
        tiny(),
        fixture("gemma4-moe"),
        fixture("gemma4-ple-kvshared"),
        fixture("gemma3-dense"),
        fixture("glm4-moe"),
        fixture("mixtral"),
        fixture("olmoe"),
        fixture("qwen3-moe"),
    ] {
        let bytes = fs::read(path.join("model.safetensors")).unwrap();
        let in_file: u64 = SafeTensors::deserialize(&bytes)
            .unwrap()
            .iter()
            .map(|(_, t)| t.shape().iter().product::<usize>() as u64)
            .sum();
        let spec = describe(&Checkpoint::open_config(&path).unwrap()).unwrap();
        assert_eq!(spec.total_parameters(), in_file, "{}", path.display());
    }
    let spec = describe(&Checkpoint::open_config(&tiny()).unwrap()).unwrap();
    // 6 layers x 32 experts x 3 x 128 x 64, of which 4 in 32 run.
    let experts = 6 * 32 * 3 * 128 * 64;
    assert_eq!(spec.total_parameters() - spec.active_parameters(), experts - experts / 8);
}
