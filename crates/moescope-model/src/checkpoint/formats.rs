//! Formats of weights: the quantised ones that are read, and the name of what is not.

use std::{fmt, fs::File, io::Read, path::Path};

use serde_json::{Map, Value};

use super::shards::Shard;
use crate::error::{ModelError, Result};

/// Checkpoint files of formats that are not read, by file extension.
const EXTENSIONS: &[(&str, &str)] = &[
    ("gguf", "GGUF"),
    ("ggml", "GGML"),
    ("bin", "PyTorch pickle (.bin)"),
    ("pt", "PyTorch pickle (.pt)"),
    ("pth", "PyTorch pickle (.pth)"),
    ("ckpt", "PyTorch pickle (.ckpt)"),
    ("pickle", "PyTorch pickle (.pickle)"),
    ("onnx", "ONNX"),
    ("h5", "Keras (.h5)"),
    ("msgpack", "Flax (.msgpack)"),
    ("npz", "NumPy (.npz)"),
];

/// First bytes of files that are not safetensors, whatever they are called.
const MAGIC: &[(&[u8], &str)] = &[
    (b"GGUF", "GGUF"),
    (b"ggml", "GGML"),
    (b"PK\x03\x04", "PyTorch pickle (zip archive)"),
    (b"\x80\x02", "PyTorch pickle"),
    (b"\x89HDF", "Keras (HDF5)"),
    (
        b"version https://git-lfs",
        "Git LFS pointer (the weights themselves were not fetched: `git lfs pull`)",
    ),
];

/// Quantisation methods by the name transformers gives them (`quantization_config.quant_method`).
const METHODS: &[(&str, &str)] = &[
    ("gptq", "GPTQ"),
    ("awq", "AWQ"),
    ("bitsandbytes", "bitsandbytes"),
    ("bitsandbytes_4bit", "bitsandbytes"),
    ("bitsandbytes_8bit", "bitsandbytes"),
    ("compressed-tensors", "compressed-tensors"),
    ("compressed_tensors", "compressed-tensors"),
    ("exl2", "EXL2"),
    ("exl3", "EXL3"),
    ("aqlm", "AQLM"),
    ("hqq", "HQQ"),
    ("quanto", "Quanto"),
    ("torchao", "torchao"),
    ("eetq", "EETQ"),
    ("higgs", "HIGGS"),
    ("quark", "Quark"),
    ("modelopt", "ModelOpt"),
    ("fbgemm_fp8", "FP8 with one scale per row (FBGEMM)"),
    ("fp8", "FP8 without blocks"),
];

/// Tensors that only a quantised checkpoint has, by the end of their name. Their weights can't be read
/// without knowing the format, even where the config does not tell it.
const TENSORS: &[(&str, &str)] = &[
    (".qweight", "GPTQ or AWQ"),
    (".q_weight", "EXL2"),
    (".trellis", "EXL3"),
    (".weight_packed", "compressed-tensors"),
    (".SCB", "bitsandbytes (8 bit)"),
    (".weight.absmax", "bitsandbytes (4 bit)"),
    (".weight.quant_map", "bitsandbytes (4 bit)"),
    (".codebooks", "AQLM"),
    (".weight_scale", "FP8 or INT8 with one scale per tensor or row"),
];

/// The one architecture whose published checkpoints are in MXFP4, and whose experts are read from it.
const MXFP4_ARCHITECTURE: &str = "GptOssForCausalLM";

/// A quantised format that is decoded while loading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantisation {
    /// `float8_e4m3fn` with one f32 scale per block of rows and columns (DeepSeek-V3).
    Fp8Blocks {
        /// Rows and columns of a block.
        block: [usize; 2],
    },
    /// 4-bit floats with one 8-bit exponent per 32 of them (gpt-oss).
    Mxfp4,
}

impl fmt::Display for Quantisation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Quantisation::Fp8Blocks { block: [rows, columns] } => {
                write!(f, "FP8 in blocks of {rows} x {columns}, decoded on load")
            }
            Quantisation::Mxfp4 => f.write_str("MXFP4, decoded on load"),
        }
    }
}

/// Takes what says how weights are quantised out of a config.
///
/// # Errors
///
/// [`ModelError::Quantised`] with the format's name if it is not read.
pub(crate) fn take_quantisation(
    path: &Path,
    config: &mut Map<String, Value>,
) -> Result<Option<Quantisation>> {
    let refused = |format: &str, seen: String| ModelError::Quantised {
        path: path.to_owned(),
        format: format.to_owned(),
        seen,
    };
    // MLX writes its own key, and the usual one as a copy.
    if let Some(mlx) = config.get("quantization").filter(|value| value.is_object()) {
        return Err(refused("MLX", format!("`quantization` = {mlx}")));
    }
    const KEYS: [&str; 3] = ["quantization_config", "compression_config", "quantization"];
    for key in KEYS {
        if config.get(key).is_some_and(Value::is_null) {
            config.remove(key);
        }
    }
    let key = KEYS.into_iter().find(|key| config.contains_key(*key));
    let Some(key) = key else { return Ok(None) };
    let text = |value: &Value, name: &str| Some(value.get(name)?.as_str()?.to_owned());
    let settings = &config[key];
    let Some(method) = text(settings, "quant_method") else {
        let method = text(settings, "quant_algo").unwrap_or_else(|| "an unnamed format".into());
        return Err(refused(&method, format!("`{key}` without quant_method")));
    };
    let block = settings.get("weight_block_size").filter(|block| !block.is_null());
    let quantisation = match (method.as_str(), block) {
        ("mxfp4", _) => match config.get("architectures").and_then(|list| list.get(0)) {
            Some(Value::String(other)) if other != MXFP4_ARCHITECTURE => {
                let seen = format!("`{key}.quant_method` = \"mxfp4\" of a {other}");
                return Err(refused("MXFP4 outside gpt-oss", seen));
            }
            _ => Quantisation::Mxfp4,
        },
        ("fp8", Some(block)) if text(settings, "fmt").is_none_or(|fmt| fmt == "e4m3") => {
            match serde_json::from_value::<[usize; 2]>(block.clone()) {
                Ok(block) if !block.contains(&0) => Quantisation::Fp8Blocks { block },
                _ => {
                    return Err(ModelError::Config {
                        path: path.to_owned(),
                        key: format!("{key}.weight_block_size"),
                        expected: "rows and columns of a block".into(),
                        found: block.to_string(),
                    });
                }
            }
        }
        _ => {
            let known = METHODS.iter().find(|(name, _)| *name == method);
            let format = known.map_or(method.as_str(), |(_, format)| *format);
            return Err(refused(format, format!("`{key}.quant_method` = \"{method}\"")));
        }
    };
    config.remove(key);
    Ok(Some(quantisation))
}

