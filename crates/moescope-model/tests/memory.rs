//! What loading holds on the host: the weights in the type they are held in, and little beside.
//!
//! Measured in a process of its own, by what Linux counts as resident: its own pages and those of mapped files.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
    process::Command,
};

use burn::tensor::Device;
use half::bf16;
use moescope_model::{Checkpoint, DType, MoeImpl, Part, Role, TensorSpec, describe};
use serde_json::{Value, json};

use crate::common::{fixture, load_as};

/// Names the model to the process that loads it.
const MODEL: &str = "MOESCOPE_TEST_MEMORY_MODEL";
/// Bytes beside the weights and the largest tensor: two pieces of 16 MiB being read, what they are decoded
/// to, and what the allocator and the threads keep.
const CONSTANT: u64 = 48 << 20;
const SHARDS: usize = 4;

/// How the weights of a model lie on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    F32,
    Bf16,
    /// Experts in 4 bits, the rest in bf16 (gpt-oss).
    Mxfp4,
    /// Matrices of layers in 8 bits, the rest in bf16 (DeepSeek-V3).
    Fp8,
}

/// A model to load: its fixture, what is larger in it, and how it is stored.
struct Case {
    fixture: &'static str,
    sizes: &'static [(&'static str, u64)],
    stored: Stored,
}

const MIXTRAL: &[(&str, u64)] = &[
    ("hidden_size", 512),
    ("intermediate_size", 1024),
    ("num_local_experts", 16),
    ("num_hidden_layers", 2),
    ("vocab_size", 40_000),
];
/// `layer_types` of the fixture ask for two layers.
const GPT_OSS: &[(&str, u64)] = &[
    ("hidden_size", 512),
    ("intermediate_size", 1024),
    ("num_local_experts", 24),
    ("vocab_size", 8000),
];
const DEEPSEEK: &[(&str, u64)] = &[
    ("hidden_size", 512),
    ("intermediate_size", 1024),
    ("moe_intermediate_size", 1024),
    ("n_routed_experts", 24),
    ("q_lora_rank", 256),
    ("kv_lora_rank", 256),
    ("vocab_size", 8000),
];

/// Models of 80 to 90 million parameters, most of them in experts: packed while loading, laid out in another way,
/// decoded.
const CASES: &[Case] = &[
    Case { fixture: "mixtral", sizes: MIXTRAL, stored: Stored::F32 },
    Case { fixture: "mixtral", sizes: MIXTRAL, stored: Stored::Bf16 },
    Case { fixture: "gpt-oss-mxfp4", sizes: GPT_OSS, stored: Stored::Bf16 },
    Case { fixture: "gpt-oss-mxfp4", sizes: GPT_OSS, stored: Stored::Mxfp4 },
    Case { fixture: "deepseek-v3", sizes: DEEPSEEK, stored: Stored::Fp8 },
];

/// A tensor of a file: its type there, shape, and bytes.
struct InFile {
    dtype: &'static str,
    shape: Vec<usize>,
    bytes: u64,
}

impl InFile {
    fn new(dtype: &'static str, shape: Vec<usize>) -> Self {
        let width = match dtype {
            "F32" => 4,
            "BF16" => 2,
            _ => 1,
        };
        let bytes = shape.iter().map(|&n| n as u64).product::<u64>() * width;
        InFile { dtype, shape, bytes }
    }
}

/// What a tensor of the model is in the files.
fn in_files(name: &str, tensor: &TensorSpec, stored: Stored) -> Vec<(String, InFile)> {
    let plain = |dtype| vec![(name.to_owned(), InFile::new(dtype, tensor.shape.clone()))];
    let layer = tensor.role == Role::Matrix && tensor.layer.is_some();
    match (stored, tensor.shape.as_slice()) {
        (Stored::F32, _) => plain("F32"),
        (Stored::Mxfp4, &[experts, inner, rows]) if tensor.part == Part::Experts => {
            let blocks = vec![experts, rows, inner / 32, 16];
            vec![
                (format!("{name}_scales"), InFile::new("U8", blocks[..3].to_vec())),
                (format!("{name}_blocks"), InFile::new("U8", blocks)),
            ]
        }
        (Stored::Fp8, &[rows, columns]) if layer && tensor.part != Part::Router => {
            let scales = vec![rows.div_ceil(128), columns.div_ceil(128)];
            let mut both = plain("F8_E4M3");
            both.push((format!("{name}_scale_inv"), InFile::new("F32", scales)));
            both
        }
        _ => plain("BF16"),
    }
}

/// Bytes that are sound in a type, over and over.
fn pattern(dtype: &str) -> Vec<u8> {
    let small = |i: usize| ((i * 2_654_435_761) % 1000) as f32 / 50_000.0 - 0.01;
    match dtype {
        "F32" => (0..1 << 16).flat_map(|i| small(i).to_le_bytes()).collect(),
        "BF16" => (0..1 << 16).flat_map(|i| bf16::from_f32(small(i)).to_le_bytes()).collect(),
        // 8-bit floats, exponents of two and pairs of 4-bit floats, all of them finite.
        _ => (0..1usize << 16).map(|i| 0x30 + (i * 37 % 64) as u8).collect(),
    }
}

