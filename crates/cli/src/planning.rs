//! From the planning flags and a model to its plan: read from a file, or made for a goal.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use fpxint::{
    Geometry, Goal, Granularity, LayerOptions, LayerPrecision, Means, Plan, Precision, Rounding, Settings, Way, choose,
};
use fpxint_onnx::{LayerInfo, Model};
use fpxint_runtime::{Measurement, Port, Survey, input_means};

use crate::args::{Common, Method, Planning, Sizes};
use crate::{inputs, plan_file, progress};

/// What `quantize` aims at where no precision and no goal is given.
pub(crate) const DEFAULT_GOAL: Goal = Goal::Products(1.1);

/// A plan, and what was expected of each of its layers when it was made.
#[derive(Debug)]
pub(crate) struct Planned {
    pub plan: Plan,
    /// What it corrects biases by, where it does.
    pub means: Option<Arc<Vec<Means>>>,
    /// By layer of the model; empty where the plan was read, `None` for layers that stay in FP32.
    ways: Vec<Option<Way>>,
}

impl Planned {
    /// What is expected of a layer.
    pub(crate) fn way(&self, index: usize) -> Option<&Way> {
        self.ways.get(index)?.as_ref()
    }

    /// Expected relative error of the model's output, where it is known.
    pub(crate) fn expected(&self) -> Option<f64> {
        let added = self.ways.iter().flatten().map(|way| way.added).reduce(|a, b| a + b);
        added.map(f64::sqrt)
    }
}

impl Planning {
    /// The goal that the flags state.
    fn goal(&self) -> Option<Goal> {
        let products = self.target_products.map(Goal::Products);
        let others = self.tolerance.map(Goal::Tolerance).or(self.target_bits.map(Goal::Bits));
        products.or(others).or(self.stopping_rules.map(Goal::Stopping))
    }

    /// Whether any flag was given.
    pub fn is_given(&self) -> bool {
        self.plan.is_some() || self.goal().is_some()
    }
}

/// What a plan is made for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub planning: &'a Planning,
    /// How weights are expanded, whatever their precision.
    pub method: Method,
    /// Which weights share a scale.
    pub granularity: Granularity,
    /// The goal where the flags state none; without it they must name a file that is there.
    pub otherwise: Option<Goal>,
    /// Layers to expand, in order; all of them by default.
    pub layers: Option<&'a [usize]>,
}

impl Request<'_> {
    /// What a plan says of layers that it does not list; of a plan in a file, where it states no more than precisions.
    fn default(&self, rounding: Rounding) -> Result<LayerPrecision> {
        let precision = Precision::new(4, 2)?;
        let (rounding, clip) = (self.method.rounding.unwrap_or(rounding), self.method.clip.unwrap_or_default());
        let asymmetric = self.method.symmetry.unwrap_or_default();
        let activation_clip = self.method.activation_clip.unwrap_or_default();
        Ok(LayerPrecision { weights: precision, activations: precision, rounding, clip, asymmetric, activation_clip })
    }
}

/// The plan that the flags ask for, of the model in FP32 that was read from `path`.
pub(crate) fn planned(common: &Common, model: &Model, path: &Path, request: &Request<'_>) -> Result<Planned> {
    if model.is_artefact() {
        bail!("{}: is expanded already: its layers have the precisions that they have", path.display());
    }
    let Planning { plan: file, .. } = request.planning;
    let names: Vec<&str> = model.layers().iter().map(|layer| layer.name.as_str()).collect();
    let stated = request.planning.goal();
    if let Some(file) = file
        && let Some(mut plan) = plan_file::read(file, &names, request.default(Rounding::Nearest)?)?
    {
        let unused = if stated.is_some() { ", which goes before the goal" } else { "" };
        remark(common, &format!("{}: the plan is read from it{unused}", file.display()));
        plan.corrected = request.method.bias_correction.unwrap_or(plan.corrected);
        plan.rotated = request.method.rotation.unwrap_or(plan.rotated);
        let means = means(common, &rotated(model, plan.rotated, request.layers), plan.corrected)?;
        return Ok(Planned { plan, means, ways: Vec::new() });
    }
    let Some(goal) = stated.or(request.otherwise) else {
        let file = file.as_deref().unwrap_or(Path::new("")).display();
        bail!("{file}: there is no such plan; `fpxint quantize --plan {file}` writes one");
    };
    let planned = made(common, model, goal, request).with_context(|| path.display().to_string())?;
    if let Some(file) = file {
        plan_file::write(file, &planned.plan, &names, &format!("fpxint plan for {}", described(goal)))?;
        remark(common, &format!("{}: the plan is written to it", file.display()));
    }
    Ok(planned)
}

fn remark(common: &Common, text: &str) {
    if !common.quiet {
        eprintln!("{text}");
    }
}

fn described(goal: Goal) -> String {
    match goal {
        Goal::Products(products) => format!("at most {products} products"),
        Goal::Tolerance(tolerance) => format!("an expected error of at most {tolerance} in every layer"),
        Goal::Bits(bits) => format!("at most {bits} bits a weight"),
        Goal::Stopping(bits) => format!("terms of {bits} bits by the paper's stopping rules"),
    }
}

