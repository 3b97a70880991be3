//! What a model's layers take in time and add in error, on synthetic inputs.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use fpxint::Precision;
use fpxint_onnx::Model;
use fpxint_runtime::{Options, Value};

use crate::args::{Common, Inspect, Sizes};
use crate::commands::compare::layers::{LayerError, Trace};
use crate::engine::{self, Engine};
use crate::inputs;
use crate::planning::{self, Planned};

/// Runs of which a step's fastest time counts.
const RUNS: usize = 5;
/// Sizes of the inputs where the model leaves them open, and where they begin.
const SIZES: Sizes = Sizes { batch: 1, sequence: 128 };
const SEED: u64 = 2024;

/// Times and errors by layer.
#[derive(Debug)]
pub(super) struct Measured {
    /// Milliseconds of every layer, what is fused into it included.
    pub layers: Vec<f64>,
    /// Milliseconds of everything.
    pub total: f64,
    /// Milliseconds and names of steps that are no layers, by kind, the longest first.
    pub others: Vec<(String, f64)>,
    /// Errors by layer, where the FP32 model is there to compare with.
    pub errors: Option<Vec<LayerError>>,
    pub kernel: &'static str,
}

/// Runs a model as `inspect` shows it.
pub(super) fn measured(common: &Common, args: &Inspect, model: Model, planned: Option<Planned>) -> Result<Measured> {
    let artefact = model.is_artefact();
    let default = Precision::new(4, 2)?;
    let (plan, means) = match planned {
        Some(Planned { plan, means, .. }) => (Some(Arc::new(plan)), means),
        None => (None, planning::means(common, &model, args.method.bias_correction == Some(true))?),
    };
    let options = Options {
        weights: args.weights.or((!artefact).then_some(default)),
        activations: args.activations.or((!artefact).then_some(default)),
        plan,
        means,
        rounding: args.method.rounding.unwrap_or_default(),
        clip: args.method.clip.unwrap_or_default(),
        asymmetric: args.method.symmetry.unwrap_or_default(),
        activation_clip: args.method.activation_clip,
        threads: common.threads(),
        ..Options::default()
    };
    let Engine::Expanded(loaded) = engine::expand(common, &model, &options)? else { bail!("is not expanded") };
    let values = inputs::synthetic(loaded.inputs(), SIZES, SEED)?;
    loaded.run(&values)?;
    let mut steps = loaded.profile(&values)?;
    for _ in 1..RUNS {
        for (best, step) in steps.iter_mut().zip(loaded.profile(&values)?) {
            best.seconds = best.seconds.min(step.seconds);
        }
    }
    let mut layers = vec![0.0; model.layers().len()];
    let mut others: Vec<(String, f64)> = Vec::new();
    for step in &steps {
        let milliseconds = step.seconds * 1e3;
        match (step.layer, others.iter_mut().find(|(operator, _)| *operator == step.operator)) {
            (Some(layer), _) => layers[layer] += milliseconds,
            (None, Some((_, sum))) => *sum += milliseconds,
            (None, None) => others.push((step.operator.clone(), milliseconds)),
        }
    }
    others.sort_by(|a, b| b.1.total_cmp(&a.1));
    let total = layers.iter().chain(others.iter().map(|(_, time)| time)).sum();
    let errors = if artefact { None } else { Some(errors(common, &args.model, model, &options, &values)?) };
    Ok(Measured { layers, total, others, errors, kernel: loaded.kernel() })
}

/// Errors by layer against FP32, as `compare --layers` gives them.
fn errors(
    common: &Common,
    file: &Path,
    mut model: Model,
    options: &Options,
    values: &[(String, Value)],
) -> Result<Vec<LayerError>> {
    let mut trace = Trace::new(model.clone(), &mut model, [file, file])?;
    let Engine::Expanded(expanded) = engine::expand(common, &model, options)? else { bail!("is not expanded") };
    let reference = engine::load_read(common, trace.reference(), file, &Default::default())?;
    let (wanted, found) = (reference.run(values).context("in FP32")?, expanded.run(values)?);
    trace.add(values, &wanted, &found)?;
    Ok(trace.errors(&expanded))
}
