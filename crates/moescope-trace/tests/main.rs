//! Tests of the run directory from outside: what is written comes back, and what is broken is named.
//!
//! One binary, because each one links polars.

#![allow(clippy::unwrap_used)]

#[path = "main/common.rs"]
mod common;

#[path = "main/background.rs"]
mod background;
#[path = "main/bench.rs"]
mod bench;
#[path = "main/damage.rs"]
mod damage;
#[path = "main/history.rs"]
mod history;
#[path = "main/killed.rs"]
mod killed;
#[path = "main/opening.rs"]
mod opening;
#[path = "main/round_trip.rs"]
mod round_trip;
#[path = "main/together.rs"]
mod together;
#[path = "main/writing.rs"]
mod writing;
