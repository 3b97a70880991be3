//! `fpxint compare`: how close a model's outputs are to a reference's.

pub(crate) mod layers;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use self::layers::{LayerError, Trace};
use super::print_json;
use crate::args::{Common, Compare, Precisions};
use crate::engine::Engine;
use crate::metrics::{Closeness, Tally};
use crate::table::{Table, percent};
use crate::{Outcome, engine, inputs, progress};

#[derive(Debug, Serialize)]
struct Report {
    outputs: Vec<Closeness>,
    weights: String,
    activations: String,
    runs: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    layers: Option<Vec<LayerError>>,
    /// Expanded layers that the reference does not have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unmatched: Vec<String>,
}

pub(crate) fn run(common: &Common, args: &Compare) -> Result<Outcome> {
    let Loaded { reference, model, outputs, mut trace } = load(common, args)?;
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
        if let Some(trace) = &mut trace {
            trace.add(&values, &a, &b)?;
        }
        for (name, a) in a.into_iter().take(outputs) {
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
    let layers = match (&trace, &model) {
        (Some(trace), Engine::Expanded(model)) => Some(trace.errors(model)),
        _ => None,
    };
    let unmatched = trace.map_or_else(Vec::new, |trace| trace.unmatched);
    let report = Report { outputs, weights, activations, runs, layers, unmatched };
    if common.json {
        print_json(&report)?;
    } else {
        print_table(&report);
    }
    Ok(outcome)
}

/// Both models, ready to run.
struct Loaded {
    reference: Engine,
    model: Engine,
    /// Outputs of the reference that are compared; what it gives beyond them is for `trace`.
    outputs: usize,
    trace: Option<Trace>,
}

fn load(common: &Common, args: &Compare) -> Result<Loaded> {
    let none = Precisions::default();
    if !args.layers {
        let reference = engine::load(common, &args.reference, &none)?;
        let model = engine::load(common, &args.model, &args.precisions)?;
        return Ok(Loaded { reference, model, outputs: usize::MAX, trace: None });
    }
    let (source, mut expanded) = (engine::read(common, &args.reference)?, engine::read(common, &args.model)?);
    let outputs = source.outputs().len();
    let trace = Trace::new(source, &mut expanded, [&args.reference, &args.model])?;
    let model = engine::load_read(common, &expanded, &args.model, &args.precisions)?;
    if let Engine::Float(_) = model {
        bail!("{}: --layers needs an expanded model: pass --weights and --activations", args.model.display());
    }
    let reference = engine::load_read(common, trace.reference(), &args.reference, &none)?;
    Ok(Loaded { reference, model, outputs, trace: Some(trace) })
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
    if let Some(layers) = &report.layers {
        layers::print_table(layers, &report.unmatched);
    }
}
