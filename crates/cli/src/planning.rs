//! From the planning flags and a model to its plan: read from a file, or made for a goal.

use std::path::Path;

use anyhow::{Context, Result, bail};
use fpxint::{Goal, LayerOptions, LayerPrecision, Plan, Precision, Settings, Way, choose};
use fpxint_onnx::Model;
use fpxint_runtime::Measurement;

use crate::args::{Common, Planning, Sizes};
use crate::{engine, inputs, plan_file, progress};

/// What `quantize` aims at where no precision and no goal is given.
pub(crate) const DEFAULT_GOAL: Goal = Goal::Products(1.1);

/// A plan, and what was expected of each of its layers when it was made.
#[derive(Debug)]
pub(crate) struct Planned {
    pub plan: Plan,
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
        products.or(self.tolerance.map(Goal::Tolerance)).or(self.target_bits.map(Goal::Bits))
    }

    /// Whether any flag was given.
    pub(crate) fn is_given(&self) -> bool {
        self.plan.is_some() || self.goal().is_some()
    }
}

/// What a plan is made for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub planning: &'a Planning,
    /// The goal where the flags state none; without it they must name a file that is there.
    pub otherwise: Option<Goal>,
    /// How weights are expanded, whatever their precision.
    pub base: Settings,
    /// Layers to expand, in order; all of them by default.
    pub layers: Option<&'a [usize]>,
}

/// The plan that the flags ask for, of the model in FP32 in the file `path`.
pub(crate) fn planned(common: &Common, path: &Path, request: &Request<'_>) -> Result<Planned> {
    let model = engine::read(path)?;
    if model.is_artefact() {
        bail!("{}: is expanded already: its layers have the precisions that they have", path.display());
    }
    let Planning { plan: file, .. } = request.planning;
    let names: Vec<&str> = model.layers().iter().map(|layer| layer.name.as_str()).collect();
    let stated = request.planning.goal();
    if let Some(file) = file
        && let Some(plan) = plan_file::read(file, &names)?
    {
        let unused = if stated.is_some() { ", which goes before the goal" } else { "" };
        remark(common, &format!("{}: the plan is read from it{unused}", file.display()));
        return Ok(Planned { plan, ways: Vec::new() });
    }
    let Some(goal) = stated.or(request.otherwise) else {
        let file = file.as_deref().unwrap_or(Path::new("")).display();
        bail!("{file}: there is no such plan; `fpxint quantize --plan {file}` writes one");
    };
    let planned = made(common, &model, goal, request).with_context(|| path.display().to_string())?;
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
    }
}

/// Plans a model.
fn made(common: &Common, model: &Model, goal: Goal, request: &Request<'_>) -> Result<Planned> {
    let all = measured(common, model, goal, request)?;
    let every: Vec<usize> = (0..all.len()).collect();
    let chosen = request.layers.unwrap_or(&every);
    let options: Vec<LayerOptions> = chosen.iter().map(|&index| all[index].clone()).collect();
    let found = choose(&options, goal)?;
    let mut ways = vec![None; all.len()];
    let precision = Precision::new(4, 2)?;
    let default = LayerPrecision { weights: precision, activations: precision };
    let mut plan = Plan { default, layers: Default::default() };
    for (&index, way) in chosen.iter().zip(found) {
        plan.layers.insert(all[index].name.clone(), way.precision);
        ways[index] = Some(way);
    }
    Ok(Planned { plan, ways })
}

/// Images, or sentences, of the synthetic batch that a plan is made on.
const BATCH: u32 = 2;
/// Their tokens, where the model leaves the number open.
const SEQUENCE: u32 = 32;
/// Where the synthetic inputs begin.
const SEED: u64 = 2024;

fn measured(common: &Common, model: &Model, goal: Goal, request: &Request<'_>) -> Result<Vec<LayerOptions>> {
    let ports = fpxint_runtime::survey(model)?.inputs;
    let runs = [inputs::synthetic(&ports, Sizes { batch: BATCH, sequence: SEQUENCE }, SEED)?];
    let measurement = Measurement { goal, base: request.base, runs: &runs, threads: common.threads() };
    let bar = progress::bar(common, "planning", model.layers().len());
    let layers = measurement.layers(model, &|done, _| bar.set_position(done as u64));
    bar.finish_and_clear();
    Ok(layers?)
}
