//! `fpxint compare`: how close a model's outputs are to a reference's.

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use super::print_json;
use crate::args::{Common, Compare, Precisions};
use crate::metrics::{Closeness, Tally};
use crate::table::{Table, percent};
use crate::{Outcome, engine, inputs, progress};

#[derive(Debug, Serialize)]
struct Report {
    outputs: Vec<Closeness>,
    weights: String,
    activations: String,
    runs: u32,
}

pub(crate) fn run(common: &Common, args: &Compare) -> Result<Outcome> {
    let reference = engine::load(common, &args.reference, &Precisions::default())?;
    let model = engine::load(common, &args.model, &args.precisions)?;
    let runs = if args.inputs.is_empty() { args.random.unwrap_or(1) } else { 1 };
    ensure!(runs > 0, "--random 0 compares nothing");
    let bar = progress::bar(common, "comparing", runs as usize);
    let mut tallies: Vec<(String, Tally)> = Vec::new();
    for seed in 0..runs {
        let values = if args.inputs.is_empty() {
            inputs::random(reference.inputs(), args.sizes, u64::from(seed))?
        } else {
            inputs::read(reference.inputs(), &args.inputs)?
        };
        let (a, b) = (reference.run(&values).context("the reference")?, model.run(&values).context("the model")?);
        for (name, a) in a {
            let Some((_, b)) = b.iter().find(|(other, _)| *other == name) else {
                bail!("the model has no output `{name}`, which the reference has");
            };
            ensure!(a.shape() == b.shape(), "output `{name}` has shape {:?} and {:?}", a.shape(), b.shape());
            let width = a.shape().last().copied().unwrap_or(1);
            let (a, b) = (a.to_f32(), b.to_f32());
            let slot = tallies.iter().position(|(other, _)| *other == name).unwrap_or_else(|| {
                tallies.push((name.clone(), Tally::default()));
                tallies.len() - 1
            });
            let dense = "a contiguous output";
            tallies[slot].1.add(a.as_slice().context(dense)?, b.as_slice().context(dense)?, width);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let (weights, activations) = model.precisions();
    let outputs: Vec<_> = tallies.iter().map(|(name, tally)| tally.closeness(name)).collect();
    let outcome = verdict(args, &outputs);
    let report = Report { outputs, weights, activations, runs };
    if common.json {
        print_json(&report)?;
    } else {
        print_table(&report);
    }
    Ok(outcome)
}

fn verdict(args: &Compare, outputs: &[Closeness]) -> Outcome {
    // Written so that a NaN fails.
    let close = |c: &Closeness| args.max_relative.is_none_or(|limit| c.relative <= limit);
    let agree = |c: &Closeness| args.min_agreement.is_none_or(|limit| c.argmax_agreement >= limit);
    if outputs.iter().all(|c| close(c) && agree(c)) { Outcome::Done } else { Outcome::BelowThreshold }
}

fn print_table(report: &Report) {
    println!("weights {}, activations {}, {} run(s)", report.weights, report.activations, report.runs);
    let mut table = Table::new(1, &["output", "max abs", "relative", "cosine", "SQNR dB", "same argmax"]);
    for c in &report.outputs {
        table.row(vec![
            c.name.clone(),
            format!("{:.3e}", c.max_abs),
            format!("{:.3e}", c.relative),
            format!("{:.6}", c.cosine),
            c.sqnr_db.map_or("-".to_owned(), |db| format!("{db:.1}")),
            percent(c.argmax_agreement),
        ]);
    }
    print!("{table}");
}
