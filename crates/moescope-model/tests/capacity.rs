//! Models too large for a device: refused before anything is read, or cut so that they fit.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

use burn::tensor::{Device, DeviceKind};
use moescope_model::{
    Capacity, Checkpoint, DType, Demand, LoadOptions, ModelError, ModelSpec, MoeImpl, Part,
    capacity::{DTypes, Fit, Memory, MemoryOf, Room},
    catalog, describe, load, load_within,
};
use serde_json::{Value, json};

use crate::common::{assert_close, fixture, forward_all};

const GIB: u64 = 1 << 30;

fn memory(bytes: u64) -> Capacity {
    Capacity { memory: Some(Memory { bytes, of: MemoryOf::Card }), ..Capacity::default() }
}

/// A device that binds at most so much.
fn binding(bytes: u64) -> Capacity {
    Capacity { tensor: Some(bytes), ..Capacity::default() }
}

/// The fixture's config with other sizes.
pub(crate) fn write_config(dir: &Path, folder: &str, sizes: &[(&str, Value)]) {
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
    let demand = Demand { batch: 2, context: 8192, prompt: 512, scored: 0 };
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
    let demand = Demand { batch: 1, context: 32_768, prompt: 64, scored: 0 };
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
    // Gate and up projection of an expert: 2 x 16384 x 4096 in bf16.
    let error = refused(&checkpoint, DType::Bf16, &Demand::default(), &binding(GIB / 8));
    let ModelError::TensorTooLarge { what, bytes, limit, .. } = &error else { panic!("{error}") };
    assert_eq!((*bytes, *limit), (2 * 16_384 * 4096 * 2, GIB / 8));
    assert!(what.contains("expert") && what.contains("layers."), "{what}");
    assert!(error.to_string().contains("256.0 MiB"), "{error}");
    // Half the bytes per weight fit; fewer sequences may.
    let error = refused(&checkpoint, DType::F32, &Demand::default(), &binding(GIB / 4)).to_string();
    assert!(error.contains("--dtype f16 would fit"), "{error}");
    let error = refused(
        &checkpoint,
        DType::Bf16,
        &Demand { batch: 16, context: 32_768, prompt: 1, scored: 0 },
        &binding(GIB / 4 + 1),
    );
    assert!(error.to_string().contains("a context of"), "{error}");
    let demand = Demand { batch: 16, context: 32_768, prompt: 1, scored: 0 };
    let error = refused(&checkpoint, DType::Bf16, &demand, &binding(GIB / 2)).to_string();
    assert!(error.contains("keys of layer") && error.contains("a context of "), "{error}");
}

/// What is suggested can be used: types of the device, and never what would not fit either.
#[test]
fn only_types_of_the_device_are_suggested() {
    let dir = tempfile::tempdir().unwrap();
    let spec = describe(&write_huge(dir.path())).unwrap();
    let room = Room { dtype: DType::F32, demand: Demand::default(), on_gpu: true };
    let says = |capacity: Capacity, f16: bool, bf16: bool| {
        let capacity = Capacity { dtypes: DTypes { f16, bf16 }, ..capacity };
        room.check(&spec, &capacity).unwrap_err().to_string()
    };
    let half = memory(spec.bytes(DType::Bf16) + GIB);
    let error = says(half, true, false);
    assert!(error.contains("--dtype f16") && !error.contains("bf16"), "{error}");
    let error = says(half, false, false);
    assert!(error.contains("--layers ") && !error.contains("--dtype"), "{error}");
    // An expert of 512 MiB in f32, where 256 can be bound.
    let error = says(binding(GIB / 4), false, true);
    assert!(error.contains("--dtype bf16 would fit"), "{error}");
    let error = says(binding(GIB / 4), false, false);
    let needed = "not even one token fits; a device that binds 512.0 MiB";
    assert!(error.contains(needed) && error.contains("--device flex"), "{error}");
    let error = says(binding(GIB / 8), true, true);
    assert!(error.contains("a device that binds 256.0 MiB"), "{error}");
    // In half the type the expert fits, the keys of so many sequences do not.
    let demand = Demand { batch: 16, context: 32_768, prompt: 1, scored: 0 };
    let room = Room { demand, ..room };
    let error = room.check(&spec, &binding(GIB / 4)).unwrap_err().to_string();
    assert!(error.contains("a context of 4096 tokens would fit, with --dtype f16"), "{error}");
}

