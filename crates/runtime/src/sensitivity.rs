//! How much the precisions of each layer matter: what the planner chooses by.
//!
//! ```text
//! e_w, e_a   relative variances of a layer's weights and activations at a precision: of the weights from their expansion, of
//!            the activations from the ranges and second moments of a run on the given inputs
//! gain       |y' - y|^2 / |y|^2 / e        y: the model's outputs at 16 bits;  y': with the layer's weights, or its
//!            activations, at eight, clipped as they would be, whose relative variance is e
//! ```
//!
//! The variances of independent roundings add up, and each grows with the square of its step, so that two runs a layer tell
//! what every combination does to the output. Outputs that are distributions are compared by their logarithms.

use fpxint::{
    ActivationClip, ActivationOption, Clip, Geometry, Goal, Granularity, LayerOptions, Means, Precision, Series,
    Settings, Weight, WeightOption, expand_corrected, expand_layer,
};
use fpxint_onnx::LayerInfo;
use rayon::prelude::*;

use crate::coded::readers;
use crate::layer::{Layer, pack};
use crate::moments::Moments;
use crate::observe::{Inputs, Observer, fine};
use crate::{Error, Model, Outputs, Sharing, Value, survey};

/// A model of more multiply-accumulates than this over all runs of a measurement takes gains of one instead.
const MOST_MACS: u64 = 2_000_000_000_000;

/// What a measurement is made with.
#[derive(Debug, Clone)]
pub struct Measurement<'a> {
    /// What the planner shall choose among.
    pub goal: Goal,
    /// How weights are expanded, whatever their precision; its clip is not used.
    pub base: Settings,
    /// The clip of all weights; otherwise that of weights of few bits may be [`Clip::Mse`], and others have none.
    pub clip: Option<Clip>,
    /// Whether all weights have a bias a channel; otherwise those of few bits have one, and those of eight in matrix products where
    /// it pays.
    pub asymmetric: Option<bool>,
    /// The clip of all activations; otherwise [`ActivationClip::Laplace`] where it commonly pays: of rows, in eight bits.
    pub activation_clip: Option<ActivationClip>,
    /// Inputs to run on, one set a run.
    pub runs: &'a [Inputs],
    /// Means by which biases are corrected, by layer; empty where they are not.
    pub means: &'a [Means],
    /// Threads to use.
    pub threads: usize,
}

impl Measurement<'_> {
    /// What the planner needs to know of every layer of a model in FP32, by index. `progress(done, steps)` is called as it goes.
    ///
    /// # Errors
    /// As [`Model::load`] and [`Model::run`].
    pub fn layers(
        &self,
        source: &fpxint_onnx::Model,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Vec<LayerOptions>, Error> {
        let moments = self.moments(source)?;
        let macs = survey(source)?.macs;
        let layers = (0..source.layers().len()).into_par_iter().with_max_len(1);
        let mut layers: Vec<LayerOptions> = layers
            .map(|index| {
                let info = &source.layers()[index];
                Ok(LayerOptions {
                    name: info.name.clone(),
                    geometry: info.geometry.clone(),
                    macs: macs[index],
                    elements: info.elements,
                    weights: self.weights(source, index)?,
                    activations: moments[index].options(),
                    gains: [1.0; 2],
                })
            })
            .collect::<Result<_, Error>>()?;
        if self.follows_rules() {
            return Ok(layers);
        }
        let mut bench = Bench::new(self, source)?;
        let tries = layers.iter().map(|layer| 2 + coarser(layer).count() as u64).sum();
        if bench.cost(self.runs, tries)? > MOST_MACS {
            return Ok(layers);
        }
        for (index, layer) in layers.iter_mut().enumerate() {
            let coarse = layer.activations.iter().find(|option| option.precision == bench.coarse);
            layer.gains = bench.gains(index, coarse)?;
            for at in coarser(layer).collect::<Vec<_>>() {
                layer.weights[at].added = bench.added(index, &layer.weights[at])?;
            }
            progress(index + 1, source.layers().len());
        }
        Ok(layers)
    }

    fn weights(&self, source: &fpxint_onnx::Model, index: usize) -> Result<Vec<WeightOption>, Error> {
        let layer = source.layer(index)?;
        let mut tried = Vec::new();
        for weights in self.goal.weights() {
            for clip in self.clips(weights) {
                let symmetries = self.symmetries(weights, &layer.geometry);
                tried.extend(symmetries.map(|asymmetric| Settings { weights, clip, asymmetric, ..self.base }));
            }
        }
        let options = tried.into_iter().map(|settings| {
            let expanded = expand_layer(&layer, &settings)?;
            let Weight::Float(floats) = &layer.weight else {
                return Err(Error::Graph(format!("layer `{}` is expanded already", layer.name)));
            };
            Ok(weight_option(&layer.name, floats, &expanded.weight, &settings)?)
        });
        options.collect()
    }

    /// Whether the goal chooses by rules, to which neither gains nor clips matter.
    fn follows_rules(&self) -> bool {
        matches!(self.goal, Goal::Stopping(_))
    }

    /// The clips of weights to try: terms of fewer bits than a byte leave room beyond them.
    fn clips(&self, weights: Precision) -> impl Iterator<Item = Clip> + use<> {
        let may = self.clip.is_none() && weights.total_bits() < 8 && !self.follows_rules();
        let has_room = Clip::Mse.obstacle(weights, self.base.granularity).is_none();
        let other = (may && has_room).then_some(Clip::Mse);
        [Some(self.clip.unwrap_or_default()), other].into_iter().flatten()
    }

    /// Whether to try weights with a bias and without. It costs nothing where it fits the bytes that hold the terms; convolutions
    /// of eight bits gain no more by it than by other uses of the time.
    fn symmetries(&self, weights: Precision, geometry: &Geometry) -> impl Iterator<Item = bool> + use<> {
        let is_tried = self.asymmetric.is_none() && !self.follows_rules();
        let may_pay = matches!((geometry, self.goal), (Geometry::MatMul(_), Goal::Products(_)));
        let first = self.asymmetric.unwrap_or(is_tried && weights.total_bits() < 8);
        [Some(first), (is_tried && may_pay && weights.total_bits() == 8).then_some(true)].into_iter().flatten()
    }

    /// How the activations of a layer are clipped: those of images, those of more bits, and those that are rotated have little to
    /// gain. What rows of real tokens gain, synthetic ones do not show.
    fn activation_clip(&self, precision: Precision, info: &LayerInfo) -> ActivationClip {
        let of_rows = matches!(info.geometry, Geometry::MatMul(_)) && info.rotation.is_none();
        let pays = of_rows && precision.total_bits() <= 8 && !self.follows_rules();
        self.activation_clip.unwrap_or(if pays { ActivationClip::Laplace } else { ActivationClip::None })
    }

    /// Statistics of what enters every layer.
    fn moments(&self, source: &fpxint_onnx::Model) -> Result<Vec<Moments>, Error> {
        let ways = |info| self.goal.activations().into_iter().map(move |p| (p, self.activation_clip(p, info)));
        let mut moments: Vec<_> = source.layers().iter().map(|info| Moments::new(ways(info))).collect();
        let observer = Observer::new(source, self.threads)?;
        for inputs in self.runs {
            observer.run(inputs, &mut |index, x| moments[index].add(x, &source.layers()[index].geometry))?;
        }
        Ok(moments)
    }
}

