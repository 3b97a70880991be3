//! What the text tasks have in common: the tokenizer, the models' inputs, and their outputs by name.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use fpxint_runtime::{Outputs, Value};
use rayon::prelude::*;

use super::{Engines, Found, batches};
use crate::args::{Common, Eval};
use crate::data::token_input::TokenInput;
use crate::data::tokens::{Encoder, Tokens};
use crate::progress;

/// The tokenizer that was named, or else the one beside the model or beside the data file.
pub(super) fn tokenizer(args: &Eval, data: &Path) -> Result<Encoder> {
    if let Some(file) = &args.set.tokenizer {
        return Encoder::open(file);
    }
    let beside = |file: &Path| file.parent().map(|folder| folder.join("tokenizer.json")).filter(|file| file.is_file());
    match beside(&args.model).or_else(|| beside(data)) {
        Some(file) => Encoder::open(&file),
        None => bail!("no tokenizer.json is beside {} or {}; pass --tokenizer", args.model.display(), data.display()),
    }
}

/// Models that take tokens.
pub(super) struct TextModels<'a> {
    common: &'a Common,
    engines: &'a Engines,
    input: TokenInput,
    reference: Option<TokenInput>,
}

impl<'a> TextModels<'a> {
    /// Checks the models' inputs, and has the tokenizer cut sequences to what both models take and to `--max-length`, or
    /// `length` without it.
    pub(super) fn new(
        common: &'a Common,
        args: &Eval,
        engines: &'a Engines,
        encoder: &mut Encoder,
        length: usize,
    ) -> Result<Self> {
        let input = TokenInput::of(engines.model.inputs())?;
        let reference = engines.reference.as_ref().map(|engine| TokenInput::of(engine.inputs()));
        let reference = reference.transpose().context("the reference")?;
        let fixed = [Some(&input), reference.as_ref()].into_iter().flatten().filter_map(|input| input.length);
        encoder.most = fixed.fold(args.set.max_length.map_or(length, |most| most as usize), usize::min);
        Ok(Self { common, engines, input, reference })
    }

    /// What `read` finds in the outputs for every sequence, by the model and by the reference.
    pub(super) fn run<T: Send>(
        &self,
        encoder: &Encoder,
        sequences: &[Tokens],
        read: impl Fn(&Outputs, &[usize]) -> Result<Vec<T>> + Sync,
    ) -> Result<Found<T>> {
        let runs = 1 + usize::from(self.reference.is_some());
        let bar = progress::bar(self.common, "evaluating", runs * sequences.len());
        let model = batches::run(&self.engines.model, &self.input, encoder, sequences, &bar, &read)?;
        let reference = self.engines.reference.as_ref().zip(self.reference.as_ref());
        let reference = reference.map(|(engine, input)| batches::run(engine, input, encoder, sequences, &bar, &read));
        let reference = reference.transpose().context("the reference")?;
        bar.finish_and_clear();
        Ok(Found { model, reference })
    }
}

/// Encodes every sample; `place` says where one is that fails.
pub(super) fn encode<S: Sync, T: Send>(
    file: &Path,
    samples: &[S],
    place: impl Fn(&S) -> String + Sync,
    encode: impl Fn(&S) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let one = |sample| encode(sample).with_context(|| format!("{}: {}", file.display(), place(sample)));
    // All before the first that fails is sought, so that it is the same one every time.
    samples.par_iter().map(one).collect::<Vec<_>>().into_iter().collect()
}

/// The output called `name`.
pub(super) fn output<'a>(outputs: &'a Outputs, name: &str) -> Option<(&'a str, &'a Value)> {
    outputs.iter().find(|(other, _)| other == name).map(|(name, value)| (name.as_str(), value))
}

/// The first `count` rows of an output, which must be of sizes that `fits` and free of NaN, and the sizes of a row.
pub(super) fn rows(
    (name, value): (&str, &Value),
    count: usize,
    fits: impl Fn(&[usize]) -> bool,
    what: &str,
) -> Result<(Vec<Vec<f32>>, Vec<usize>)> {
    let shape = value.shape();
    let row = shape.get(1..).unwrap_or_default();
    let width = row.iter().product::<usize>();
    let there = shape.first().is_some_and(|&n| n >= count) && width > 0 && fits(row);
    ensure!(there, "output `{name}` of shape {shape:?} is not {what}");
    let values = value.to_f32();
    let rows = values.as_slice().context("a contiguous output")?.chunks_exact(width).take(count);
    let rows: Vec<_> = rows.map(<[f32]>::to_vec).collect();
    ensure!(!rows.iter().flatten().any(|value| value.is_nan()), "output `{name}` holds NaN");
    Ok((rows, row.to_vec()))
}
