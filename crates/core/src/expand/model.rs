//! Model expansion (eq. 5 to 8): a network as the sum of isomorphic basis models, and which of them a worker runs.
//!
//! Basis model `(i, j)` is the same graph with weights `W_i` and activations `A_j`. All partial sums of a layer are in the unit
//! `scale_wn * scale_am`, so a member is shifted beforehand (AbelianMul, definition 2) and AbelianAdd is integer addition.
//! Bias, residual and non-linearity run once, on the total (definition 1).
//!
//! A code `u` with zero point `zp` and centre `C` is `u - zp = sum_j 2^(Y(m-j)) A_j + (C - zp)`, and `A_j` is a digit of `u`, of
//! `Y` bits without sign, less `2^(Y-1)`: so members take bits of the codes. The parts that belong to no digit have owners:
//!
//! ```text
//! M_nsy = (C - zp) sum_k W_i    and M_sa of the activations: the owner of (i, 1)
//! M_sa of the weights: the owner of W_1, in whose integers it is; their M_nsy: the owners of (1, j)
//! ```

use std::ops::{Range, RangeInclusive};

use crate::ActivationClip;
use crate::asymmetry::folded;
use crate::limbs::balanced_digit;
use crate::{Channels, Error, ExpandedLayer, Precision, Series};

/// Basis models `(i, j)` with `i` and `j` in these ranges, both counted from 1: one product of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// Weight terms.
    pub weights: RangeInclusive<u32>,
    /// Activation terms.
    pub activations: RangeInclusive<u32>,
}

/// The weights of basis models: `2^shift q + offset`, in the unit `scale_n` of the whole series; with blocks, of the channel's finest one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasisWeight {
    /// Integers of `width` bits.
    pub q: Vec<i32>,
    /// Bits that hold `q`.
    pub width: u32,
    /// Bits that sums are shifted left by (AbelianMul).
    pub shift: u32,
    /// The bias of asymmetric weights, one an output channel; empty where it is 0 or part of `q`.
    pub offsets: Vec<i64>,
}

impl BasisWeight {
    /// `2^shift q + offset` of a value of a channel.
    pub fn whole(&self, channel: usize, q: i32) -> i64 {
        (i64::from(q) << self.shift) + self.offsets.get(channel).copied().unwrap_or(0)
    }

    /// The sums over every output channel of the integers and of their magnitudes, in the unit of the whole series.
    pub fn channel_sums(&self, channels: Channels) -> (Vec<i64>, Vec<i64>) {
        let (mut sums, mut magnitudes) = (vec![0; channels.count], vec![0; channels.count]);
        channels.for_each_run(self.q.len(), |channel, run| {
            for &q in &self.q[run] {
                let whole = self.whole(channel, q);
                sums[channel] += whole;
                magnitudes[channel] += whole.abs();
            }
        });
        (sums, magnitudes)
    }
}

/// The width of every total of a layer on codes of these activations (AbelianAdd of all basis models).
pub fn sum_width(series: &Series, activations: Precision, clip: ActivationClip) -> Width {
    let mut q = series.q().to_vec();
    series.lift(&mut q);
    let offsets = series.channel_offsets();
    let (_, magnitudes) = BasisWeight { q, width: 0, shift: 0, offsets }.channel_sums(series.channels());
    let largest = magnitudes.into_iter().max().unwrap_or(0);
    let fits = largest
        .checked_mul(activations.code_max() + clip.largest_beyond(activations))
        .is_some_and(|largest| largest <= i64::from(i32::MAX));
    if fits { Width::Narrow } else { Width::Wide }
}

/// What holds every total of a layer: partial sums may be added modulo `2^32` where it is `Narrow`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// 32 bits with sign.
    Narrow,
    /// 64 bits with sign.
    Wide,
}

/// The activations of basis models: `(u & mask) - offset`, less the zero point where they own `M_nsy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BasisCodes {
    /// Bits of a code that are digits of the terms.
    pub mask: u32,
    /// What is subtracted: their centre; less the whole centre for the owner of `M_nsy`.
    pub offset: i64,
    /// Whether `M_nsy` and `M_sa` of the activations belong to them: whether `A_1` does.
    pub owner: bool,
}

/// The weights of the terms `folds[index]`: one of the ranges that all terms of a series are cut into, in order.
///
/// Terms of a fold are one integer, so that a product takes them at once. Digits of several balanced terms do not fit the bits of
/// the terms (two of four bits span [-136, 119]), so a fold is a digit of its own: from the last fold up, the lowest bits of what
/// is left as balanced bytes, and the first fold is the rest. Of single terms these are the digits of the series.
///
/// # Errors
/// [`Error::Order`] unless the folds are the terms `1 ..= n`; `name` names the layer.
pub fn basis_weight(
    name: &str,
    series: &Series,
    folds: &[RangeInclusive<u32>],
    index: usize,
) -> Result<BasisWeight, Error> {
    let (bits, order) = (series.precision().bits(), series.precision().order());
    let mut next = 1;
    for fold in folds {
        let asked = if *fold.start() == next { *fold.end() } else { *fold.start() };
        if *fold.start() != next || *fold.end() < next || *fold.end() > order {
            return Err(Error::Order { tensor: name.to_owned(), asked, order });
        }
        next = fold.end() + 1;
    }
    if next != order + 1 || index >= folds.len() {
        return Err(Error::Order { tensor: name.to_owned(), asked: next - 1, order });
    }
    let count = |fold: &RangeInclusive<u32>| fold.end() - fold.start() + 1;
    let below: Vec<u32> = folds[index + 1..].iter().rev().map(|fold| bits * count(fold)).collect();
    let own = bits * count(&folds[index]);
    let digit = |&q: &i32| {
        let rest = below.iter().fold(i64::from(q), |rest, &bits| (rest - fold_digit(rest, bits)) >> bits);
        (if index == 0 { rest } else { fold_digit(rest, own) }) as i32
    };
    let mut q: Vec<i32> = series.q().iter().map(digit).collect();
    series.lift(&mut q);
    let last = *folds[index].end();
    // The first brings the saturation part and the bias.
    let width = if index == 0 { series.width(last) } else { own + series.finest() };
    let (shift, mut offsets) = (bits * (order - last), Vec::new());
    if index == 0 {
        offsets = series.channel_offsets();
        if shift == 0 && folded(&mut q, &offsets, series.channels(), width) {
            offsets.clear();
        }
    }
    Ok(BasisWeight { q, width, shift, offsets })
}

