//! The binary as a user runs it.

// Helpers outside test functions may fail loudly too.
#![allow(clippy::unwrap_used)]

mod common;

mod bad_input;
mod bench;
mod browser;
mod commands;
mod compare;
mod devtools;
mod fit;
mod gate;
mod hostile;
mod hub;
#[path = "../../moescope-model/tests/hub_server.rs"]
mod hub_server;
mod ids_only;
mod inject;
mod interrupted;
mod random;
mod reproducible;
mod saliency;
mod simulate;
mod views;
mod wgpu;
