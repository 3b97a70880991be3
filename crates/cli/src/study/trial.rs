//! The model under study: settings in, scores out, by the same code as `fpxint eval`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::{Context, Result, ensure};
use fpxint::{Geometry, LayerPrecision, Plan, Precision};
use fpxint_onnx::Model;
use fpxint_runtime::{Float, LayerReport, Options, Outputs};

use super::args::Study;
use super::progress::Progress;
use super::remembered::{Inputs, Remembered};
use crate::args::{Common, Eval, Precisions, Task};
use crate::commands::eval::{self, Engines, Metrics};
use crate::engine::{self, Engine};
use crate::metrics::{Closeness, Tally, weighted_mean};
use crate::page::figure::{Axis, Show};
use crate::plan_file;

/// Inputs of the data that activations are compared on.
const SAMPLES: usize = 4;

/// What a setting scores, and what it costs.
#[derive(Debug, Clone)]
pub(super) struct Score {
    /// Mean effective bits, of weights by their number and of activations by multiply-accumulates; NaN where it is no one model.
    pub weight_bits: f64,
    pub activation_bits: f64,
    /// Products relative to one 8-bit product everywhere.
    pub products: f64,
    /// The task's first metric.
    pub metric: f64,
    /// Share of samples on which it agrees with FP32.
    pub agreement: f64,
    /// How far its outputs are from those of FP32, where the task tells.
    pub outputs: Option<Closeness>,
    /// Metrics of FP32.
    pub fp32: Metrics,
}

impl Score {
    /// Largest output error relative to the largest output.
    pub(super) fn relative(&self) -> Option<f64> {
        self.outputs.as_ref().map(|outputs| outputs.relative)
    }

    /// Signal to noise of the outputs in decibels.
    pub(super) fn sqnr(&self) -> Option<f64> {
        self.outputs.as_ref().and_then(|outputs| outputs.sqnr_db)
    }
}

/// Differences of activations between a setting and FP32.
#[derive(Debug, Clone, Copy)]
pub(super) struct Difference {
    /// Largest `|a - b|` over the outputs of all layers.
    pub layers: f64,
    /// Largest `|a - b|` of the model's outputs.
    pub outputs: f64,
}

/// Outputs of FP32 with what leaves every layer among them.
#[derive(Debug)]
struct Exposed {
    model: Model,
    runs: Vec<(Inputs, Outputs)>,
    /// Outputs that the file has itself.
    own: usize,
}

/// A model with its data.
pub(super) struct Trial<'a> {
    pub common: &'a Common,
    pub args: &'a Study,
    pub source: Model,
    /// Multiply-accumulates of every layer.
    pub macs: Vec<u64>,
    pub progress: &'a Progress,
    eval: Eval,
    quiet: Common,
    reference: OnceLock<Arc<Remembered>>,
    exposed: OnceLock<Exposed>,
    scores: Mutex<HashMap<String, Score>>,
}

/// `int<bits>x<terms>`.
pub(super) fn int(bits: u32, terms: u32) -> Result<Precision> {
    Ok(Precision::new(bits, terms)?)
}

impl<'a> Trial<'a> {
    pub(super) fn new(common: &'a Common, args: &'a Study, source: Model, progress: &'a Progress) -> Result<Self> {
        let macs = fpxint_runtime::survey(&source)?.macs;
        Ok(Self {
            common,
            args,
            source,
            macs,
            progress,
            eval: args.eval(),
            quiet: common.quietly(),
            reference: OnceLock::new(),
            exposed: OnceLock::new(),
            scores: Mutex::default(),
        })
    }

    /// Options of uniform precisions.
    pub(super) fn options(&self, weights: Precision, activations: Precision) -> Options {
        let threads = self.common.threads();
        Options { weights: Some(weights), activations: Some(activations), threads, ..Options::default() }
    }

    /// Options of precisions layer by layer; the plan is written to the study's folder under `name`, for the other commands.
    pub(super) fn planned(&self, plan: Plan, name: &str) -> Result<Options> {
        let folder = self.args.output.join("plans");
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let names: Vec<&str> = self.source.layers().iter().map(|layer| layer.name.as_str()).collect();
        let file = folder.join(format!("{name}.toml"));
        if !file.exists() {
            plan_file::write(&file, &plan, &names, "fpxint study")?;
        }
        Ok(Options { plan: Some(Arc::new(plan)), threads: self.common.threads(), ..Options::default() })
    }

