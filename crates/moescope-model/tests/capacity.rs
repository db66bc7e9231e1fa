//! Models too large for a device: refused before anything is read, or cut so that they fit.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

use burn::tensor::{Device, DeviceKind};
use moescope_model::{
    Capacity, Checkpoint, DType, Demand, LoadOptions, ModelError, MoeImpl, Part,
    capacity::{Memory, MemoryOf, Room},
    catalog, describe, load, load_within,
};
use serde_json::{Value, json};

use crate::common::{assert_close, fixture, forward_all};

const GIB: u64 = 1 << 30;

fn memory(bytes: u64) -> Capacity {
    Capacity { memory: Some(Memory { bytes, of: MemoryOf::Card }), tensor: None }
}

/// The fixture's config with other sizes.
fn write_config(dir: &Path, folder: &str, sizes: &[(&str, Value)]) {
    let config = fs::read(fixture(folder).join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    for (key, value) in sizes {
        config[key] = value.clone();
    }
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
}

/// A Mixtral of 100 GB in bf16 whose file is all holes: reading one tensor of it would give zeros.
fn write_huge(dir: &Path) -> Checkpoint {
    write_config(
        dir,
        "mixtral",
        &[
            ("hidden_size", json!(4096)),
            ("intermediate_size", json!(16_384)),
            ("num_local_experts", json!(8)),
            ("num_hidden_layers", json!(30)),
            ("num_attention_heads", json!(32)),
            ("num_key_value_heads", json!(8)),
            ("head_dim", json!(128)),
            ("vocab_size", json!(32_000)),
            ("max_position_embeddings", json!(32_768)),
        ],
    );
    let spec = describe(&Checkpoint::open_config(dir).unwrap()).unwrap();
    let (mut header, mut at) = (serde_json::Map::new(), 0);
    for tensor in &spec.tensors {
        let prefix = if tensor.part == Part::Head { "" } else { "model." };
        let bytes = 2 * tensor.parameters();
        let entry =
            json!({"dtype": "BF16", "shape": tensor.shape, "data_offsets": [at, at + bytes]});
        header.insert(format!("{prefix}{}", tensor.name), entry);
        at += bytes;
    }
    assert!(at > 95_000_000_000, "{at}");
    let header = Value::from(header).to_string();
    let mut file = File::create(dir.join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + at).unwrap();
    Checkpoint::open(dir).unwrap()
}

/// What loading says; nothing may have been read.
fn refused(
    checkpoint: &Checkpoint,
    dtype: DType,
    demand: &Demand,
    capacity: &Capacity,
) -> ModelError {
    let options = LoadOptions {
        device: &Device::flex(),
        dtype,
        moe_impl: MoeImpl::Selected,
        progress: &|read, _| panic!("{read} bytes were read"),
    };
    match load_within(checkpoint, &options, demand, capacity) {
        Err(error) => error,
        Ok(_) => panic!("loaded"),
    }
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = write_huge(dir.path());
    let demand = Demand { batch: 2, context: 8192, prompt: 512 };
    let error = refused(&checkpoint, DType::Bf16, &demand, &memory(24 * GIB));
    let ModelError::DoesNotFit(found) = &error else { panic!("{error}") };
    let weights = describe(&checkpoint).unwrap().bytes(DType::Bf16);
    assert_eq!(found.needed.weights, weights);
    let text = error.to_string();
    for part in ["bf16", "2 x 8192", "24.0 GiB free in the memory of the GPU", "--layers "] {
        assert!(text.contains(part), "{text}");
    }
    // What is said to fit does, and one layer more does not.
    let layers = found.fits[0].layers;
    assert!(layers > 0 && layers < 30, "{layers}");
    for (layers, fits) in [(layers, true), (layers + 1, false)] {
        let mut cut = Checkpoint::open(dir.path()).unwrap();
        cut.keep_layers(layers).unwrap();
        let spec = describe(&cut).unwrap();
        let room = Room { dtype: DType::Bf16, demand, on_gpu: false };
        assert_eq!(room.needed(&spec).total() <= 24 * GIB, fits, "{layers} layers");
        assert_eq!(
            room.needed(&spec),
            room.needed(&describe(&checkpoint).unwrap().first_layers(layers))
        );
    }
}

#[test]
fn the_context_and_the_type_that_would_fit_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = write_huge(dir.path());
    let spec = describe(&checkpoint).unwrap();
    // Room for the weights and a little more.
    let capacity = memory(spec.bytes(DType::Bf16) + GIB);
    let demand = Demand { batch: 1, context: 32_768, prompt: 64 };
    let error = refused(&checkpoint, DType::Bf16, &demand, &capacity);
    let ModelError::DoesNotFit(found) = &error else { panic!("{error}") };
    let context = found.fits[0].context;
    assert!(error.to_string().contains(&format!("a context of {context} tokens")), "{error}");
    let room = |context| {
        let demand = Demand { context, ..demand };
        Room { dtype: DType::Bf16, demand, on_gpu: false }
    };
    assert!(room(context).check(&spec, &capacity).is_ok());
    assert!(room(context + 1).check(&spec, &capacity).is_err());

    let error = refused(&checkpoint, DType::F32, &Demand::default(), &capacity).to_string();
    assert!(error.contains("--dtype bf16") && error.contains("--dtype f16"), "{error}");
    let error = refused(&checkpoint, DType::F32, &Demand::default(), &memory(1000)).to_string();
    assert!(error.contains("not even one"), "{error}");
}

