//! `fpxint`: expands neural networks into series of low-bit integer terms, and runs, compares and measures them.
//!
//! Exit code 0: done; 1: a threshold was not met; 2: bad use or bad input, told in one line on standard error.
//!
//! [`main`] is the command; [`ensemble`] runs some of it in several processes at once.

#![forbid(unsafe_code)]

/// `print!` and `println!` that do not panic where standard output cannot be written; see [`emit`].
macro_rules! print {
    ($($text:tt)*) => { $crate::emit(format_args!($($text)*)) };
}
macro_rules! println {
    ($($text:tt)*) => { $crate::emit(format_args!("{}\n", format_args!($($text)*))) };
}

pub mod args;
mod batch_parts;
pub mod commands;
pub mod data;
pub mod embedded;
pub mod engine;
pub mod ensemble;
pub mod expansion;
pub mod group_args;
mod grouping;
pub mod inputs;
pub mod limits;
pub mod metrics;
pub mod npy;
pub mod page;
pub mod plan_file;
pub mod planning;
pub mod progress;
pub mod quantization;
mod remarks;
pub mod study;
mod svg;
pub mod table;
mod values;

use std::io::{ErrorKind, Write};
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

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

/// The program: runs what the command line asks for.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            return ExitCode::from(2);
        }
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
    match guarded(|| dispatch(&cli)) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::BelowThreshold) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {}", one_line(&error));
            ExitCode::from(2)
        }
    }
}

/// Runs a command. A panic is a fault of ours or of a library: one line, like any other error. The host's are errors before they
/// get here.
fn guarded(run: impl FnOnce() -> anyhow::Result<Outcome>) -> anyhow::Result<Outcome> {
    panic::set_hook(Box::new(|_| {}));
    panic::catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
        Err(anyhow::anyhow!("fpxint failed on this input and should not have; please report it: {text}"))
    })
}

fn dispatch(cli: &Cli) -> anyhow::Result<Outcome> {
    let common = &cli.common;
    rayon::ThreadPoolBuilder::new().num_threads(common.threads()).build_global()?;
    match &cli.command {
        Command::Demo => commands::demo::run(common),
        Command::Quantize(args) => commands::quantize::run(common, args),
        Command::Inspect(args) => commands::inspect::run(common, args),
        Command::Run(args) => commands::run::run(common, args),
        Command::Compare(args) => commands::compare::run(common, args),
        Command::Eval(args) => commands::eval::run(common, args),
        Command::Bench(args) => commands::bench::run(common, args),
        Command::Study(args) => study::run(common, args),
        Command::Basis(args) => commands::basis::run(common, args),
        Command::Plan(args) => commands::plan::run(common, args),
    }
}

/// Whether standard output is left to another process.
static SILENT: AtomicBool = AtomicBool::new(false);

/// Writes to standard output. A reader that has gone is no failure; a full disk ends the program.
fn emit(text: std::fmt::Arguments<'_>) {
    if SILENT.load(Ordering::Relaxed) {
        return;
    }
    match std::io::stdout().write_fmt(text) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("error: standard output: {error}");
            std::process::exit(2);
        }
        _ => {}
    }
}

/// An error and its causes on one line; what a message repeats of another is said once.
pub fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(|cause| cause.to_string().replace(['\n', '\r'], " ")) {
        if cause.starts_with(&text) {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
