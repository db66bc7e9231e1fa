//! The parts decoders are made of, one file each.
//!
//! A part has a shape (what its config says), which declares the part's tensors and loads them, and a
//! loaded form that runs. A family reads its config into shapes and wires them; what only one
//! family does stays in that family's file.

pub(crate) mod attention;
pub(crate) mod config;
pub(crate) mod decoder;
pub(crate) mod latent;
pub(crate) mod layer;
pub(crate) mod mlp;
pub(crate) mod moe;
pub(crate) mod packed;
pub(crate) mod sigmoid;
pub(crate) mod tensors;
