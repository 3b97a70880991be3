//! `fpxint quantize`: an FP32 model to its artefact.

use anyhow::Result;

use super::print_json;
use crate::args::{Common, Quantize};
use crate::quantization::quantize;
use crate::{Outcome, engine};

pub(crate) fn run(common: &Common, args: &Quantize) -> Result<Outcome> {
    let report = quantize(common, args, engine::read(common, &args.model)?)?;
    if common.json {
        print_json(&report)?;
    } else if !common.quiet {
        print!("{report}");
    }
    Ok(Outcome::Done)
}