/// A prompt that follows many tokens has scores for all of them.
#[test]
fn attention_scores_at_a_depth_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let spec = describe(&write_huge(dir.path())).unwrap();
    let room = |context| Room {
        dtype: DType::Bf16,
        demand: Demand { batch: 1, context, prompt: 512, scored: 0 },
        on_gpu: true,
    };
    // 512 queries of 32 heads, f32.
    let limit = GIB;
    let capacity = binding(limit);
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
    let all = spec.context;
    let demand = Demand { batch: 1 << 20, context: all, prompt: all, scored: all };
    for on_gpu in [false, true] {
        let room = Room { dtype: DType::F32, demand, on_gpu };
        assert_eq!(room.needed(&spec).total(), u64::MAX);
        assert!(room.check(&spec, &memory(1 << 60)).is_err());
        assert_eq!(room.fit(&spec, &memory(1 << 60)).layers, 0);
        let error = room.check(&spec, &binding(1 << 60));
        assert!(error.is_err());
    }
}

/// The models of the catalog, on cards people have.
#[test]
fn what_fits_grows_with_memory() {
    for name in catalog::names() {
        let spec = of_catalog(name);
        let demand = Demand { batch: 1, context: 4096, prompt: 512, scored: 0 };
        let room = Room { dtype: DType::Bf16, demand, on_gpu: true };
        let fits = [8, 24, 80, 2000].map(|gib| room.fit(&spec, &memory(gib * GIB)));
        for pair in fits.windows(2) {
            assert!(pair[0].layers <= pair[1].layers && pair[0].context <= pair[1].context);
        }
        assert_eq!(fits[3].layers, spec.layers, "{name}");
        assert_eq!(fits[0].context, 0, "{name}");
    }
}

fn of_catalog(name: &str) -> ModelSpec {
    let entry = catalog::find(name).unwrap().unwrap();
    describe(&Checkpoint::from_catalog(&entry).unwrap()).unwrap()
}

/// What can't be cut counts as much as memory, also where there is plenty of that.
#[test]
fn what_fits_respects_the_largest_binding() {
    let demand = Demand { batch: 1, context: 4096, prompt: 512, scored: 0 };
    let plenty = |tensor: u64| Capacity { tensor: Some(tensor), ..memory(4000 * GIB) };
    // An expert of Mixtral: 2 x 14336 x 4096 in f32.
    let (mixtral, expert) = (of_catalog("mixtral-8x7b"), 448 << 20);
    let room = Room { dtype: DType::F32, demand, on_gpu: true };
    let fit = |tensor| room.fit(&mixtral, &plenty(tensor));
    assert_eq!(fit(expert - 1), Fit { dtype: DType::F32, layers: 0, context: 0 });
    assert_eq!(fit(expert), Fit { dtype: DType::F32, layers: 32, context: 7168 });
    assert_eq!(room.largest(&mixtral).bytes, expert);
    // Scores of Gemma 4: 16 heads x 512 tokens x the context, in f32.
    let room = Room { dtype: DType::Bf16, ..room };
    let gemma = of_catalog("gemma-4-26b-a4b");
    assert_eq!(room.fit(&gemma, &plenty(2 * GIB)).context, 65_536);
    assert_eq!(room.fit(&gemma, &plenty(8 * GIB)).context, 262_144);
}

