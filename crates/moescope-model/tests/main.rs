//! Tests of the models as a user of the crate sees them.

// Helpers outside test functions may fail loudly too.
#![allow(clippy::unwrap_used)]

mod common;

mod activations;
mod cache;
mod capacity;
mod catalog;
mod checkpoint;
mod experts;
mod families;
mod footprint;
mod forced;
mod gpt_oss;
mod hub;
mod hub_server;
mod latent;
#[cfg(target_os = "linux")]
mod memory;
mod parity;
mod plain;
mod published;
mod switches;
