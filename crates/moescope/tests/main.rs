//! The binary as a user runs it.

mod common;

mod bad_input;
mod browser;
mod commands;
mod hostile;
mod interrupted;
mod reproducible;
