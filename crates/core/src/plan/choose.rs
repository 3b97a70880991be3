//! The planner: precisions of every layer for a goal, from what is known of each layer's error.
//!
//! ```text
//! e_w    = |W - W^|^2 / |W|^2            e_a = step_a^2 / (12 E[a^2])          relative variances of the two roundings
//! error  = sqrt(e_w + e_a)               expected relative error of a layer's output
//! added  = gain_w e_w + gain_a e_a       what the layer adds to the relative variance of the model's output; for weights of few
//!                                        bits as measured, since their errors are too large to grow with e_w
//! ```
//!
//! * products: the least sum of `added` with at most so many products, a product being one of eight bits everywhere. Products
//!   beyond the first are counted by multiply-accumulates or by time, whichever share is larger, and the rank-one products of
//!   asymmetric weights by time.
//! * bits: the least sum of `added` with at most so many bits a weight in the mean.
//! * stopping rules of the paper: terms of `X` bits for weights until `scale_n 2^X < 1e-2` and for activations until the largest
//!   error is below 1e-4, or as many as run; the first and the last layer in eight bits.
//! * tolerance: for every layer the fewest products, and of those the fewest bits, with `error` within the tolerance.

use super::LayerPrecision;
use super::knapsack::{Choice, least_error};
use crate::{ActivationClip, Clip, Error, ExpandedLayer, Geometry, Precision, Rounding};

/// What a plan is to reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// At most so many integer-product multiply-accumulates, relative to one 8-bit product everywhere.
    Products(f64),
    /// An expected relative output error of at most this in every layer.
    Tolerance(f64),
    /// At most so many bits a weight in the mean.
    Bits(f64),
    /// As many terms of so many bits as the paper's stopping rules ask for.
    Stopping(u32),
}

/// The stopping rules: the largest scale of weights one term further back, and the largest error of activations.
const STOP_WEIGHTS: f64 = 1e-2;
const STOP_ACTIVATIONS: f64 = 1e-4;
/// Most effective bits that run.
const MOST_BITS: u32 = 24;

/// How long a multiply-accumulate of a depthwise layer takes, in those of another.
const DEPTHWISE_TIME: f64 = 12.0;

/// How long a rank-one product takes, in products of the layer: its sums, over the output channels and the kernel's columns; adding
/// it, over the depth of a window; and for every row of the kernel, over depth and channels.
const RANK_ONE_TIME: [f64; 3] = [7.0, 10.0, 500.0];

/// Grain of products and of mean bits in the choice of the least error.
const PRODUCTS_UNIT: f64 = 2e-5;
const BITS_UNIT: f64 = 2e-4;

impl Goal {
    /// Precisions of weights that the goal chooses among.
    ///
    /// Sixteen bits take the products of twelve and more bytes, so that only a tolerance asks for them; and fewer than eight
    /// save no products.
    pub fn weights(self) -> Vec<Precision> {
        match self {
            Goal::Products(_) => precisions(&[(4, 2), (4, 3)]),
            Goal::Tolerance(_) => precisions(&[(4, 1), (4, 2), (4, 3), (4, 4)]),
            Goal::Bits(_) => precisions(&[(2, 1), (3, 1), (4, 1), (4, 2), (4, 3)]),
            Goal::Stopping(bits) => stopping(bits),
        }
    }

    /// Precisions of activations that the goal chooses among.
    pub fn activations(self) -> Vec<Precision> {
        match self {
            Goal::Products(_) => precisions(&[(4, 2), (4, 3)]),
            Goal::Tolerance(_) => precisions(&[(4, 2), (4, 3), (4, 4)]),
            Goal::Bits(_) => precisions(&[(4, 2)]),
            Goal::Stopping(bits) => stopping(bits),
        }
    }
}

/// One to as many terms of `bits` as run, and at last eight bits.
fn stopping(bits: u32) -> Vec<Precision> {
    let mut pairs: Vec<_> = (1..=MOST_BITS / bits.max(1)).map(|order| (bits, order)).collect();
    pairs.push((8, 1));
    precisions(&pairs)
}

fn precisions(of: &[(u32, u32)]) -> Vec<Precision> {
    of.iter().filter_map(|&(bits, order)| Precision::new(bits, order).ok()).collect()
}

