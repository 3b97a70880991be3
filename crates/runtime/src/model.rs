//! A loaded model: its plan, its packed layers, and what it reports of itself.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use fpxint::{
    ActivationClip, AttentionPrecision, Clip, ExpandedLayer, Geometry, Granularity, Means, Plan as Precisions,
    Precision, Rounding, Settings, expand_corrected, into_expanded,
};
use fpxint_kernels::{Kernel, Pooling, with_default_floats};
use rayon::prelude::*;
use tract_onnx::prelude::*;

use crate::batch::After;
use crate::coded::{Met, readers};
use crate::crew::Working;
use crate::error::guarded;
use crate::held::Scratch;
use crate::layer::{Layer, LayerReport, fingerprint, pack};
use crate::memory::Footprint;
use crate::plan::{Action, HostNode, Plan, Slot, Step, plan};
use crate::separable::{self, Samples};
use crate::shared::Shared;
use crate::sharing::{HeldBytes, Sharing};
use crate::survey::layer_macs;
use crate::value::{Port, match_inputs, views};
use crate::{Error, Outputs, Value, ValueView, graph, placeholder};

/// What makes the expanded layer from a layer of an index and its settings.
type Expand = dyn Fn(usize, fpxint::Layer, &Settings) -> Result<ExpandedLayer, fpxint::Error> + Send + Sync;

/// A way to expand layers other than [`into_expanded`]; the plan and everything around the layers stay as they are.
#[derive(Clone)]
pub struct Expansion(pub Arc<Expand>);

impl std::fmt::Debug for Expansion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Expansion").finish_non_exhaustive()
    }
}

/// How to load a model.
#[derive(Debug, Clone)]
pub struct Options {
    /// Precision of weights that are not yet a series.
    pub weights: Option<Precision>,
    /// Precision of activations; for an artefact it replaces the stated one.
    pub activations: Option<Precision>,
    /// Precisions layer by layer, of weights that are not yet a series and of what enters them, with rounding and clips: they go
    /// before the settings of the same names here.
    pub plan: Option<Arc<Precisions>>,
    /// Which weights share a scale, where they are not yet a series.
    pub granularity: Granularity,
    /// How weights that are not yet a series become integers.
    pub rounding: Rounding,
    /// Which weights lie beyond the terms, where they are not yet a series.
    pub clip: Clip,
    /// Whether weights that are not yet a series have a bias a channel beside the terms.
    pub asymmetric: bool,
    /// How activations are clipped; for an artefact it replaces what is stated.
    pub activation_clip: Option<ActivationClip>,
    /// Means by which the biases of layers that are not yet series are corrected, by index.
    pub means: Option<Arc<Vec<Means>>>,
    /// How attention computes; otherwise as an artefact states, or on integers where no layer has activations of more than eight
    /// bits.
    pub attention: Option<AttentionPrecision>,
    /// Run only the first terms of the weights.
    pub weight_terms: Option<u32>,
    /// Quantise activations afresh at this many terms.
    pub activation_terms: Option<u32>,
    /// Threads a call uses.
    pub threads: usize,
    /// Name of the kernel to use; otherwise what `FPXINT_KERNEL` says, or the fastest.
    pub kernel: Option<String>,
    /// How layers are expanded instead; by [`into_expanded`] otherwise.
    pub expansion: Option<Expansion>,
    /// Widen the range of activations to one that is symmetric about zero.
    pub symmetric: bool,
    /// Whether every layer is hashed, for processes that must have them alike, whatever part of them each has.
    pub fingerprints: bool,
    /// Part in a group of workers; alone otherwise. Who shares terms has them all, so `weight_terms` is for the other ways.
    pub sharing: Sharing,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            weights: None,
            activations: None,
            plan: None,
            granularity: Granularity::Channel,
            rounding: Rounding::Nearest,
            clip: Clip::None,
            asymmetric: false,
            activation_clip: None,
            means: None,
            attention: None,
            weight_terms: None,
            activation_terms: None,
            threads: 1,
            kernel: None,
            expansion: None,
            symmetric: false,
            fingerprints: false,
            sharing: Sharing::Alone,
        }
    }
}

/// Time that one step of a plan took.
#[derive(Debug, Clone, PartialEq)]
pub struct StepTime {
    /// Name of its node; of the last one, where several are fused.
    pub name: String,
    /// What kind of step it is.
    pub operator: String,
    /// Wall time.
    pub seconds: f64,
    /// Multiply-accumulates of its layer; 0 where it is none.
    pub macs: u64,
    /// Its layer's index, where it is one.
    pub layer: Option<usize>,
}

