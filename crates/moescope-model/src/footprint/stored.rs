//! Bytes of a checkpoint on disk, by the format of its weights.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::weights::by_part;
use crate::{
    dtype::DType,
    spec::{ModelSpec, Part, Role, TensorSpec},
};

/// How published weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stored {
    /// All in f32.
    F32,
    /// All in f16.
    F16,
    /// All in bf16.
    Bf16,
    /// Projections and experts in 8-bit floats with an f32 scale per block of 128 x 128, embedding, head,
    /// norms and routers in bf16 (DeepSeek-V3).
    Fp8Blocks,
    /// Experts in 4-bit floats with an 8-bit exponent per 32 of them (17 bytes for 32 weights), the rest in
    /// bf16 (gpt-oss).
    Mxfp4,
}

/// Rows and columns that share a scale in [`Stored::Fp8Blocks`].
const FP8_BLOCK: u64 = 128;
/// Weights that share an exponent in [`Stored::Mxfp4`], and the bytes of such a block with it.
const MXFP4_BLOCK: (u64, u64) = (32, 17);

/// Bytes of the stored weights by part, without the headers of files.
pub fn stored(spec: &ModelSpec, format: Stored) -> Vec<(Part, u64)> {
    by_part(spec, |tensor| format.bytes(tensor), u64::saturating_add)
}

impl Stored {
    fn bytes(self, tensor: &TensorSpec) -> u64 {
        let plain = |dtype: DType| tensor.parameters().saturating_mul(dtype.bytes());
        let is = |parts: &[Part]| tensor.role == Role::Matrix && parts.contains(&tensor.part);
        match (self, tensor.shape.as_slice()) {
            (Stored::F32, _) => plain(DType::F32),
            (Stored::F16, _) => plain(DType::F16),
            (Stored::Fp8Blocks, [rows, columns])
                if is(&[Part::Attention, Part::Mlp, Part::Experts, Part::SharedExperts]) =>
            {
                let blocks = |n: &usize| (*n as u64).div_ceil(FP8_BLOCK);
                tensor.parameters() + blocks(rows) * blocks(columns) * DType::F32.bytes()
            }
            // Blocks lie along the inputs, which come before the outputs in the shape.
            (Stored::Mxfp4, [experts, inputs, outputs]) if is(&[Part::Experts]) => {
                let (weights, bytes) = MXFP4_BLOCK;
                (experts * outputs) as u64 * (*inputs as u64).div_ceil(weights) * bytes
            }
            _ => plain(DType::Bf16),
        }
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stored::F32 => "f32",
            Stored::F16 => "f16",
            Stored::Bf16 => "bf16",
            Stored::Fp8Blocks => "FP8 in blocks of 128 x 128, the rest bf16",
            Stored::Mxfp4 => "MXFP4 experts, the rest bf16",
        })
    }
}
