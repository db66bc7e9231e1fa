//! `moescope`: measure and explain Mixture-of-Experts language models.
//!
//! stdout carries results; progress and notes go to stderr. Exit code 0 is success, 1 a regression that
//! `gate` found, 2 an error.

mod args;
mod commands;
#[cfg(test)]
mod documented;
mod model;
mod quantity;
mod ui;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser;

use crate::{args::Command, ui::print_error};

/// Measure and explain Mixture-of-Experts language models: which experts ran for every token, how long it
/// took and how much memory it held.
#[derive(Parser)]
#[command(name = "moescope", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    quiet_display_probe();
    // Libraries speak up only when asked to: MOESCOPE_LOG=debug.
    let filter = tracing_subscriber::EnvFilter::try_from_env("MOESCOPE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match Cli::parse_from(std::env::args_os().map(as_llama_bench)).command.execute() {
        Ok(code) => code,
        Err(error) => {
            print_error(&error);
            ExitCode::from(2)
        }
    }
}

/// llama-bench has an option `-pg`, which users of it will type: ours is `--pg`. As `-p g` it means nothing.
fn as_llama_bench(argument: OsString) -> OsString {
    if argument == "-pg" { "--pg".into() } else { argument }
}

/// Vulkan's device-selection layer asks a display server which GPU it uses and prints an error where a
/// machine has none (a server, a container). Any directory at all keeps it quiet.
fn quiet_display_probe() {
    if cfg!(target_os = "linux") && std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: the first thing `main` does; no other thread runs yet.
        unsafe { std::env::set_var("XDG_RUNTIME_DIR", std::env::temp_dir()) };
    }
}
