//! gpt-oss: what is damaged or not implemented is refused by name.

use std::{fs, path::Path};

use burn::tensor::Device;
use moescope_model::{Checkpoint, DType, LoadOptions, MoeImpl, describe, load};
use safetensors::{SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::fixture;

fn copy(name: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(fixture(name).join(file), dir.path().join(file)).unwrap();
    }
    dir
}

fn load_error(dir: &Path) -> String {
    let checkpoint = Checkpoint::open(dir).unwrap();
    let options = LoadOptions {
        device: &Device::flex(),
        dtype: DType::F32,
        moe_impl: MoeImpl::Selected,
        progress: &|_, _| {},
    };
    load(&checkpoint, &options).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn switches_are_refused_by_name() {
    for (key, value) in [
        ("hidden_act", json!("gelu_pytorch_tanh")),
        ("rope_parameters", json!(null)),
        ("layer_types", json!(["sliding_attention", "linear_attention", "full_attention", "x"])),
        ("experts_per_token", json!(3)),
        ("num_experts_per_tok", json!(9)),
        ("turbo_mode", json!(true)),
    ] {
        let dir = copy("gpt-oss");
        let path = dir.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config[key] = value.clone();
        fs::write(&path, config.to_string()).unwrap();
        let error =
            describe(&Checkpoint::open_config(dir.path()).unwrap()).unwrap_err().to_string();
        let name = if key == "rope_parameters" { "rope_scaling" } else { key };
        assert!(error.contains(name), "{key} = {value}: {error}");
    }
}

/// Edits one tensor of the MXFP4 fixture, or drops it where `edit` says false.
fn edited(name: &str, edit: impl FnOnce(&mut Vec<u8>, &mut Vec<usize>) -> bool) -> TempDir {
    let dir = copy("gpt-oss-mxfp4");
    let path = dir.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let stored = all.tensor(name).unwrap();
    let (mut data, mut shape) = (stored.data().to_vec(), stored.shape().to_vec());
    let keep = edit(&mut data, &mut shape);
    let mut views: Vec<(String, TensorView<'_>)> = all
        .iter()
        .filter(|(other, _)| *other != name)
        .map(|(other, t)| {
            (other.to_owned(), TensorView::new(t.dtype(), t.shape().to_vec(), t.data()).unwrap())
        })
        .collect();
    if keep {
        views.push((name.to_owned(), TensorView::new(stored.dtype(), shape, &data).unwrap()));
    }
    let whole = safetensors::serialize(views, None).unwrap();
    fs::write(path, whole).unwrap();
    dir
}

#[test]
fn damaged_quantised_tensors_are_named() {
    const SCALES: &str = "model.layers.1.mlp.experts.gate_up_proj_scales";
    const BLOCKS: &str = "model.layers.1.mlp.experts.gate_up_proj_blocks";
    // No number at all: the second block of the fourth row of the first expert.
    let dir = edited(SCALES, |data, _| {
        data[7] = 255;
        true
    });
    let error = load_error(dir.path());
    assert!(error.contains(BLOCKS) && error.contains("damaged"), "{error}");
    let dir = edited(SCALES, |_, _| false);
    let error = load_error(dir.path());
    assert!(error.contains(SCALES) && error.contains("missing"), "{error}");
    let dir = edited(BLOCKS, |_, shape| {
        shape.swap(0, 1);
        true
    });
    let error = load_error(dir.path());
    assert!(error.contains(BLOCKS) && error.contains("[8, 64, 2, 16]"), "{error}");
}

/// A block of 32 values shares an exponent; no published model has a width with a part of one.
#[test]
fn widths_that_do_not_fill_blocks_are_refused() {
    let dir = copy("gpt-oss-mxfp4");
    let path = dir.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["intermediate_size"] = json!(48);
    fs::write(&path, config.to_string()).unwrap();
    let error = load_error(dir.path());
    for says in ["model.layers.0.mlp.experts.down_proj", "32", "48"] {
        assert!(error.contains(says), "{error}");
    }
}
