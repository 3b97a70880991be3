//! A model as a command runs it: expanded on our kernels, or FP32 on the host as it is.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use fpxint::{Granularity, Precision};
use fpxint_runtime::{Float, Model, Options, Outputs, Port, Value};

use crate::args::{Common, Format, Precisions};
use crate::ensemble::Ensemble;
use crate::planning::{self, Planned, Request};
use crate::{grouping, progress};

/// A loaded model.
#[derive(Debug)]
pub enum Engine {
    /// On our kernels.
    Expanded(Box<Model>),
    /// Expanded, and samples of a batch shared over processes.
    Batches(Box<Model>, Ensemble),
    /// In FP32 on the host.
    Float(Box<Float>),
    /// Made of models.
    Derived(Arc<dyn Runs>),
}

/// What runs as a model does and is made of models.
pub trait Runs: std::fmt::Debug + Send + Sync {
    /// Runs it.
    fn run(&self, inputs: &[(String, Value)]) -> Result<Outputs>;

    /// Its inputs.
    fn inputs(&self) -> &[Port];
}

/// Reads a model file.
pub(crate) fn read(common: &Common, path: &Path) -> Result<fpxint_onnx::Model> {
    Ok(fpxint_onnx::read(path, &common.limits())?)
}

/// Loads a model file. An FP32 file without precision flags runs in FP32.
pub(crate) fn load(common: &Common, path: &Path, precisions: &Precisions) -> Result<Engine> {
    load_read(common, &read(common, path)?, path, precisions)
}

/// Loads a model that was read from `path`, as a file is: an FP32 model without precision flags runs in FP32.
///
/// # Errors
/// Those of the crates below, with the model's name; flags that do not go together.
pub fn load_read(common: &Common, source: &fpxint_onnx::Model, path: &Path, precisions: &Precisions) -> Result<Engine> {
    let engine = load_alike(common, source, path, precisions);
    match &common.ensemble {
        Some(ensemble) => ensemble.agree(source, engine),
        None => engine,
    }
}

/// Loads a model, which the processes of an ensemble are yet to compare.
fn load_alike(common: &Common, source: &fpxint_onnx::Model, path: &Path, precisions: &Precisions) -> Result<Engine> {
    if precisions.planning.is_given() {
        return load_planned(common, source, path, precisions);
    }
    let Some((weights, activations)) = chosen(source, path, precisions)? else {
        grouping::refuse_float(common, path, &precisions.workers)?;
        return Ok(Engine::Float(Box::new(Float::load(source).with_context(|| path.display().to_string())?)));
    };
    let source = &planning::rotated(source, planning::rotates(&precisions.method, None), None);
    let options = Options {
        weights,
        activations,
        rounding: precisions.method.rounding.unwrap_or_default(),
        clip: precisions.method.clip.unwrap_or_default(),
        asymmetric: precisions.method.symmetry.unwrap_or_default(),
        activation_clip: precisions.method.activation_clip,
        means: planning::means(common, source, precisions.method.bias_correction == Some(true))?,
        attention: precisions.attention,
        weight_terms: precisions.weight_terms,
        activation_terms: precisions.activation_terms,
        threads: common.threads(),
        fingerprints: common.ensemble.is_some(),
        sharing: grouping::sharing(common, &precisions.workers)?,
        ..Options::default()
    };
    grouped(common, source, &options, precisions).with_context(|| path.display().to_string())
}

/// Loads a model that was read from `path` at the precisions of a plan.
fn load_planned(common: &Common, source: &fpxint_onnx::Model, path: &Path, precisions: &Precisions) -> Result<Engine> {
    let request = Request {
        planning: &precisions.planning,
        method: precisions.method,
        granularity: Granularity::Channel,
        otherwise: None,
        layers: None,
    };
    // A plan is not to depend on outputs that the file does not have.
    let Planned { plan, means, .. } = planning::planned(common, &source.unexposed(), path, &request)?;
    let source = &planning::rotated(source, plan.rotated, None);
    let options = Options {
        plan: Some(Arc::new(plan)),
        means,
        attention: precisions.attention,
        weight_terms: precisions.weight_terms,
        activation_terms: precisions.activation_terms,
        threads: common.threads(),
        fingerprints: common.ensemble.is_some(),
        sharing: grouping::sharing(common, &precisions.workers)?,
        ..Options::default()
    };
    grouped(common, source, &options, precisions).with_context(|| path.display().to_string())
}

/// Expands a model that was read, as one of a group where the flags say so.
fn grouped(common: &Common, source: &fpxint_onnx::Model, options: &Options, precisions: &Precisions) -> Result<Engine> {
    let engine = expand(common, source, options)?;
    grouping::ready(common, engine, &precisions.workers)
}

