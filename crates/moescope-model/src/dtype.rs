//! The types weights are held and multiplied in.

use std::{fmt, str::FromStr};

use burn::tensor::FloatDType;
use serde::{Deserialize, Serialize};

/// Type of the weights on the device (`--dtype`).
///
/// The residual stream, norms, router, softmax and accumulations are f32 whatever the weights are. On a GPU
/// what a weight is multiplied with is rounded to its type for the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// 32-bit float.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
}

impl DType {
    /// Bytes per element.
    pub const fn bytes(self) -> u64 {
        match self {
            DType::F32 => 4,
            DType::F16 | DType::Bf16 => 2,
        }
    }

    /// Name as on the command line and in the manifest.
    pub const fn as_str(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::Bf16 => "bf16",
        }
    }

    /// Burn's name for it.
    pub const fn burn(self) -> FloatDType {
        match self {
            DType::F32 => FloatDType::F32,
            DType::F16 => FloatDType::F16,
            DType::Bf16 => FloatDType::BF16,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for DType {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "f32" => Ok(DType::F32),
            "f16" => Ok(DType::F16),
            "bf16" => Ok(DType::Bf16),
            other => Err(format!("unknown type {other:?}; expected f32, f16 or bf16")),
        }
    }
}