/// Everything `fit` says holds: so much fits, and one more does not.
#[test]
fn what_is_said_to_fit_does_and_no_more() {
    let demand = Demand { batch: 1, context: 4096, prompt: 512, scored: 128 };
    for name in catalog::names() {
        let spec = of_catalog(name);
        for (gib, tensor) in [(24, 128 << 20), (24, 2 * GIB), (96, GIB), (3000, 4 * GIB)] {
            let capacity = Capacity { tensor: Some(tensor), ..memory(gib * GIB) };
            for on_gpu in [false, true] {
                let room = Room { dtype: DType::Bf16, demand, on_gpu };
                let fit = room.fit(&spec, &capacity);
                let about = format!("{name}, {gib} GiB, {tensor} bytes: {fit:?}");
                let layers = |n: usize| room.check(&spec.first_layers(n), &capacity).is_ok();
                assert!(fit.layers == 0 || layers(fit.layers), "{about}");
                assert!(fit.layers == spec.layers || !layers(fit.layers + 1), "{about}");
                let context = |context: usize| {
                    let demand = Demand { context, prompt: 512.min(context), ..demand };
                    Room { demand, ..room }.check(&spec, &capacity).is_ok()
                };
                assert!(fit.context == 0 || context(fit.context), "{about}");
                assert!(fit.context == spec.context || !context(fit.context + 1), "{about}");
            }
        }
    }
}

/// Rows that are scored at once are logits in one tensor, and memory.
#[test]
fn scored_rows_are_counted() {
    let spec = of_catalog("gemma-4-26b-a4b");
    let room = |scored, on_gpu| Room {
        dtype: DType::Bf16,
        demand: Demand { batch: 1, context: 512, prompt: 512, scored },
        on_gpu,
    };
    let logits = 256 * 262_144 * 4;
    assert_eq!(room(256, true).largest(&spec).bytes, logits);
    assert!(room(256, true).check(&spec, &binding(logits)).is_ok());
    let error = room(257, true).check(&spec, &binding(logits)).unwrap_err().to_string();
    assert!(error.contains("logits of 257 tokens"), "{error}");
    let needed = |scored, on_gpu| room(scored, on_gpu).needed(&spec).activations;
    assert!(needed(256, true) > 3 * logits && needed(256, false) > logits);
    assert!(needed(0, false) < needed(256, false));
    // A prompt of 512 tokens has 511 that are scored.
    assert_eq!(needed(511, true), needed(4096, true));
}

/// Logits of `tokens` by a model with random weights, in tensors of at most `limit` bytes.
fn logits_within(dir: &Path, device: &Device, limit: u64, tokens: &[u32]) -> (Vec<f32>, u64) {
    let mut checkpoint = Checkpoint::open_config(dir).unwrap();
    checkpoint.randomise(3);
    checkpoint.limit_tensors(limit);
    let (dtype, moe_impl) = (DType::F32, MoeImpl::Selected);
    let options = LoadOptions { device, dtype, moe_impl, progress: &|_, _| {} };
    let (model, loaded) = load(&checkpoint, &options).unwrap();
    assert!(loaded.largest <= limit, "{loaded:?}");
    let logits = forward_all(model.as_ref(), tokens, 1, &mut moescope_model::Unobserved);
    (logits, loaded.bytes)
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
    let logits = |device: &Device| logits_within(dir.path(), device, 128 << 20, &tokens);
    let (want, bytes) = logits(&Device::flex());
    assert!(bytes > 380 << 20, "{bytes}");
    let (got, _) = logits(&Device::wgpu(DeviceKind::DefaultDevice));
    assert_close(&got, &want, 2e-3, "logits");
}

/// One table for both ends, in many pieces: rows come from all of them, and so do columns of the logits.
#[test]
fn a_tied_embedding_in_pieces_on_wgpu() {
    let dir = tempfile::tempdir().unwrap();
    let vocab = 20_000;
    let sizes = [("vocab_size", json!(vocab)), ("tie_word_embeddings", json!(true))];
    write_config(dir.path(), "gemma4-moe", &sizes);
    let spec = describe(&Checkpoint::open_config(dir.path()).unwrap()).unwrap();
    assert!(spec.is_tied());
    let limit = 256 << 10;
    let table = (vocab as usize * spec.hidden * 4) as u64;
    assert!(table > 14 * limit, "{table}");
    let tokens: Vec<u32> = (0..40).map(|i| i * 7919 % vocab).chain([0, vocab - 1]).collect();
    let (want, _) = logits_within(dir.path(), &Device::flex(), u64::MAX, &tokens);
    for device in [Device::flex(), Device::wgpu(DeviceKind::DefaultDevice)] {
        let (got, _) = logits_within(dir.path(), &device, limit, &tokens);
        assert_close(&got, &want, 2e-3, "logits");
    }
}
