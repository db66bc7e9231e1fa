//! Footprints against what is really allocated.

use burn::tensor::Device;
use moescope_model::{
    Checkpoint, DType, KvCache, LoadOptions, ModelSpec, MoeImpl, Part, catalog, describe,
    footprint::{
        Distinct, PassShape, Stored, flops, flops_per_token, kv_bytes, kv_bytes_per_token, stored,
        traffic, weights,
    },
    load,
};

use crate::common::fixture;

/// Every fixture with weights: all families, and their variants.
const FIXTURES: &[&str] = &[
    "deepseek-v3",
    "gemma3-dense",
    "gemma4-dense",
    "gemma4-moe",
    "gemma4-moe-multimodal-sharded",
    "gemma4-ple-kvshared",
    "glm4-moe",
    "gpt-oss",
    "gpt-oss-mxfp4",
    "mixtral",
    "olmoe",
    "qwen3-moe",
];

fn of_catalog(name: &str) -> ModelSpec {
    let entry = catalog::find(name).unwrap().unwrap();
    describe(&Checkpoint::from_catalog(&entry).unwrap()).unwrap()
}

fn sum(parts: &[(Part, u64)]) -> u64 {
    parts.iter().map(|(_, bytes)| bytes).sum()
}

#[test]
fn weights_take_what_is_loaded() {
    for name in FIXTURES {
        let checkpoint = Checkpoint::open(&fixture(name)).unwrap();
        let spec = describe(&checkpoint).unwrap();
        for dtype in [DType::F32, DType::Bf16] {
            let options = LoadOptions {
                device: &Device::flex(),
                dtype,
                moe_impl: MoeImpl::Selected,
                progress: &|_, _| {},
            };
            let (_, loaded) = load(&checkpoint, &options).unwrap();
            // Scalars stay on the host.
            let scalars = spec.tensors.iter().filter(|t| t.name.ends_with("layer_scalar")).count();
            let want = loaded.bytes + 4 * scalars as u64;
            assert_eq!(sum(&weights(&spec, dtype)), want, "{name} in {dtype}");
        }
    }
}

#[test]
fn the_cache_takes_what_is_allocated() {
    for name in FIXTURES {
        let spec = describe(&Checkpoint::open_config(&fixture(name)).unwrap()).unwrap();
        for (batch, context) in [(1, 1), (1, 5), (3, 16), (2, spec.context)] {
            let cache = KvCache::new(&spec, batch, context, &Device::flex()).unwrap();
            assert_eq!(kv_bytes(&spec, batch, context), cache.bytes(), "{name} {batch} {context}");
        }
        let longest: usize = spec.kv.iter().filter_map(|kv| kv.window).max().unwrap_or(8);
        for context in 1..longest + 3 {
            let grown = kv_bytes(&spec, 1, context + 1) - kv_bytes(&spec, 1, context);
            assert_eq!(grown, kv_bytes_per_token(&spec, context), "{name} after {context}");
        }
    }
}

/// What one token reads is what it multiplies, where the type takes the same bytes for all.
#[test]
fn a_token_reads_what_it_uses() {
    for name in FIXTURES {
        let spec = describe(&Checkpoint::open_config(&fixture(name)).unwrap()).unwrap();
        let one = traffic(&spec, DType::F32, PassShape::decode(1, 0), Distinct::Uniform);
        let untied = spec.tensors.iter().any(|t| t.part == Part::Head);
        let tables: u64 = spec
            .tensors
            .iter()
            .filter(|t| t.name.starts_with("embed_tokens"))
            .filter(|t| untied || t.part == Part::PerLayerEmbedding)
            .map(|t| t.parameters() - t.shape[1] as u64)
            .sum();
        let active: u64 = spec.active_parameters();
        // The published convention may leave the untied table out.
        let counted = match untied && !spec.active_embedding {
            true => active + (spec.vocab * spec.hidden) as u64,
            false => active,
        };
        let weights: f64 = one.parts.iter().map(|(_, bytes)| bytes).sum();
        assert!((weights - (4 * (counted - tables)) as f64).abs() < 64.0, "{name}: {weights}");
        let kv: f64 = spec
            .kv
            .iter()
            .map(|kv| {
                let owner = kv.source.map_or(kv, |source| &spec.kv[source as usize]);
                (owner.heads * (owner.head_dim + owner.value_dim) * 4) as f64
            })
            .sum();
        assert_eq!(one.kv, kv, "{name}");
    }
}