/// Places of the ways to expand a layer's weights in fewer bits than gains are measured at.
fn coarser(layer: &LayerOptions) -> impl Iterator<Item = usize> {
    let bits = layer.weights.iter().map(|option| option.precision.total_bits());
    bits.enumerate().filter(|&(_, bits)| bits < 8).map(|(at, _)| at)
}

/// The precision at which gains are measured.
fn coarse() -> Result<Precision, Error> {
    Ok(Precision::new(4, 2)?)
}

fn weight_option(
    name: &str,
    floats: &[f32],
    series: &Series,
    settings: &Settings,
) -> Result<WeightOption, fpxint::Error> {
    let precision = series.precision();
    let channels = series.channels();
    let (mut noise, mut power) = (0f64, 0f64);
    let mut norms = vec![[0f64; 3]; channels.count];
    for (i, value) in series.values(name, precision.order())?.enumerate() {
        let (w, error) = (f64::from(floats[i]), value - f64::from(floats[i]));
        noise += error * error;
        power += w * w;
        let norm = &mut norms[channels.of(i)];
        for (sum, part) in norm.iter_mut().zip([w, error, value]) {
            *sum += part.abs();
        }
    }
    let largest = |part: usize| norms.iter().map(|n| ratio(n[part], n[0])).fold(0.0, f64::max);
    Ok(WeightOption {
        precision,
        rounding: settings.rounding,
        clip: settings.clip,
        asymmetric: !series.offsets().is_empty(),
        bits: series.mean_bits(),
        width: series.width(precision.order()),
        variance: ratio(noise, power),
        added: None,
        step: series.term_scales(precision.order()).iter().map(|&scale| f64::from(scale)).fold(0.0, f64::max),
        certified: largest(1),
        magnitude: largest(2),
    })
}

/// `part / whole`, which is nothing of nothing.
fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// The model at 16 bits, in which one layer at a time is made coarser.
struct Bench<'a> {
    source: &'a fpxint_onnx::Model,
    measurement: &'a Measurement<'a>,
    model: Model,
    /// Its outputs for every run.
    wanted: Vec<Outputs>,
    coarse: Precision,
    fine: Precision,
}

impl<'a> Bench<'a> {
    fn new(measurement: &'a Measurement<'a>, source: &'a fpxint_onnx::Model) -> Result<Self, Error> {
        let model = Model::load(source, &fine(measurement.threads), &|_, _| {})?;
        let (coarse, fine) = (coarse()?, Precision::new(8, 2)?);
        Ok(Self { source, measurement, model, wanted: Vec::new(), coarse, fine })
    }