#[test]
fn tensors_that_cannot_be_cut_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = write_huge(dir.path());
    let within = |tensor| Capacity { memory: None, tensor: Some(tensor) };
    // Gate and up projection of an expert: 2 x 16384 x 4096 in bf16.
    let error = refused(&checkpoint, DType::Bf16, &Demand::default(), &within(GIB / 8));
    let ModelError::TensorTooLarge { what, bytes, limit, .. } = &error else { panic!("{error}") };
    assert_eq!((*bytes, *limit), (2 * 16_384 * 4096 * 2, GIB / 8));
    assert!(what.contains("expert") && what.contains("layers."), "{what}");
    assert!(error.to_string().contains("256.0 MiB"), "{error}");
    // Half the bytes per weight fit; fewer sequences may.
    let error = refused(&checkpoint, DType::F32, &Demand::default(), &within(GIB / 4)).to_string();
    assert!(error.contains("--dtype f16 would fit"), "{error}");
    let error = refused(
        &checkpoint,
        DType::Bf16,
        &Demand { batch: 16, context: 32_768, prompt: 1 },
        &within(GIB / 4 + 1),
    );
    assert!(error.to_string().contains("a context of"), "{error}");
    let demand = Demand { batch: 16, context: 32_768, prompt: 1 };
    let error = refused(&checkpoint, DType::Bf16, &demand, &within(GIB / 2)).to_string();
    assert!(error.contains("keys of layer") && error.contains("a context of "), "{error}");
}

/// A prompt that follows many tokens has scores for all of them.
#[test]
fn attention_scores_at_a_depth_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let spec = describe(&write_huge(dir.path())).unwrap();
    let room = |context| Room {
        dtype: DType::Bf16,
        demand: Demand { batch: 1, context, prompt: 512 },
        on_gpu: true,
    };
    // 512 queries of 32 heads, f32.
    let limit = GIB;
    let capacity = Capacity { memory: None, tensor: Some(limit) };
    let keys = (limit / (512 * 32 * 4)) as usize;
    assert!(room(keys).check(&spec, &capacity).is_ok());
    let error = room(keys + 1).check(&spec, &capacity).unwrap_err().to_string();
    assert!(error.contains("attention scores of 512 tokens"), "{error}");
    assert!(error.contains("prompts of at most 511 tokens"), "{error}");
    let flex = Room { on_gpu: false, ..room(keys) };
    let scores = |room: Room| room.needed(&spec).activations - flex.needed(&spec).activations;
    assert_eq!(scores(room(keys)), 3 * limit);
}

/// Sizes that no machine has are counted without an overflow, and refused.
#[test]
fn sizes_beyond_counting_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    // Even: heads turn in pairs of columns.
    let most = json!(u32::MAX - 1);
    let sizes = [
        "hidden_size",
        "intermediate_size",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "vocab_size",
        "max_position_embeddings",
    ];
    let sizes = sizes.map(|key| (key, most.clone()));
    write_config(dir.path(), "mixtral", &sizes);
    let spec = describe(&Checkpoint::open_config(dir.path()).unwrap()).unwrap();
    assert_eq!(spec.total_parameters(), u64::MAX);
    assert!(spec.active_parameters() > 1 << 60);
    let demand = Demand { batch: 1 << 20, context: spec.context, prompt: spec.context };
    for on_gpu in [false, true] {
        let room = Room { dtype: DType::F32, demand, on_gpu };
        assert_eq!(room.needed(&spec).total(), u64::MAX);
        assert!(room.check(&spec, &memory(1 << 60)).is_err());
        assert_eq!(room.fit(&spec, 1 << 60).layers, 0);
        let error = room.check(&spec, &Capacity { memory: None, tensor: Some(1 << 60) });
        assert!(error.is_err());
    }
}

/// The models of the catalog, on cards people have.
#[test]
fn what_fits_grows_with_memory() {
    for name in catalog::names() {
        let entry = catalog::find(name).unwrap().unwrap();
        let spec = describe(&Checkpoint::from_catalog(&entry).unwrap()).unwrap();
        let demand = Demand { batch: 1, context: 4096, prompt: 512 };
        let room = Room { dtype: DType::Bf16, demand, on_gpu: true };
        let fits = [8, 24, 80, 2000].map(|gib| room.fit(&spec, gib * GIB));
        for pair in fits.windows(2) {
            assert!(pair[0].layers <= pair[1].layers && pair[0].context <= pair[1].context);
        }
        assert_eq!(fits[3].layers, spec.layers, "{name}");
        assert_eq!(fits[0].context, 0, "{name}");
    }
}

/// One layer, an embedding and a head of 196 MiB each: more than a software adapter binds (128 MiB), and on
/// others cut all the same.
#[test]
fn an_embedding_larger_than_a_binding_on_wgpu() {
    let dir = tempfile::tempdir().unwrap();
    let vocab = 201_000;
    let sizes = [
        ("vocab_size", json!(vocab)),
        ("hidden_size", json!(256)),
        ("num_hidden_layers", json!(1)),
    ];
    write_config(dir.path(), "qwen3-moe", &sizes);
    let tokens = [0, vocab - 1, 100_003, 65_536, 131_071, 131_072];
    let logits = |device: &Device| {
        let mut checkpoint = Checkpoint::open_config(dir.path()).unwrap();
        checkpoint.randomise(3);
        checkpoint.limit_tensors(128 << 20);
        let options = LoadOptions {
            device,
            dtype: DType::F32,
            moe_impl: MoeImpl::Selected,
            progress: &|_, _| {},
        };
        let (model, loaded) = load(&checkpoint, &options).unwrap();
        assert!(loaded.largest <= 128 << 20 && loaded.bytes > 380 << 20, "{loaded:?}");
        forward_all(model.as_ref(), &tokens, 1, &mut moescope_model::Unobserved)
    };
    let want = logits(&Device::flex());
    let got = logits(&Device::wgpu(DeviceKind::DefaultDevice));
    assert_close(&got, &want, 2e-3, "logits");
}