/// The lowest `bits` bits of an integer as balanced bytes, the last of them of what bits are left.
fn fold_digit(q: i64, bits: u32) -> i64 {
    let (mut digit, mut rest) = (0, q);
    for low in (0..bits).step_by(8) {
        let width = (bits - low).min(8);
        let byte = balanced_digit(rest, width);
        rest = (rest - byte) >> width;
        digit += byte << low;
    }
    digit
}

/// The ranges of weight terms that members are products of, in order.
pub fn folds<'a>(members: impl IntoIterator<Item = &'a Members>) -> Vec<RangeInclusive<u32>> {
    let mut found: Vec<_> = members.into_iter().map(|members| members.weights.clone()).collect();
    found.sort_unstable_by_key(|fold| (*fold.start(), *fold.end()));
    found.dedup();
    found
}

/// Which bits of the codes of these activations the terms are.
///
/// # Errors
/// As [`basis_weight`].
pub fn basis_codes(name: &str, activations: Precision, terms: &RangeInclusive<u32>) -> Result<BasisCodes, Error> {
    let (bits, order) = (activations.bits(), activations.order());
    let (first, last) = within(name, terms, order)?;
    let low = bits * (order - last);
    let mask = ((1u64 << (bits * (last - first + 1))) - 1) << low;
    let centre = activations.with_order(last - first + 1)?.centre() << low;
    let owner = first == 1;
    Ok(BasisCodes { mask: mask as u32, offset: centre - if owner { activations.centre() } else { 0 }, owner })
}

/// First and last of a range of terms that lies within a series.
fn within(name: &str, terms: &RangeInclusive<u32>, order: u32) -> Result<(u32, u32), Error> {
    let (first, last) = (*terms.start(), *terms.end());
    if first == 0 || first > last || last > order {
        let asked = if first == 0 { first } else { last };
        return Err(Error::Order { tensor: name.to_owned(), asked, order });
    }
    Ok((first, last))
}

/// A model whose layers are expanded: the sum of its basis models.
#[derive(Debug, Clone, PartialEq)]
pub struct Expanded {
    /// Its layers, in the order of the graph.
    pub layers: Vec<ExpandedLayer>,
}

/// A layer of a basis model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasisLayer {
    /// Its weights, `None` where the layer has no such term.
    pub weight: Option<BasisWeight>,
    /// Its activations, `None` where the layer has no such term.
    pub codes: Option<BasisCodes>,
}

impl Expanded {
    /// Basis model `(i, j)`, layer by layer: weight term `i` and activation term `j`, both from 1.
    ///
    /// # Errors
    /// [`Error::Order`] where no layer has such a term.
    pub fn basis(&self, i: u32, j: u32) -> Result<Vec<BasisLayer>, Error> {
        let most = |order: fn(&ExpandedLayer) -> u32| self.layers.iter().map(order).max().unwrap_or(0);
        let (weights, codes) = (most(|l| l.weight.precision().order()), most(|l| l.activations.order()));
        for (asked, order) in [(i, weights), (j, codes)] {
            if asked == 0 || asked > order {
                return Err(Error::Order { tensor: "the model".to_owned(), asked, order });
            }
        }
        let layer = |layer: &ExpandedLayer| {
            let has_weight = i <= layer.weight.precision().order();
            let has_codes = j <= layer.activations.order();
            Ok(BasisLayer {
                weight: has_weight.then(|| term(layer, i)).transpose()?,
                codes: has_codes.then(|| basis_codes(&layer.name, layer.activations, &(j..=j))).transpose()?,
            })
        };
        self.layers.iter().map(layer).collect()
    }

    /// The region of layers that basis models run through before their sums are added.
    ///
    /// Addition commutes with what lies between only where that is linear. Every layer begins by rounding its input to a grid,
    /// which is not, whatever stands between two layers: a region is one layer.
    ///
    /// # Errors
    /// [`Error::NonLinear`] naming the second layer of a longer region, and [`Error::NoRegion`] for one of no layers of the model.
    pub fn region(&self, layers: Range<usize>) -> Result<Region, Error> {
        match self.layers.get(layers.clone()) {
            Some([_]) => Ok(Region { layer: layers.start }),
            Some([_, second, ..]) => Err(Error::NonLinear { layer: second.name.clone() }),
            _ => Err(Error::NoRegion { layers, count: self.layers.len() }),
        }
    }
}

/// The weights `W_i` of a layer.
fn term(layer: &ExpandedLayer, i: u32) -> Result<BasisWeight, Error> {
    let terms: Vec<_> = (1..=layer.weight.precision().order()).map(|term| term..=term).collect();
    basis_weight(&layer.name, &layer.weight, &terms, i as usize - 1)
}

/// A region of a model that basis models run through before their sums are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    layer: usize,
}

impl Region {
    /// Its only layer.
    pub fn layer(self) -> usize {
        self.layer
    }
}

#[cfg(test)]
mod tests;
