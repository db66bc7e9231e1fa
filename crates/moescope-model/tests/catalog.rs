//! Real models by their shapes: what they come out at is what their makers say.

use std::collections::BTreeSet;

use moescope_model::{Checkpoint, catalog, describe};

/// Total and active parameters, to the digits that were published.
#[test]
fn parameter_counts_are_the_published_ones() {
    for name in catalog::names() {
        let entry = catalog::find(name).unwrap().unwrap();
        let spec = describe(&Checkpoint::from_catalog(&entry).unwrap());
        let spec = spec.unwrap_or_else(|error| panic!("{name}: {error}"));
        let counted = (spec.total_parameters(), spec.active_parameters());
        let (total, active) = entry.published.matches(&spec);
        assert!(total && active, "{name}: {counted:?}, {:?}", entry.published);
    }
}

/// `metadata.total_size` of published `model.safetensors.index.json` files, which is the sum of all tensors'
/// bytes; docs/CHECKPOINTS.md says what each was read from. Models whose files hold more than the decoder
/// (vision towers, layers that predict further tokens) are not here.
const TOTAL_SIZES: &[(&str, u64)] = &[
    ("gpt-oss-20b", 13_761_264_768),
    ("mixtral-8x7b", 93_405_585_408),
    ("olmoe-1b-7b", 13_838_323_712),
    ("qwen3-30b-a3b", 61_064_245_248),
];

#[test]
fn files_are_as_large_as_the_published_ones() {
    for (name, published) in TOTAL_SIZES {
        let entry = catalog::find(name).unwrap().unwrap();
        let spec = describe(&Checkpoint::from_catalog(&entry).unwrap()).unwrap();
        let parts = moescope_model::footprint::stored(&spec, entry.stored);
        assert_eq!(parts.iter().map(|(_, bytes)| bytes).sum::<u64>(), *published, "{name}");
    }
}

/// Names of layer `layer` of a model, below `layers.N.`, experts but the first left out.
fn names_of_layer(name: &str, layer: u16) -> BTreeSet<String> {
    let entry = catalog::find(name).unwrap().unwrap();
    let spec = describe(&Checkpoint::from_catalog(&entry).unwrap()).unwrap();
    let prefix = format!("layers.{layer}.");
    let own = spec.tensors.iter().filter(|tensor| tensor.layer == Some(layer));
    own.filter_map(|tensor| tensor.name.strip_prefix(&prefix))
        .filter(|name| {
            !name.contains("experts.")
                || name.contains("experts.0.")
                || !name.contains(|c: char| c.is_ascii_digit())
        })
        .map(str::to_owned)
        .collect()
}

fn assert_names(name: &str, layer: u16, published: &[&str]) {
    let published: BTreeSet<String> = published.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(names_of_layer(name, layer), published, "{name}, layer {layer}");
}

/// Tensors of a layer as published; docs/CHECKPOINTS.md says what that was read from.
#[test]
fn tensors_are_named_as_published() {
    let attention = [
        "input_layernorm.weight",
        "post_attention_layernorm.weight",
        "self_attn.q_proj.weight",
        "self_attn.q_proj.bias",
        "self_attn.k_proj.weight",
        "self_attn.k_proj.bias",
        "self_attn.v_proj.weight",
        "self_attn.v_proj.bias",
        "self_attn.o_proj.weight",
    ];
    let biased = [
        "self_attn.o_proj.bias",
        "self_attn.sinks",
        "mlp.router.weight",
        "mlp.router.bias",
        // Published as `_blocks` and `_scales`.
        "mlp.experts.gate_up_proj",
        "mlp.experts.gate_up_proj_bias",
        "mlp.experts.down_proj",
        "mlp.experts.down_proj_bias",
    ];
    assert_names("gpt-oss-20b", 0, &[&attention[..], &biased].concat());
    let dense = ["mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight"];
    let experts = [
        "mlp.gate.weight",
        "mlp.gate.e_score_correction_bias",
        "mlp.experts.0.gate_proj.weight",
        "mlp.experts.0.up_proj.weight",
        "mlp.experts.0.down_proj.weight",
        "mlp.shared_experts.gate_proj.weight",
        "mlp.shared_experts.up_proj.weight",
        "mlp.shared_experts.down_proj.weight",
    ];
    assert_names("glm-4.5-air", 0, &[&attention[..], &dense].concat());
    assert_names("glm-4.5-air", 1, &[&attention[..], &experts].concat());
    let latent = [
        "input_layernorm.weight",
        "post_attention_layernorm.weight",
        "self_attn.q_a_proj.weight",
        "self_attn.q_a_layernorm.weight",
        "self_attn.q_b_proj.weight",
        "self_attn.kv_a_proj_with_mqa.weight",
        "self_attn.kv_a_layernorm.weight",
        "self_attn.kv_b_proj.weight",
        "self_attn.o_proj.weight",
    ];
    assert_names("deepseek-v3", 2, &[&latent[..], &dense].concat());
    assert_names("deepseek-v3", 3, &[&latent[..], &experts].concat());
    assert_names(
        "olmoe-1b-7b",
        15,
        &[
            "input_layernorm.weight",
            "post_attention_layernorm.weight",
            "self_attn.q_proj.weight",
            "self_attn.k_proj.weight",
            "self_attn.v_proj.weight",
            "self_attn.o_proj.weight",
            "self_attn.q_norm.weight",
            "self_attn.k_norm.weight",
            "mlp.gate.weight",
            "mlp.experts.0.gate_proj.weight",
            "mlp.experts.0.up_proj.weight",
            "mlp.experts.0.down_proj.weight",
        ],
    );
    // The number of tensors of the published index.
    let entry = catalog::find("olmoe-1b-7b").unwrap().unwrap();
    let spec = describe(&Checkpoint::from_catalog(&entry).unwrap()).unwrap();
    assert_eq!(spec.tensors.len(), 3219);
}
