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
use moescope_model::{Checkpoint, DType, MoeImpl, Part, describe};
use serde_json::{Value, json};

use crate::common::{fixture, load_as};

/// Names the model to the process that loads it.
const MODEL: &str = "MOESCOPE_TEST_MEMORY_MODEL";
/// Bytes beside the weights and the largest tensor: two pieces of 16 MiB being read, what they are decoded
/// to, and what the allocator and the threads keep.
const CONSTANT: u64 = 48 << 20;
const SHARDS: usize = 4;

/// A Mixtral of 91 million parameters, half of them in experts that are packed while loading, as `stored`.
///
/// Returns parameters and those of the largest tensor on the device.
fn write_model(dir: &Path, stored: DType) -> (u64, u64) {
    let path = fixture("mixtral").join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let (hidden, inner, experts, vocab) = (512, 1024, 16, 40_000);
    for (key, value) in [
        ("hidden_size", hidden),
        ("intermediate_size", inner),
        ("num_local_experts", experts),
        ("num_hidden_layers", 2),
        ("vocab_size", vocab),
    ] {
        config[key] = json!(value);
    }
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let spec = describe(&Checkpoint::open_config(dir).unwrap()).unwrap();

    let mut shards: Vec<BTreeMap<String, u64>> = vec![BTreeMap::new(); SHARDS];
    let mut shapes = BTreeMap::new();
    for (i, tensor) in spec.tensors.iter().enumerate() {
        let prefix = if tensor.part == Part::Head { "" } else { "model." };
        let name = format!("{prefix}{}", tensor.name);
        shards[i % SHARDS].insert(name.clone(), tensor.parameters() * stored.bytes());
        shapes.insert(name, tensor.shape.clone());
    }
    let small = |i: usize| ((i * 2_654_435_761) % 1000) as f32 / 50_000.0 - 0.01;
    let pattern: Vec<u8> = match stored {
        DType::F32 => (0..1 << 16).flat_map(|i| small(i).to_le_bytes()).collect(),
        _ => (0..1 << 16).flat_map(|i| bf16::from_f32(small(i)).to_le_bytes()).collect(),
    };
    let mut index = serde_json::Map::new();
    for (i, tensors) in shards.iter().enumerate() {
        let file = format!("model-{i}.safetensors");
        let (mut header, mut at) = (serde_json::Map::new(), 0);
        for (name, bytes) in tensors {
            let dtype = if stored == DType::F32 { "F32" } else { "BF16" };
            let entry =
                json!({"dtype": dtype, "shape": shapes[name], "data_offsets": [at, at + bytes]});
            header.insert(name.clone(), entry);
            index.insert(name.clone(), json!(file));
            at += bytes;
        }
        let header = Value::from(header).to_string();
        let mut out = BufWriter::new(File::create(dir.join(file)).unwrap());
        out.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
        out.write_all(header.as_bytes()).unwrap();
        let mut left = at as usize;
        while left > 0 {
            let n = left.min(pattern.len());
            out.write_all(&pattern[..n]).unwrap();
            left -= n;
        }
        out.flush().unwrap();
    }
    let index = json!({"weight_map": index}).to_string();
    fs::write(dir.join("model.safetensors.index.json"), index).unwrap();
    (spec.total_parameters(), (vocab * hidden).max(experts * 2 * inner * hidden) as u64)
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
    for stored in [DType::F32, DType::Bf16] {
        let dir = tempfile::tempdir().unwrap();
        let (parameters, largest) = write_model(dir.path(), stored);
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
