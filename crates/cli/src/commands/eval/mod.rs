//! `fpxint eval`: a model's score on a labelled data set, and how far it agrees with a reference.
//!
//! Data are opened before models are loaded: what is wrong with them is told at once.

mod answers;
mod batches;
mod images;
mod mnli;
mod report;
mod spans;
mod squad;
mod sts_b;
mod text;

use anyhow::{Result, bail};

pub(crate) use self::report::{Reference, Report};
use super::print_json;
use crate::args::{Common, Eval, Precisions, Task};
use crate::engine::Engine;
use crate::{Outcome, engine};

/// Metrics by name; NaN where one is not defined.
pub(crate) type Metrics = std::collections::BTreeMap<&'static str, f64>;

/// A data set that was opened, with what is measured on it.
pub(crate) trait Evaluate {
    /// Measures the models.
    fn evaluate(self: Box<Self>, common: &Common, args: &Eval, engines: &Engines) -> Result<Evaluation>;
}

/// The model, and what it is compared with.
pub(crate) struct Engines {
    pub model: Engine,
    pub reference: Option<Engine>,
}

/// What was measured.
pub(crate) struct Evaluation {
    /// Samples.
    count: usize,
    metrics: Metrics,
    reference: Option<Reference>,
}

/// What was found for every sample by the model and by the reference.
struct Found<T> {
    model: Vec<T>,
    reference: Option<Vec<T>>,
}

impl<T> Found<T> {
    /// Metrics of both, and the share of samples on which they agree.
    fn evaluation(self, metrics: impl Fn(&[T]) -> Metrics, agree: impl Fn(&T, &T) -> bool) -> Evaluation {
        let count = self.model.len();
        let reference = self.reference.map(|found| {
            let agreement = share(count, |i| agree(&self.model[i], &found[i]));
            Reference { metrics: metrics(&found), agreement, cosine: None, cosine_min: None, outputs: None }
        });
        Evaluation { count, metrics: metrics(&self.model), reference }
    }
}

pub(crate) fn run(common: &Common, args: &Eval) -> Result<Outcome> {
    let set = open(args)?;
    let model = engine::load(common, &args.model, &args.precisions)?;
    // Of processes that run together the first alone runs the reference.
    let load = |path: &std::path::PathBuf| engine::load(&common.alone(), path, &Precisions::default());
    let reference = args.reference.as_ref().filter(|_| common.is_first());
    let engines = Engines { model, reference: reference.map(load).transpose()? };
    let report = measured(common, args, set, &engines)?;
    if common.json {
        print_json(&report)?;
    } else {
        report.print(args.set.task);
    }
    Ok(Outcome::Done)
}

/// Opens the data set.
pub(crate) fn open(args: &Eval) -> Result<Box<dyn Evaluate>> {
    check_flags(args)?;
    Ok(match args.set.task {
        Task::Imagenet | Task::Cifar10 => Box::new(images::Set::open(args)?),
        Task::StsB => Box::new(sts_b::Set::open(args)?),
        Task::Squad => Box::new(squad::Set::open(args)?),
        Task::Mnli => Box::new(mnli::Set::open(args)?),
    })
}

/// What the models score on a data set.
pub(crate) fn measured(common: &Common, args: &Eval, set: Box<dyn Evaluate>, engines: &Engines) -> Result<Report> {
    let Evaluation { count, metrics, reference } = set.evaluate(common, args, engines)?;
    let (weights, activations) = engines.model.precisions();
    Ok(Report { task: args.set.task.name(), count, weights, activations, metrics, reference })
}

/// Refuses flags that mean nothing to the task.
fn check_flags(args: &Eval) -> Result<()> {
    let images = [
        ("--preset", args.set.preset.is_some()),
        ("--resize", args.set.resize.is_some()),
        ("--crop", args.set.crop.is_some()),
    ];
    let text = [("--tokenizer", args.set.tokenizer.is_some()), ("--max-length", args.set.max_length.is_some())];
    let (wrong, kind) = if args.set.task.is_text() { (&images[..], "images") } else { (&text[..], "text") };
    if let Some((flag, _)) = wrong.iter().find(|(_, given)| *given) {
        bail!("{flag} is for {kind}, and does not apply to --task {}", args.set.task.name());
    }
    if args.set.labels.is_some() && args.set.task != Task::Mnli {
        bail!("--labels is for --task mnli, and does not apply to --task {}", args.set.task.name());
    }
    Ok(())
}

/// Share of `count` samples for which `holds`.
fn share(count: usize, holds: impl Fn(usize) -> bool) -> f64 {
    (0..count).filter(|&i| holds(i)).count() as f64 / count as f64
}

/// Samples to use of `len`.
fn limited(args: &Eval, len: usize) -> usize {
    args.set.limit.map_or(len, |limit| len.min(limit as usize))
}
