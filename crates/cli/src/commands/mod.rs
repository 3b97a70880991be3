//! One module a command.

pub(crate) mod basis;
pub(crate) mod bench;
pub(crate) mod compare;
pub(crate) mod demo;
pub(crate) mod eval;
pub(crate) mod inspect;
pub(crate) mod plan;
pub(crate) mod quantize;
pub(crate) mod run;

use anyhow::Result;
use serde::Serialize;

/// Prints one JSON object on standard output.
fn print_json(value: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(value)?);
    Ok(())
}