/// Returns parameters and those of the largest tensor on the device.
fn write_model(dir: &Path, case: &Case) -> (u64, u64) {
    let path = fixture(case.fixture).join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    for (key, value) in case.sizes {
        config[*key] = json!(value);
    }
    config["quantization_config"] = match case.stored {
        Stored::F32 | Stored::Bf16 => json!(null),
        Stored::Mxfp4 => json!({"quant_method": "mxfp4"}),
        Stored::Fp8 => json!({"quant_method": "fp8", "weight_block_size": [128, 128]}),
    };
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let spec = describe(&Checkpoint::open_config(dir).unwrap()).unwrap();

    let mut shards: Vec<BTreeMap<String, InFile>> = (0..SHARDS).map(|_| BTreeMap::new()).collect();
    let mut packed: BTreeMap<u16, u64> = BTreeMap::new();
    let mut largest = 0;
    for (i, tensor) in spec.tensors.iter().enumerate() {
        let prefix = if tensor.part == Part::Head { "" } else { "model." };
        let name = format!("{prefix}{}", tensor.name);
        shards[i % SHARDS].extend(in_files(&name, tensor, case.stored));
        largest = largest.max(tensor.parameters());
        // Gates and up projections of all experts of a layer become one tensor.
        let joins = ["w1.", "w3.", "gate_proj.", "up_proj."].iter().any(|w| name.contains(w));
        if let (Part::Experts, Some(layer), true) = (tensor.part, tensor.layer, joins) {
            *packed.entry(layer).or_default() += tensor.parameters();
        }
    }
    let mut index = serde_json::Map::new();
    for (i, tensors) in shards.iter().enumerate() {
        let file = format!("model-{i}.safetensors");
        let (mut header, mut at) = (serde_json::Map::new(), 0);
        for (name, tensor) in tensors {
            let end = at + tensor.bytes;
            let entry = json!({
                "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [at, end],
            });
            header.insert(name.clone(), entry);
            index.insert(name.clone(), json!(file));
            at = end;
        }
        let header = Value::from(header).to_string();
        let mut out = BufWriter::new(File::create(dir.join(file)).unwrap());
        out.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
        out.write_all(header.as_bytes()).unwrap();
        for tensor in tensors.values() {
            let pattern = pattern(tensor.dtype);
            let mut left = tensor.bytes as usize;
            while left > 0 {
                let n = left.min(pattern.len());
                out.write_all(&pattern[..n]).unwrap();
                left -= n;
            }
        }
        out.flush().unwrap();
    }
    let index = json!({"weight_map": index}).to_string();
    fs::write(dir.join("model.safetensors.index.json"), index).unwrap();
    (spec.total_parameters(), packed.into_values().fold(largest, u64::max))
}

/// A line of `/proc/self/status`, in bytes.
fn status(key: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Loads what the environment names, and prints by how much the peak grew.
fn load_and_print(model: &str) {
    // What the device and the threads need is there before the first weight.
    load_as(&fixture("mixtral"), &Device::flex(), MoeImpl::Selected, DType::Bf16);
    let before = status("VmRSS");
    let peak_before = status("VmHWM");
    let model = load_as(Path::new(model), &Device::flex(), MoeImpl::Selected, DType::Bf16);
    // A peak from before the load would hide its own.
    assert!(status("VmHWM") > peak_before);
    println!("grown {} held {}", status("VmHWM") - before, status("VmRSS") - before);
    drop(model);
}

#[test]
fn loading_holds_the_weights_and_the_largest_tensor() {
    if let Ok(model) = std::env::var(MODEL) {
        return load_and_print(&model);
    }
    for case in CASES {
        let dir = tempfile::tempdir().unwrap();
        let (parameters, largest) = write_model(dir.path(), case);
        let stored = format!("{} in {:?}", case.fixture, case.stored);
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "memory::loading_holds_the_weights_and_the_largest_tensor"])
            .args(["--nocapture", "--test-threads", "1"])
            .env(MODEL, dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        let number = |key: &str| -> u64 {
            let words = said.split_whitespace();
            words.skip_while(|word| !word.ends_with(key)).nth(1).unwrap().parse().unwrap()
        };
        let (grown, held) = (number("grown"), number("held"));
        let weights = parameters * DType::Bf16.bytes();
        let most = weights + largest * DType::Bf16.bytes() + CONSTANT;
        let mib = |bytes: u64| bytes >> 20;
        println!(
            "{stored} to bf16: {} MiB of weights, largest tensor {} MiB, peak {} MiB, then {} MiB",
            mib(weights),
            mib(largest * 2),
            mib(grown),
            mib(held)
        );
        assert!(grown <= most, "{stored}: grew by {grown}, of at most {most}");
        // It was there at all.
        assert!(grown >= weights, "{stored}: grew by {grown}, less than {weights} of weights");
    }
}