    /// Multiply-accumulates of bytes in a whole measurement of so many tries.
    fn cost(&self, runs: &[Inputs], tries: u64) -> Result<u64, Error> {
        let macs = runs.iter().map(|run| self.model.macs(run)).sum::<Result<u64, Error>>()?;
        Ok(macs.saturating_mul(4 * (tries + 1)))
    }

    /// What a way to expand a layer's weights adds to the relative variance of the outputs.
    fn added(&mut self, index: usize, option: &WeightOption) -> Result<Option<f64>, Error> {
        let WeightOption { precision: weights, rounding, clip, asymmetric, .. } = *option;
        let base = self.measurement.base;
        let settings = Settings { weights, activations: self.fine, rounding, clip, asymmetric, ..base };
        let means = self.measurement.means.get(index);
        let expanded = expand_corrected(&self.source.layer(index)?, &settings, means)?;
        let effect = self.effect(index, pack(expanded, None, &Sharing::Alone)?.0)?;
        Ok(effect.is_finite().then_some(effect))
    }

    /// Gains of a layer's weights, and of its activations expanded so.
    fn gains(&mut self, index: usize, activations: Option<&ActivationOption>) -> Result<[f64; 2], Error> {
        if self.wanted.is_empty() {
            self.wanted = self.measurement.runs.iter().map(|run| self.model.run(run)).collect::<Result<_, _>>()?;
        }
        let layer = self.source.layer(index)?;
        let settings = Settings { weights: self.coarse, activations: self.fine, ..self.base() };
        let expanded = expand_corrected(&layer, &settings, self.measurement.means.get(index))?;
        let of_weights = match &layer.weight {
            Weight::Float(floats) => weight_option(&layer.name, floats, &expanded.weight, &settings)?.variance,
            Weight::Series(_) => 0.0,
        };
        let weights = self.effect(index, pack(expanded, None, &Sharing::Alone)?.0)?;
        let clip = activations.map_or(settings.activation_clip, |option| option.clip);
        let settings = Settings { weights: self.fine, activations: self.coarse, activation_clip: clip, ..self.base() };
        let expanded = expand_layer(&layer, &settings)?;
        let of_activations = activations.map_or(0.0, |option| option.variance);
        let activations = self.effect(index, pack(expanded, None, &Sharing::Alone)?.0)?;
        // A layer without an error, or without outputs to tell, is no more than any other.
        let gain = |[effect, variance]: [f64; 2]| {
            if variance > 0.0 && effect.is_finite() { effect / variance } else { 1.0 }
        };
        Ok([[weights, of_weights], [activations, of_activations]].map(gain))
    }

    /// How layers are expanded while gains are measured.
    fn base(&self) -> Settings {
        Settings { granularity: Granularity::Channel, clip: Clip::None, ..self.measurement.base }
    }

    /// Relative variance of the outputs with another layer in the place of `index`.
    fn effect(&mut self, index: usize, layer: Layer) -> Result<f64, Error> {
        let kept = self.exchange(index, layer);
        let outputs: Result<Vec<Outputs>, Error> =
            self.measurement.runs.iter().map(|run| self.model.run(run)).collect();
        self.exchange(index, kept);
        let outputs = outputs?;
        let pairs = self.wanted.iter().flatten().zip(outputs.iter().flatten());
        let effects: Vec<f64> = pairs.filter_map(|((_, a), (_, b))| difference(a, b)).collect();
        Ok(effects.iter().sum::<f64>() / effects.len() as f64)
    }

    fn exchange(&mut self, index: usize, mut layer: Layer) -> Layer {
        if let Some(&activation) = self.model.plan.activations.get(&index) {
            layer.product.set_activation(activation);
        }
        let kept = std::mem::replace(&mut self.model.layers[index], layer);
        self.model.readers = readers(&self.model.plan, &self.model.layers);
        kept
    }
}

/// `|a - b|^2 / |a|^2` of an output of floats.
fn difference(a: &Value, b: &Value) -> Option<f64> {
    let (Value::F32(a), Value::F32(b)) = (a, b) else { return None };
    let width = a.shape().last().copied().unwrap_or(1).max(1);
    let (mut a, mut b): (Vec<f64>, Vec<f64>) =
        (a.iter().map(|&v| f64::from(v)).collect(), b.iter().map(|&v| f64::from(v)).collect());
    if a.chunks(width).all(is_distribution) {
        [&mut a, &mut b].into_iter().for_each(|values| values.chunks_mut(width).for_each(centred_logarithms));
    }
    let noise: f64 = a.iter().zip(&b).map(|(a, b)| (a - b) * (a - b)).sum();
    let power: f64 = a.iter().map(|a| a * a).sum();
    (power > 0.0).then_some(noise / power)
}

fn is_distribution(row: &[f64]) -> bool {
    row.len() > 1 && row.iter().all(|&p| p >= 0.0) && (row.iter().sum::<f64>() - 1.0).abs() < 1e-3
}

/// What Softmax made a distribution of, up to a constant.
fn centred_logarithms(row: &mut [f64]) {
    row.iter_mut().for_each(|p| *p = p.max(1e-30).ln());
    let mean = row.iter().sum::<f64>() / row.len() as f64;
    row.iter_mut().for_each(|p| *p -= mean);
}
