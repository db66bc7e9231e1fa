//! `moescope`: measure and explain Mixture-of-Experts language models.
//!
//! stdout carries results; progress and notes go to stderr. Exit code 0 is success, 2 an error.

mod args;
mod commands;
mod ui;

use std::process::ExitCode;

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
    // The threads of a decode step outnumber its work if they spin; errors and warnings only by default.
    let filter = tracing_subscriber::EnvFilter::try_from_env("MOESCOPE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match Cli::parse().command.execute() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error);
            ExitCode::from(2)
        }
    }
}