    /// A plan of one precision for most layers and another for some.
    pub(super) fn plan(&self, default: LayerPrecision, others: &[(usize, LayerPrecision)]) -> Plan {
        let name = |index: usize| self.source.layers()[index].name.clone();
        let layers = others.iter().map(|&(index, precision)| (name(index), precision)).collect();
        Plan { default, layers, corrected: false, rotated: false }
    }

    /// The name of the task's first metric, for people.
    pub(super) fn metric_title(&self) -> &'static str {
        match self.args.set.task {
            Task::Imagenet | Task::Cifar10 => "top-1 accuracy",
            Task::StsB => "Spearman correlation",
            Task::Squad => "F1",
            Task::Mnli => "accuracy",
        }
    }

    /// How that metric is written.
    pub(super) fn metric_show(&self) -> Show {
        if self.args.set.task == Task::StsB { Show::Fixed(4) } else { Show::Percent(2) }
    }

    /// The axis of that metric, and of what stands beside it.
    pub(super) fn metric_axis(&self, beside: &str) -> Axis {
        let title = format!("{}{beside}", self.metric_title());
        if self.args.set.task == Task::StsB { Axis::linear(&title) } else { Axis::percent(&title) }
    }

    fn metric(&self, metrics: &Metrics) -> f64 {
        let key = match self.args.set.task {
            Task::Imagenet | Task::Cifar10 => "top1",
            Task::StsB => "spearman",
            Task::Squad => "f1",
            Task::Mnli => "accuracy",
        };
        metrics.get(key).copied().unwrap_or(f64::NAN)
    }

    /// FP32's first metric.
    pub(super) fn fp32(&self) -> Result<f64> {
        Ok(self.metric(&self.score(&self.options(int(4, 2)?, int(4, 2)?))?.fp32))
    }

    fn reference(&self) -> Result<&Arc<Remembered>> {
        if self.reference.get().is_none() {
            let _ = self.reference.set(Remembered::new(self.engine(&Precisions::default())?, SAMPLES));
        }
        self.reference.get().context("the reference is loaded")
    }

    /// Loads the model with these options.
    pub(super) fn load(&self, options: &Options) -> Result<Engine> {
        engine::expand(&self.quiet, &self.source, options)
    }

    /// The model as other commands load it with these flags.
    pub(super) fn engine(&self, precisions: &Precisions) -> Result<Engine> {
        engine::load_read(&self.quiet, &self.source, &self.args.model, precisions)
    }

    /// What a setting scores on all samples; settings that were scored before are not run again.
    pub(super) fn score(&self, options: &Options) -> Result<Score> {
        let key = format!("{options:?}");
        let scores = || self.scores.lock().unwrap_or_else(PoisonError::into_inner);
        if let (None, Some(score)) = (&options.expansion, scores().get(&key)) {
            return Ok(score.clone());
        }
        let score = self.score_of(self.load(options)?, None)?;
        if options.expansion.is_none() {
            scores().insert(key, score.clone());
        }
        Ok(score)
    }

    /// What a model scores on all samples, or on the first `limit`.
    pub(super) fn score_of(&self, model: Engine, limit: Option<u32>) -> Result<Score> {
        let costs = match &model {
            Engine::Expanded(model) => self.costs(model.layers()),
            _ => [f64::NAN; 3],
        };
        let mut eval = self.args.eval();
        eval.set.limit = limit.or(self.eval.set.limit);
        let reference = Engine::Derived(self.reference()?.clone());
        let engines = Engines { model, reference: Some(reference) };
        let set = eval::open(&eval)?;
        let report = eval::measured(&self.quiet, &eval, set, &engines)?;
        let reference = report.reference.context("a reference was there")?;
        let [weight_bits, activation_bits, products] = costs;
        Ok(Score {
            weight_bits,
            activation_bits,
            products,
            metric: self.metric(&report.metrics),
            agreement: reference.agreement,
            outputs: reference.outputs,
            fp32: reference.metrics,
        })
    }

    /// Mean bits of weights and activations, and products.
    fn costs(&self, layers: &[LayerReport]) -> [f64; 3] {
        let elements = |layer: &LayerReport| layer.geometry.weight_shape().iter().product::<usize>() as f64;
        let bits = |p: Precision| f64::from(p.total_bits());
        let macs = || self.macs.iter().map(|&macs| macs as f64);
        [
            weighted_mean(layers.iter().map(|l| (bits(l.weights), elements(l)))),
            weighted_mean(layers.iter().zip(macs()).map(|(l, m)| (bits(l.activations), m))),
            weighted_mean(layers.iter().zip(macs()).map(|(l, m)| (f64::from(l.products), m))),
        ]
    }

    /// Some of the data, as inputs.
    pub(super) fn samples(&self) -> Result<Vec<Inputs>> {
        let reference = self.reference()?;
        if reference.samples().is_empty() {
            self.score_of(self.load(&self.options(int(4, 2)?, int(4, 2)?))?, None)?;
        }
        Ok(reference.samples())
    }

    /// How far activations are from those of FP32, on a few samples.
    pub(super) fn difference(&self, options: &Options) -> Result<Difference> {
        let exposed = self.exposed()?;
        let model = engine::expand(&self.quiet, &exposed.model, options)?;
        let (mut layers, mut own) = (Tally::default(), Tally::default());
        for (inputs, wanted) in &exposed.runs {
            let outputs = model.run(inputs)?;
            for (place, (name, a)) in wanted.iter().enumerate() {
                let b = outputs.iter().find(|(other, _)| other == name);
                let b = &b.with_context(|| format!("value `{name}` was not handed out"))?.1;
                let (a, b) = (a.to_f32(), b.to_f32());
                ensure!(a.shape() == b.shape(), "value `{name}` has shape {:?} and {:?}", a.shape(), b.shape());
                let dense = "a contiguous value";
                let tally = if place < exposed.own { &mut own } else { &mut layers };
                tally.add_values(a.as_slice().context(dense)?, b.as_slice().context(dense)?);
            }
        }
        let largest = |tally: &Tally| tally.closeness("").max_abs;
        // A layer's output may be the model's.
        Ok(Difference { layers: largest(&layers).max(largest(&own)), outputs: largest(&own) })
    }

    fn exposed(&self) -> Result<&Exposed> {
        if self.exposed.get().is_none() {
            let samples = self.samples()?;
            let mut model = self.source.clone();
            let own = model.outputs().len();
            let names: Vec<String> = model.layers().iter().map(|layer| layer.output.clone()).collect();
            model.expose(&names)?;
            let float = Float::load(&model)?;
            let run = |inputs: Inputs| {
                let outputs = float.run(&inputs)?;
                anyhow::Ok((inputs, outputs))
            };
            let runs = samples.into_iter().map(run).collect::<Result<_>>()?;
            let _ = self.exposed.set(Exposed { model, runs, own });
        }
        self.exposed.get().context("the values were handed out")
    }

    /// The command that scores uniform precisions.
    pub(super) fn command(&self) -> String {
        let limit = self.args.set.limit.map_or(String::new(), |limit| format!(" --limit {limit}"));
        let preset = self.args.set.preset.map_or("", |preset| match preset {
            crate::args::Preset::Torchvision => " --preset torchvision",
            crate::args::Preset::Tf => " --preset tf",
        });
        let model = self.args.model.file_name().unwrap_or_default().to_string_lossy();
        format!(
            "fpxint eval {model} --task {} --data DATA{preset}{limit} --reference {model} --weights W --activations A",
            self.args.set.task.name()
        )
    }

    /// Names of the layers, with their place where two would look alike.
    pub(super) fn layer_names(&self) -> Vec<String> {
        self.source.layers().iter().map(|layer| layer.name.clone()).collect()
    }

    /// Whether a layer is depthwise.
    pub(super) fn is_depthwise(&self, index: usize) -> bool {
        let geometry: &Geometry = &self.source.layers()[index].geometry;
        geometry.is_depthwise()
    }
}
