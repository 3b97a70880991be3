//! `fpxint`: expands neural networks into series of low-bit integer terms, and runs, compares and measures them.
//!
//! Exit code 0: done; 1: a threshold was not met; 2: bad use or bad input, told in one line on standard error.

mod args;
mod commands;
mod data;
mod engine;
mod inputs;
mod metrics;
mod progress;
mod table;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};

/// Whether what was asked for holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Done.
    Done,
    /// A threshold was not met.
    BelowThreshold,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            eprintln!("{}", args::one_line(&error));
            return ExitCode::from(2);
        }
        Err(help) => {
            // Help and version; a closed pipe is no failure.
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
    };
    let common = &cli.common;
    let outcome = match &cli.command {
        Command::Demo => commands::demo::run(common),
        Command::Quantize(args) => commands::quantize::run(common, args),
        Command::Run(args) => commands::run::run(common, args),
        Command::Compare(args) => commands::compare::run(common, args),
        Command::Eval(args) => commands::eval::run(common, args),
        Command::Bench(args) => commands::bench::run(common, args),
    };
    match outcome {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::BelowThreshold) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {}", format!("{error:#}").replace(['\n', '\r'], " "));
            ExitCode::from(2)
        }
    }
}