/// A model ready to run; [`Model::run`] may be called from many threads at once.
#[derive(Debug)]
pub struct Model {
    pub(crate) plan: Plan,
    pub(crate) layers: Vec<Layer>,
    pub(crate) kernel: &'static dyn Kernel,
    pub(crate) threads: usize,
    pub(crate) sharing: Sharing,
    /// The workers within this process.
    pub(crate) working: Option<Working>,
    pub(crate) scratch: Mutex<Vec<Scratch>>,
    pub(crate) footprint: Footprint,
    /// What is known of the samples of a batch, where they may be run in parts.
    pub(crate) samples: Option<Samples>,
    pub(crate) sources: Vec<graph::Input>,
    /// By the slot of a value that only convolutions multiply: these layers.
    pub(crate) readers: HashMap<Slot, Vec<usize>>,
    /// By layer, what its outputs lately did.
    pub(crate) met: Vec<Met>,
    /// Multiply-accumulates of every layer, in the symbols of the inputs.
    macs: Vec<TDim>,
    pool: Option<rayon::ThreadPool>,
    reports: Vec<LayerReport>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

impl Model {
    /// Expands (where needed), packs and plans a model. `progress(done, layers)` is called as layers are packed.
    ///
    /// # Errors
    /// [`Error`], naming the node, layer or tensor at fault.
    pub fn load(
        source: &fpxint_onnx::Model,
        options: &Options,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Self, Error> {
        with_default_floats(|| Self::load_by_default(source, options, progress))
    }

    fn load_by_default(
        source: &fpxint_onnx::Model,
        options: &Options,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Self, Error> {
        let kernel = match &options.kernel {
            Some(name) => fpxint_kernels::named(name)?,
            None => fpxint_kernels::select()?,
        };
        let threads = options.threads.max(1);
        let pool = if threads == 1 { None } else { Some(start_pool(threads)?) };

        let typed = placeholder::typed(source)?;
        let mut plan = plan(&typed)?;
        // All workers of a group must reduce the sums of a layer together, and as often.
        let samples = match &options.sharing {
            Sharing::Alone => guarded(|| separable::samples(&typed)).map_err(Error::graph)?,
            _ => None,
        };

        let total = source.layers().len();
        let done = std::sync::atomic::AtomicUsize::new(0);
        let load = |index: usize| {
            let packed = load_layer(source, index, options);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
            packed
        };
        let packed: Vec<_> = match &pool {
            // One by one: the last layers of a model are often by far the largest.
            Some(pool) => pool.install(|| (0..total).into_par_iter().with_max_len(1).map(load).collect()),
            None => (0..total).map(load).collect(),
        };
        // Of several errors the first layer's, whichever came first in time.
        let packed: Vec<_> = packed.into_iter().collect::<Result<_, _>>()?;
        let (mut layers, reports): (Vec<Layer>, Vec<LayerReport>) = packed.into_iter().unzip();
        plan.set_attention(options.attention.or(source.attention()).unwrap_or_else(|| usual_attention(&layers)));
        for (&layer, &activation) in &plan.activations {
            layers[layer].set_activation(activation);
        }
        Ok(Self {
            sources: graph::inputs(&typed, source)?,
            inputs: graph::ports(source),
            outputs: graph::outputs(&typed, source)?,
            working: if let Sharing::Crew(crew) = &options.sharing { Some(Working::new(crew)) } else { None },
            sharing: options.sharing.clone(),
            scratch: Mutex::new(Vec::new()),
            footprint: guarded(|| Footprint::of(&typed)).map_err(Error::graph)?,
            samples,
            macs: guarded(|| Ok(layer_macs(&typed, total))).map_err(Error::graph)?,
            readers: readers(&plan, &layers),
            met: layers.iter().map(|_| Met::default()).collect(),
            plan,
            layers,
            kernel,
            threads,
            pool,
            reports,
        })
    }

    /// Runs the model on inputs by name. Every image or row gets the same bits whatever else is in the batch.
    ///
    /// # Errors
    /// [`Error::Input`] for inputs that do not fit; [`Error::Run`] naming the node that failed.
    pub fn run(&self, inputs: &[(String, Value)]) -> Result<Outputs, Error> {
        self.run_views(&views(inputs))
    }

    /// [`Model::run`] on inputs where they lie; those of float32 in the order of their indices are not copied.
    ///
    /// # Errors
    /// As [`Model::run`].
    pub fn run_views(&self, inputs: &[(&str, ValueView<'_>)]) -> Result<Outputs, Error> {
        self.run_observed(inputs, None)
    }

    /// Runs the model and measures every step of its plan, in order. A step's time is that of all parts of a batch, which are
    /// run one after another, each by all threads.
    ///
    /// # Errors
    /// As [`Model::run`].
    pub fn profile(&self, inputs: &[(String, Value)]) -> Result<Vec<StepTime>, Error> {
        let mut seconds = vec![0.0; self.plan.steps.len()];
        let mut last = Instant::now();
        let mut after = |step: usize| {
            let now = Instant::now();
            seconds[step] += now.duration_since(last).as_secs_f64();
            last = now;
        };
        self.run_observed(&views(inputs), Some(&mut after))?;
        let macs = self.macs_by_layer(inputs)?;
        let time = |(step, seconds): (&Step, f64)| {
            let operator = match &step.action {
                Action::Layer { layer } => match &self.layers[*layer].geometry {
                    Geometry::MatMul(_) => "MatMul".to_owned(),
                    geometry if geometry.is_depthwise() => "depthwise Conv".to_owned(),
                    Geometry::Conv(_) => "Conv".to_owned(),
                },
                Action::Activate(activation) => activation.name().to_owned(),
                Action::Permute { .. } => "layout".to_owned(),
                Action::Pool(pool) => match pool.pooling {
                    Pooling::Max => "MaxPool".to_owned(),
                    Pooling::Average { .. } => "AveragePool".to_owned(),
                },
                Action::GlobalAverage => "GlobalAveragePool".to_owned(),
                Action::ConcatChannels => "Concat".to_owned(),
                Action::Encoder(kind) => kind.name().to_owned(),
                Action::Tract { op, .. } => format!("host {}", op.name()),
            };
            let layer = if let Action::Layer { layer } = step.action { Some(layer) } else { None };
            let macs = layer.map_or(0, |layer| macs[layer]);
            StepTime { name: step.name.clone(), operator, seconds, macs, layer }
        };
        Ok(self.plan.steps.iter().zip(seconds).map(time).collect())
    }

    fn run_observed(&self, inputs: &[(&str, ValueView<'_>)], after: Option<After<'_>>) -> Result<Outputs, Error> {
        let matched = match_inputs(&self.inputs, inputs)?;
        // The threads of the pool have the environment of the one that started them.
        let parts = match &self.pool {
            Some(pool) => pool.install(|| self.execute_parts(&matched, after))?,
            None => with_default_floats(|| self.execute_parts(&matched, after))?,
        };
        let mut parts: Vec<_> = parts.into_iter().map(Vec::into_iter).collect();
        let output = |port: &Port| {
            let of_parts: Vec<_> = parts.iter_mut().flat_map(Iterator::next).collect();
            Ok((port.name.clone(), Value::from_tensors(&of_parts, &port.name)?))
        };
        self.outputs.iter().map(output).collect()
    }

    /// Into how many parts a run on these inputs is cut, one after another or one a thread: more than one only where every
    /// sample of a batch is known to have outputs of its own.
    ///
    /// # Errors
    /// [`Error::Input`] for inputs that do not fit.
    pub fn parts(&self, inputs: &[(String, Value)]) -> Result<usize, Error> {
        let views = views(inputs);
        let matched = match_inputs(&self.inputs, &views)?;
        let shapes: Vec<_> = matched.iter().map(|value| value.shape()).collect();
        Ok(self.cut(&shapes)?.map_or(1, |cut| cut.apart.len() + usize::from(!cut.together.is_empty())))
    }

    /// Multiply-accumulates of the expanded layers in one run on these inputs.
    ///
    /// # Errors
    /// [`Error::Input`] for inputs that do not fit.
    pub fn macs(&self, inputs: &[(String, Value)]) -> Result<u64, Error> {
        Ok(self.macs_by_layer(inputs)?.iter().sum())
    }

    fn macs_by_layer(&self, inputs: &[(String, Value)]) -> Result<Vec<u64>, Error> {
        let views = views(inputs);
        let matched = match_inputs(&self.inputs, &views)?;
        let shapes: Vec<_> = matched.iter().map(|v| v.shape()).collect();
        let values = graph::bind(&self.sources, &shapes)?;
        Ok(self.macs.iter().map(|macs| macs.eval_to_i64(&values).unwrap_or(0).max(0) as u64).collect())
    }

    /// Inputs.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// Outputs.
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// Layers, by index.
    pub fn layers(&self) -> &[LayerReport] {
        &self.reports
    }

    /// By layer, the share of the activations that entered it so far and lay beyond their codes; `None` where they are not
    /// clipped, or none entered.
    pub fn activations_beyond(&self) -> Vec<Option<f64>> {
        let share = |layer: &Layer| {
            let [entered, beyond] = [0, 1].map(|i| layer.entered[i].load(Ordering::Relaxed));
            (entered > 0).then(|| beyond as f64 / entered as f64)
        };
        self.layers.iter().map(share).collect()
    }

    /// Workers of a group that have nothing of any layer, because there are fewer members than workers.
    pub fn idle_workers(&self) -> usize {
        let partition = match &self.sharing {
            Sharing::Terms { partition, .. } => partition,
            Sharing::Crew(crew) => &crew.partition,
            _ => return 0,
        };
        let members = |l: &LayerReport| (l.weights.order() * l.activations.order()) as usize;
        let most = self.reports.iter().map(members).max().unwrap_or(0);
        partition.workers().saturating_sub(most)
    }

    /// Bytes that this process holds of a model whose terms are shared; after a run, with the room that it took.
    pub fn held_bytes(&self) -> HeldBytes {
        let bits = |l: &LayerReport| {
            let weights: u64 = l.geometry.weight_shape().iter().map(|&dim| dim as u64).product();
            weights * u64::from(l.weights.total_bits())
        };
        let parts = |layer: &Layer| match &layer.shared {
            Some(Shared::Terms(share)) => share.workers.iter().flatten().map(|p| p.product.constant_bytes()).sum(),
            _ => 0usize,
        };
        let constants = self.layers.iter().map(|l| l.product.constant_bytes() + parts(l)).sum::<usize>();
        let host: usize = self.plan.constants.iter().map(|(_, t)| t.len() * t.datum_type().size_of()).sum();
        let room = |scratch: &mut Scratch| scratch.own(1).iter().map(|(_, room)| room.bytes()).sum::<usize>();
        let rooms = self.scratch.lock().map_or(0, |mut all| all.iter_mut().map(room).sum());
        HeldBytes {
            terms: self.reports.iter().map(|l| l.bytes as u64).sum(),
            all_terms: self.reports.iter().map(bits).sum::<u64>().div_ceil(8),
            rest: (constants + host) as u64,
            room: rooms as u64,
        }
    }

    /// Whether every run needs other processes to run the same.
    pub fn is_joint(&self) -> bool {
        matches!(self.sharing, Sharing::Terms { .. } | Sharing::Channels { .. })
    }

    /// Whether every sample of a batch has outputs of its own, so that a batch may be run in any parts.
    pub fn is_separable(&self) -> bool {
        self.samples.is_some()
    }

    /// Name of the kernel in use.
    pub fn kernel(&self) -> &'static str {
        self.kernel.name()
    }

    /// The nodes left to tract; those that are not exact are what the promise of equal bits on every CPU does not cover.
    pub fn left_to_tract(&self) -> Vec<HostNode> {
        self.plan.left_to_tract()
    }
}

/// How attention computes where nobody says: on integers as wide as those of its neighbours, if these have eight bits at most.
fn usual_attention(layers: &[Layer]) -> AttentionPrecision {
    let few = layers.iter().all(|layer| layer.activations.total_bits() <= 8);
    let eight = Precision::new(8, 1).and_then(AttentionPrecision::int);
    if few && !layers.is_empty() { eight.unwrap_or_default() } else { AttentionPrecision::Fp32 }
}

fn start_pool(threads: usize) -> Result<rayon::ThreadPool, Error> {
    let built = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    built.map_err(|e| Error::Threads { threads, reason: e.to_string() })
}

fn load_layer(source: &fpxint_onnx::Model, index: usize, options: &Options) -> Result<(Layer, LayerReport), Error> {
    let info = &source.layers()[index];
    let plan = options.plan.as_ref().filter(|_| info.weights.is_none());
    let planned = plan.map(|plan| plan.of(&info.name));
    let stated = planned.map(|planned| planned.activations).or(options.activations).or(info.activations);
    let mut activations = stated.ok_or_else(|| Error::NoActivations { layer: info.name.clone() })?;
    if let Some(terms) = options.activation_terms {
        activations = activations.with_order(terms)?;
    }
    let weights = planned.map(|planned| planned.weights).or(options.weights).or(info.weights).unwrap_or(activations);
    let Options { granularity, rounding, clip, asymmetric, .. } = *options;
    let activation_clip = options.activation_clip.unwrap_or(info.activation_clip);
    let base = Settings { weights, activations, granularity, rounding, clip, asymmetric, activation_clip };
    let settings = plan.map_or(base, |plan| Settings { activations, ..plan.settings(&info.name, base) });
    let means = options.means.as_ref().and_then(|means| means.get(index)).filter(|_| info.weights.is_none());
    let expanded = match (&options.expansion, means) {
        (Some(Expansion(expand)), _) => expand(index, source.layer(index)?, &settings)?,
        (None, Some(means)) => expand_corrected(&source.layer(index)?, &settings, Some(means))?,
        (None, None) => into_expanded(source.layer(index)?, &settings)?,
    };
    let shares_terms = matches!(options.sharing, Sharing::Terms { .. } | Sharing::Crew(_));
    let fingerprint = options.fingerprints.then(|| fingerprint(&expanded));
    let (mut layer, report) = pack(expanded, options.weight_terms.filter(|_| !shares_terms), &options.sharing)?;
    layer.symmetric = options.symmetric;
    Ok((layer, LayerReport { fingerprint, ..report }))
}