/// Plans a model.
fn made(common: &Common, model: &Model, goal: Goal, request: &Request<'_>) -> Result<Planned> {
    let survey = fpxint_runtime::survey(model)?;
    // Real sentences are further from synthetic ones than these differ among themselves: docs/planning.md.
    let has_tokens = survey.inputs.iter().any(|port| port.rows.is_some());
    let corrected = request.method.bias_correction.unwrap_or(!has_tokens);
    let usual = has_rows(model, &survey.macs) && !matches!(goal, Goal::Stopping(_));
    let rotates = request.method.rotation.unwrap_or(usual);
    let model = &rotated(model, rotates, request.layers);
    let means = if corrected { Some(observed(common, model, &survey.inputs)?) } else { None };
    let all = measured(common, model, &survey, goal, request, means.as_ref().map_or(&[], |means| means))?;
    let every: Vec<usize> = (0..all.len()).collect();
    let chosen = request.layers.unwrap_or(&every);
    let options: Vec<LayerOptions> = chosen.iter().map(|&index| all[index].clone()).collect();
    let found = choose(&options, goal)?;
    let mut ways = vec![None; all.len()];
    let default = request.default(Rounding::Sum)?;
    let mut plan = Plan { default, layers: Default::default(), corrected, rotated: rotates };
    for (&index, way) in chosen.iter().zip(found) {
        plan.layers.insert(all[index].name.clone(), way.precision);
        ways[index] = Some(way);
    }
    Ok(Planned { plan, means, ways })
}

/// Whether matrix products are most of a model, as they are of one of tokens or patches: their rows are what has values far out. The
/// classifier of a convolutional network has little to gain.
fn has_rows(model: &Model, macs: &[u64]) -> bool {
    let of_rows = |(layer, _): &(&LayerInfo, &u64)| matches!(layer.geometry, Geometry::MatMul(_));
    let rows: u64 = model.layers().iter().zip(macs).filter(of_rows).map(|(_, macs)| macs).sum();
    2 * rows > macs.iter().sum::<u64>()
}

/// Whether what enters matrix products is to be rotated: what the plan says or, without one, the flag.
pub(crate) fn rotates(method: &Method, planned: Option<&Planned>) -> bool {
    planned.map_or(method.rotation == Some(true), |planned| planned.plan.rotated)
}

/// The model as it is or, if it `rotates`, with what enters its matrix products rotated: of `layers`, or all.
pub(crate) fn rotated<'a>(model: &'a Model, rotates: bool, layers: Option<&[usize]>) -> Cow<'a, Model> {
    if rotates { Cow::Owned(model.rotated(layers)) } else { Cow::Borrowed(model) }
}

/// Most images, or sentences, of the synthetic batch that a plan is made on.
const MOST_SAMPLES: u32 = 16;
/// Multiply-accumulates of bytes that a measurement may take beyond those of a single sample.
const MEASURED_MACS: u64 = 400_000_000_000;
/// Tokens of a sentence, where the model leaves the number open.
const SEQUENCE: u32 = 32;
/// Where the synthetic inputs begin.
const SEED: u64 = 2024;

/// Samples to measure with: as many as keep a measurement of every layer short.
fn batch(macs: &[u64]) -> u32 {
    let of_sample = macs.iter().sum::<u64>().saturating_mul(8 * macs.len() as u64).max(1);
    (MEASURED_MACS / of_sample).clamp(1, MOST_SAMPLES.into()) as u32
}

fn measured(
    common: &Common,
    model: &Model,
    survey: &Survey,
    goal: Goal,
    request: &Request<'_>,
    means: &[Means],
) -> Result<Vec<LayerOptions>> {
    let sizes = Sizes { batch: batch(&survey.macs), sequence: SEQUENCE };
    let runs = [inputs::synthetic(&survey.inputs, sizes, SEED)?];
    let LayerPrecision { weights, activations, rounding, clip, asymmetric, activation_clip } =
        request.default(Rounding::Sum)?;
    let granularity = request.granularity;
    let base = Settings { weights, activations, granularity, rounding, clip, asymmetric, activation_clip };
    let Method { clip, symmetry: asymmetric, activation_clip, .. } = request.method;
    let threads = common.threads();
    let measurement = Measurement { goal, base, clip, asymmetric, activation_clip, runs: &runs, means, threads };
    let bar = progress::bar(common, "planning", model.layers().len());
    let layers = measurement.layers(model, &|done, _| bar.set_position(done as u64));
    bar.finish_and_clear();
    Ok(layers?)
}

/// Synthetic inputs of each of the two kinds that means are taken over.
const SAMPLES: u64 = 8;

/// The means that biases are corrected by, if they are to be and weights are yet to be expanded.
pub(crate) fn means(common: &Common, model: &Model, corrected: bool) -> Result<Option<Arc<Vec<Means>>>> {
    if !corrected || model.is_artefact() {
        return Ok(None);
    }
    Ok(Some(observed(common, model, &fpxint_runtime::survey(model)?.inputs)?))
}

/// The means of a model with these inputs.
fn observed(common: &Common, model: &Model, ports: &[Port]) -> Result<Arc<Vec<Means>>> {
    let sizes = Sizes { batch: 1, sequence: SEQUENCE };
    let seeds = SEED + 1..=SEED + SAMPLES;
    let smooth: Vec<_> = seeds.clone().map(|seed| inputs::synthetic(ports, sizes, seed)).collect::<Result<_>>()?;
    let rough: Vec<_> = seeds.map(|seed| inputs::rough(ports, sizes, seed)).collect::<Result<_>>()?;
    let bar = progress::bar(common, "observing", smooth.len() + rough.len());
    let means = input_means(model, [&smooth, &rough], common.threads(), &|done, _| bar.set_position(done as u64));
    bar.finish_and_clear();
    Ok(Arc::new(means?))
}