/// Expands a model that was read.
pub(crate) fn expand(common: &Common, source: &fpxint_onnx::Model, options: &Options) -> Result<Engine> {
    let bar = progress::bar(common, "expanding", source.layers().len());
    let loaded = Model::load(source, options, &|done, _| bar.set_position(done as u64));
    bar.finish_and_clear();
    let model = loaded?;
    Ok(Engine::Expanded(Box::new(model)))
}

/// Precisions of weights and activations that an expanded model is loaded with.
type Chosen = (Option<Precision>, Option<Precision>);

/// What flags and file ask for, or `None` for FP32.
fn chosen(source: &fpxint_onnx::Model, path: &Path, precisions: &Precisions) -> Result<Option<Chosen>> {
    let file = path.display();
    let terms = precisions.weight_terms.is_some() || precisions.activation_terms.is_some();
    let method = precisions.method.given();
    let for_integers = method.or(precisions.method.activation_clip.map(|_| "--activation-clip"));
    if source.is_artefact() {
        if let Some(flag) = method {
            bail!("{file} is expanded already, and {flag} is a matter of the expansion");
        }
        return match (precisions.weights, precisions.activations) {
            (Some(_), _) => bail!("{file} is expanded already: choose among its terms with --weight-terms"),
            (None, Some(Format::Fp32)) => bail!("{file} runs with integer activations only: pass e.g. int4x2"),
            (None, Some(Format::Int(activations))) => Ok(Some((None, Some(activations)))),
            (None, None) => Ok(Some((None, None))),
        };
    }
    let default = Precision::new(4, 2)?;
    match (precisions.weights, precisions.activations) {
        (None | Some(Format::Fp32), None | Some(Format::Fp32)) if terms => {
            bail!("{file} is not expanded: pass --weights and --activations with --weight-terms and --activation-terms")
        }
        (None | Some(Format::Fp32), None | Some(Format::Fp32)) => match for_integers {
            Some(flag) => bail!("{file} is not expanded: pass --weights and --activations with {flag}"),
            None if precisions.attention.is_some_and(|attention| attention.steps().is_some()) => {
                bail!("{file} is not expanded: pass --weights and --activations with --attention")
            }
            None => Ok(None),
        },
        (Some(Format::Fp32), Some(Format::Int(_))) | (Some(Format::Int(_)), Some(Format::Fp32)) => {
            bail!("weights and activations are expanded together: pass integer precisions for both, as in int4x2")
        }
        (weights, activations) => {
            let precision = |format| match format {
                Some(Format::Int(precision)) => precision,
                _ => default,
            };
            Ok(Some((Some(precision(weights)), Some(precision(activations)))))
        }
    }
}

impl Engine {
    /// Runs the model.
    pub(crate) fn run(&self, inputs: &[(String, Value)]) -> Result<Outputs> {
        Ok(match self {
            Engine::Expanded(model) => model.run(inputs)?,
            Engine::Batches(model, ensemble) => grouping::run_batch(model, ensemble, inputs)?,
            Engine::Float(model) => model.run(inputs)?,
            Engine::Derived(model) => model.run(inputs)?,
        })
    }

    /// Inputs.
    pub fn inputs(&self) -> &[Port] {
        match self {
            Engine::Expanded(model) | Engine::Batches(model, _) => model.inputs(),
            Engine::Float(model) => model.inputs(),
            Engine::Derived(model) => model.inputs(),
        }
    }

    /// Whether other processes run it too, each run at the same time.
    pub(crate) fn is_joint(&self) -> bool {
        match self {
            Engine::Expanded(model) => model.is_joint(),
            Engine::Batches(..) => true,
            Engine::Float(_) | Engine::Derived(_) => false,
        }
    }

    /// The model, where it is expanded.
    pub(crate) fn expanded(&self) -> Option<&Model> {
        match self {
            Engine::Expanded(model) | Engine::Batches(model, _) => Some(model),
            Engine::Float(_) | Engine::Derived(_) => None,
        }
    }

    /// Precisions of weights and activations, as text: one, or the range over the layers.
    pub(crate) fn precisions(&self) -> (String, String) {
        let Some(model) = self.expanded() else { return ("fp32".to_owned(), "fp32".to_owned()) };
        let text = |pick: fn(&fpxint_runtime::LayerReport) -> Precision| {
            let mut all: Vec<String> = model.layers().iter().map(|l| pick(l).to_string()).collect();
            all.dedup();
            if all.len() == 1 { all.swap_remove(0) } else { "mixed".to_owned() }
        };
        (text(|l| l.weights), text(|l| l.activations))
    }
}

/// Effective bits of a precision, to stand beside an accuracy.
pub(crate) fn effective_bits(text: &str) -> String {
    let fp32 = if text == "fp32" { "32" } else { "-" };
    text.parse::<Precision>().map_or(fp32.to_owned(), |p| p.total_bits().to_string())
}