/// One way to expand the weights of a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WeightOption {
    /// Its precision.
    pub precision: Precision,
    /// How the weights become integers.
    pub rounding: Rounding,
    /// Which of them lie beyond the terms.
    pub clip: Clip,
    /// Whether they have a bias a channel beside the terms.
    pub asymmetric: bool,
    /// Bits of a weight in the mean ([`crate::Series::mean_bits`]).
    pub bits: f64,
    /// Bits that hold its integers ([`crate::Series::width`]).
    pub width: u32,
    /// `|W - W^|^2 / |W|^2`.
    pub variance: f64,
    /// What it adds to the relative variance of the model's output, where that was measured rather than follows from `variance`.
    pub added: Option<f64>,
    /// Largest scale of the last term.
    pub step: f64,
    /// Largest `|w - w^|_1 / |w|_1` over the output channels.
    pub certified: f64,
    /// Largest `|w^|_1 / |w|_1` over the output channels.
    pub magnitude: f64,
}

/// One way to expand the activations that enter a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ActivationOption {
    /// Its precision.
    pub precision: Precision,
    /// How they are clipped.
    pub clip: ActivationClip,
    /// `step^2 / (12 E[a^2])`.
    pub variance: f64,
    /// Largest `step / 2`.
    pub error: f64,
}

/// What the planner knows of a layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerOptions {
    /// Name of the layer.
    pub name: String,
    /// What it computes.
    pub geometry: Geometry,
    /// Multiply-accumulates of one sample.
    pub macs: u64,
    /// Number of weights.
    pub elements: usize,
    /// Ways to expand its weights.
    pub weights: Vec<WeightOption>,
    /// Ways to expand its activations.
    pub activations: Vec<ActivationOption>,
    /// Relative variance at the model's output for one of the weights, and for one of the activations.
    pub gains: [f64; 2],
}

/// Precisions of a layer, with what they cost and how far they err.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Way {
    /// The precisions.
    pub precision: LayerPrecision,
    /// Bits of a weight in the mean, the saturation part's counted in.
    pub bits: f64,
    /// Integer products relative to one 8-bit product.
    pub products: u32,
    /// What the rank-one product of asymmetric weights takes, relative to one 8-bit product.
    pub rank_one: f64,
    /// Expected relative error of the layer's output.
    pub error: f64,
    /// Largest relative error that the layer can have, of any output for any input: relative to `|w|_1 max|a|`.
    pub certified: f64,
    /// What it adds to the relative variance of the model's output.
    pub added: f64,
}

impl LayerOptions {
    /// Every way to expand the layer.
    pub fn ways(&self) -> Vec<Way> {
        let pairs = self.weights.iter().flat_map(|w| self.activations.iter().map(move |a| (w, a)));
        pairs.map(|(w, a)| self.way(w, a)).collect()
    }

    /// What one product takes, in multiply-accumulates of a layer that is not depthwise.
    fn time(&self) -> f64 {
        self.macs as f64 * if self.geometry.is_depthwise() { DEPTHWISE_TIME } else { 1.0 }
    }

    /// What the rank-one product of asymmetric weights takes beside one product, as a share of it: nothing where the bytes of the
    /// terms have room for the bias.
    fn rank_one(&self, w: &WeightOption) -> f64 {
        if !w.asymmetric || !w.width.is_multiple_of(8) || self.geometry.is_depthwise() {
            return 0.0;
        }
        let (depth, channels) = (self.geometry.depth() as f64, self.geometry.channels_out() as f64);
        let [rows, columns] = match &self.geometry {
            Geometry::Conv(g) => g.kernel.map(|size| size as f64),
            Geometry::MatMul(_) => [1.0; 2],
        };
        let [sums, adding, starting] = RANK_ONE_TIME;
        adding / depth + sums / (channels * columns) + starting * rows / (depth * channels)
    }

    fn way(&self, w: &WeightOption, a: &ActivationOption) -> Way {
        // A range is at most twice the largest magnitude, so half a step is at most this much of it.
        let half_step = 1.0 / a.precision.code_max() as f64;
        Way {
            precision: LayerPrecision {
                weights: w.precision,
                activations: a.precision,
                rounding: w.rounding,
                clip: w.clip,
                asymmetric: w.asymmetric,
                activation_clip: a.clip,
            },
            bits: w.bits,
            products: ExpandedLayer::products(&self.geometry, w.width, a.precision),
            rank_one: self.rank_one(w),
            error: (w.variance + a.variance).sqrt(),
            certified: w.certified + half_step * w.magnitude,
            added: w.added.unwrap_or(self.gains[0] * w.variance) + self.gains[1] * a.variance,
        }
    }
}