/// Refuses shards whose tensors give a quantised format away that the config did not name.
///
/// # Errors
///
/// [`ModelError::Quantised`] with the format and the tensor.
pub(crate) fn check_tensors(shards: &[Shard]) -> Result<()> {
    for shard in shards {
        for (name, info) in shard.metadata.tensors() {
            let Some((_, format)) = TENSORS.iter().find(|(end, _)| name.ends_with(end)) else {
                continue;
            };
            return Err(ModelError::Quantised {
                path: shard.path.clone(),
                format: (*format).to_owned(),
                seen: format!("tensor {name:?} of type {:?}", info.dtype),
            });
        }
    }
    Ok(())
}

/// The format of a file that is not safetensors: by its name, else by its first bytes.
pub(crate) fn other_format(path: &Path) -> Option<&'static str> {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.and_then(format_of_extension).or_else(|| magic(path))
}

/// The format of the first file in `dir`, in name order, that is a checkpoint of another kind.
pub(crate) fn other_format_in(dir: &Path) -> Option<&'static str> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().find_map(|path| format_of_extension(path.extension()?.to_str()?))
}

/// The format of files with this extension, if it is one that is not read.
pub(crate) fn format_of_extension(extension: &str) -> Option<&'static str> {
    EXTENSIONS.iter().find(|(known, _)| *known == extension).map(|(_, format)| *format)
}

/// The format that the first bytes of a file give away.
pub(crate) fn magic(path: &Path) -> Option<&'static str> {
    let mut start = [0; 24];
    let mut file = File::open(path).ok()?;
    let mut len = 0;
    while let Ok(n @ 1..) = file.read(&mut start[len..]) {
        len += n;
    }
    MAGIC.iter().find(|(magic, _)| start[..len].starts_with(magic)).map(|(_, format)| *format)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn take(config: Value) -> Result<Option<Quantisation>> {
        let mut map = config.as_object().unwrap().clone();
        let found = take_quantisation(Path::new("config.json"), &mut map)?;
        assert!(!map.contains_key("quantization_config"), "honoured, so taken");
        Ok(found)
    }

    #[test]
    fn formats_that_are_decoded() {
        assert_eq!(take(json!({})).unwrap(), None);
        assert_eq!(take(json!({"quantization_config": null})).unwrap(), None);
        let deepseek = json!({"quantization_config": {
            "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
            "weight_block_size": [128, 128],
        }});
        let fp8 = Quantisation::Fp8Blocks { block: [128, 128] };
        assert_eq!(take(deepseek).unwrap(), Some(fp8));
        let gpt_oss = json!({"architectures": ["GptOssForCausalLM"], "quantization_config": {
            "modules_to_not_convert": ["model.layers.*.self_attn"], "quant_method": "mxfp4",
        }});
        assert_eq!(take(gpt_oss).unwrap(), Some(Quantisation::Mxfp4));
    }

    #[test]
    fn formats_that_are_not_read_are_named() {
        let method = |name: &str| json!({"quantization_config": {"quant_method": name, "bits": 4}});
        for (config, says) in [
            (method("gptq"), "GPTQ"),
            (method("awq"), "AWQ"),
            (method("bitsandbytes"), "bitsandbytes"),
            (method("compressed-tensors"), "compressed-tensors"),
            (method("exl2"), "EXL2"),
            (method("fp8"), "FP8 without blocks"),
            (
                json!({"quantization_config": {"quant_method": "fp8", "weight_block_size": null}}),
                "FP8 without blocks",
            ),
            (
                json!({
                    "architectures": ["MixtralForCausalLM"],
                    "quantization_config": {"quant_method": "mxfp4"},
                }),
                "MXFP4 outside gpt-oss (`quantization_config.quant_method` = \"mxfp4\" of a Mixtral",
            ),
            (method("quip#"), "quip#"),
            (json!({"quantization_config": {"bits": 4}}), "unnamed"),
            (json!({"quantization_config": {"quant_algo": "NVFP4"}}), "NVFP4"),
            (json!({"quantization": {"group_size": 64, "bits": 4}}), "MLX"),
            (json!({"compression_config": {"quant_method": "compressed-tensors"}}), "compressed"),
        ] {
            let error = take(config).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("config.json"), "{error}");
        }
        let odd = json!({"quantization_config": {
            "quant_method": "fp8", "weight_block_size": [128, 0],
        }});
        assert!(take(odd).unwrap_err().to_string().contains("weight_block_size"));
        let e5m2 = json!({"quantization_config": {
            "quant_method": "fp8", "fmt": "e5m2", "weight_block_size": [128, 128],
        }});
        assert!(take(e5m2).unwrap_err().to_string().contains("FP8"));
    }
}
