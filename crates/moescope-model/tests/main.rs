//! Tests of the models as a user of the crate sees them.

mod common;

mod cache;
mod checkpoint;
mod experts;
mod parity;