#[test]
fn more_tokens_touch_more_experts_up_to_all() {
    let spec = of_catalog("qwen3-30b-a3b");
    let experts = |tokens: usize, distinct: Distinct<'_>| {
        let read = traffic(&spec, DType::Bf16, PassShape::decode(tokens, 0), distinct);
        read.parts.iter().find(|(part, _)| *part == Part::Experts).unwrap().1
    };
    // 48 layers, 128 experts of 3 x 768 x 2048, top-8.
    let each = 3.0 * 768.0 * 2048.0 * 2.0;
    assert_eq!(experts(1, Distinct::Uniform), 48.0 * 8.0 * each);
    let sixteen = 128.0 * (1.0 - (1.0f64 - 8.0 / 128.0).powi(16));
    assert!((experts(16, Distinct::Uniform) / (48.0 * sixteen * each) - 1.0).abs() < 1e-12);
    assert_eq!(experts(16, Distinct::Measured(&[20.0; 48])), 48.0 * 20.0 * each);
    assert_eq!(experts(16, Distinct::All), experts(100_000, Distinct::Uniform));
}

/// Checkpoint sizes of table 1 of the gpt-oss model card (arXiv 2508.10925): 60.8 and 12.8 GiB.
#[test]
fn stored_bytes_are_the_published_ones() {
    for (name, gib) in [("gpt-oss-120b", "60.8"), ("gpt-oss-20b", "12.8")] {
        let bytes = sum(&stored(&of_catalog(name), Stored::Mxfp4));
        assert_eq!(format!("{:.1}", bytes as f64 / f64::from(1 << 30)), gib, "{name}");
    }
}

/// Twice the active parameters, without the tables that are looked up and without norms.
#[test]
fn products_are_twice_the_active_parameters() {
    let spec = of_catalog("qwen3-30b-a3b");
    let flops = flops_per_token(&spec, 0);
    let table = (spec.vocab * spec.hidden) as u64;
    let norms: u64 =
        spec.tensors.iter().filter(|t| t.part == Part::Norms).map(|t| t.parameters()).sum();
    assert_eq!(flops.products, 2.0 * (spec.active_parameters() - table - norms) as f64);
    // 32 heads of 128, keys and values, one key.
    assert_eq!(flops.attention, 48.0 * 2.0 * 32.0 * 256.0);
    assert_eq!(flops_per_token(&spec, 99).attention, 100.0 * flops.attention);
}

/// A long prompt of DeepSeek-V3 attends over expanded keys: 3.4 times fewer operations per pair of tokens than
/// in the latents' space, where a single token attends.
#[test]
fn latents_are_expanded_or_not() {
    let spec = of_catalog("deepseek-v3");
    let per_pair = |pass: PassShape, pairs: f64| {
        flops(&spec, pass).attention / (pairs * pass.batch as f64 * 61.0 * 128.0)
    };
    assert_eq!(per_pair(PassShape::decode(2, 4095), 4096.0), 2.0 * (512.0 + 64.0 + 512.0));
    let expanded = 2.0 * (128.0 + 64.0 + 128.0);
    assert_eq!(per_pair(PassShape::prefill(1, 512), 512.0 * 513.0 / 2.0), expanded);
    // Latents of the 256 tokens before are expanded again, for each head.
    let pass = PassShape { batch: 1, new: 512, context: 256 };
    let pairs = 512.0 * 256.0 + 512.0 * 513.0 / 2.0;
    let again = 2.0 * 256.0 * 512.0 * 256.0;
    assert!((per_pair(pass, 1.0) - (expanded * pairs + again)).abs() < 1.0);
}