/// The way of every layer that reaches a goal.
///
/// # Errors
/// [`Error::Goal`] where no combination of the layers' ways reaches it, or where it is no positive number.
pub fn choose(layers: &[LayerOptions], goal: Goal) -> Result<Vec<Way>, Error> {
    let ways: Vec<Vec<Way>> = layers.iter().map(LayerOptions::ways).collect();
    let value = match goal {
        Goal::Products(value) | Goal::Tolerance(value) | Goal::Bits(value) => value,
        Goal::Stopping(bits) => f64::from(bits),
    };
    if !(value.is_finite() && value > 0.0) {
        return Err(Error::Goal(format!("{value} is no goal: pass a positive number")));
    }
    let macs: f64 = layers.iter().map(|layer| layer.macs as f64).sum();
    let elements: f64 = layers.iter().map(|layer| layer.elements as f64).sum();
    match goal {
        Goal::Products(limit) => {
            let time: f64 = layers.iter().map(LayerOptions::time).sum();
            let cost = |layer: &LayerOptions, way: &Way| {
                let (share, of_time) = (layer.macs as f64 / macs.max(1.0), layer.time() / time.max(1.0));
                share + f64::from(way.products - 1) * share.max(of_time) + way.rank_one * of_time
            };
            within(layers, &ways, cost, limit, PRODUCTS_UNIT, "products")
        }
        Goal::Bits(limit) => {
            let share = |layer: &LayerOptions| layer.elements as f64 / elements.max(1.0);
            let cost = |layer: &LayerOptions, way: &Way| way.bits * share(layer);
            within(layers, &ways, cost, limit, BITS_UNIT, "bits a weight")
        }
        Goal::Stopping(_) => {
            let last = layers.len().saturating_sub(1);
            layers.iter().enumerate().map(|(i, layer)| stopped(layer, i == 0 || i == last)).collect()
        }
        Goal::Tolerance(tolerance) => {
            layers.iter().zip(&ways).map(|(layer, ways)| least(layer, ways, tolerance)).collect()
        }
    }
}

/// The least error whose cost is within a limit.
fn within(
    layers: &[LayerOptions],
    ways: &[Vec<Way>],
    cost: impl Fn(&LayerOptions, &Way) -> f64,
    limit: f64,
    unit: f64,
    what: &str,
) -> Result<Vec<Way>, Error> {
    let choices = |(layer, ways): (&LayerOptions, &Vec<Way>)| -> Vec<Choice> {
        ways.iter().map(|way| Choice { cost: cost(layer, way), error: way.added }).collect()
    };
    let items: Vec<Vec<Choice>> = layers.iter().zip(ways).map(choices).collect();
    let Some(found) = least_error(&items, limit, unit) else {
        let least = |item: &Vec<Choice>| item.iter().map(|c| c.cost).fold(f64::INFINITY, f64::min);
        let least: f64 = items.iter().map(least).sum();
        return Err(Error::Goal(format!("{limit} {what} are too few: the least of this model are {least:.2}")));
    };
    Ok(found.into_iter().zip(ways).map(|(way, ways)| ways[way]).collect())
}

/// The way of a layer that the stopping rules give; in eight bits at the ends of a model.
fn stopped(layer: &LayerOptions, at_an_end: bool) -> Result<Way, Error> {
    let none = || Error::Goal(format!("layer `{}` has no terms to choose among", layer.name));
    // The last of the options are the eight bits of the ends.
    let (w8, weights) = layer.weights.split_last().ok_or_else(none)?;
    let (a8, activations) = layer.activations.split_last().ok_or_else(none)?;
    if at_an_end {
        return Ok(layer.way(w8, a8));
    }
    let enough = |w: &&WeightOption| w.step * f64::from(w.precision.bits()).exp2() < STOP_WEIGHTS;
    let weights = weights.iter().find(enough).or(weights.last()).ok_or_else(none)?;
    let enough = |a: &&ActivationOption| a.error < STOP_ACTIVATIONS;
    let activations = activations.iter().find(enough).or(activations.last()).ok_or_else(none)?;
    Ok(layer.way(weights, activations))
}

/// The cheapest way of a layer within a tolerance.
fn least(layer: &LayerOptions, ways: &[Way], tolerance: f64) -> Result<Way, Error> {
    let bits = |way: &Way| (way.precision.weights.total_bits(), way.precision.activations.total_bits());
    let fitting = ways.iter().filter(|way| way.error <= tolerance);
    let found = fitting.min_by(|a, b| {
        let key = |way: &Way| (way.products, bits(way).0 + bits(way).1);
        key(a).cmp(&key(b)).then(a.error.total_cmp(&b.error))
    });
    found.copied().ok_or_else(|| {
        let best = ways.iter().map(|way| way.error).fold(f64::INFINITY, f64::min);
        Error::Goal(format!("layer `{}` cannot be within {tolerance:e}: its least error is {best:.1e}", layer.name))
    })
}
