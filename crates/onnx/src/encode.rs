//! A layer in the form it has in a file: packed terms, scales, bias and what the metadata says of it.
//!
//! A term of `X` bits is stored in the smallest of 2, 4 and 8 bits that holds it. An encoded layer is small (a byte per
//! weight at int4x2), so that a model can be expanded one layer at a time. Where all layers together are still too much,
//! terms are dropped and made again when they are written.

use std::io;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use fpxint::{
    ActivationClip, ExpandedLayer, Geometry, Precision, Rounding, Settings, expand_layer, pack, packed_len, unpack,
};

use crate::Model;

/// An expanded layer, packed.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedLayer {
    pub(crate) name: String,
    pub(crate) geometry: Geometry,
    pub(crate) weights: Precision,
    pub(crate) activations: Precision,
    pub(crate) activation_clip: ActivationClip,
    /// Bits that a digit is packed in: 2, 4 or 8.
    pub(crate) storage: u32,
    /// Empty once dropped.
    terms: Vec<Bytes>,
    /// How to make dropped terms again.
    settings: Option<Settings>,
    /// Per term, one value a channel, one in all, or one a block.
    pub(crate) scales: Vec<Vec<f32>>,
    /// Size of the blocks along the input axis that have scales of their own.
    pub(crate) block: Option<usize>,
    pub(crate) bias: Option<Vec<f32>>,
    pub(crate) bounds: Vec<f64>,
    pub(crate) means: Vec<Vec<i64>>,
    pub(crate) rounding: Rounding,
    /// Bias of asymmetric weights, one a scale; empty for symmetric ones.
    pub(crate) asymmetry: Vec<f32>,
    /// What lies beyond the terms: row-major index and integer in steps of the first term.
    pub(crate) saturation: Vec<(usize, i32)>,
}

/// Bytes of a value of the saturation part: an INT8 and its INT64 index.
const SPARSE_BYTES: usize = 9;

/// Packs a layer.
pub fn encode(layer: &ExpandedLayer) -> EncodedLayer {
    let weights = layer.weight.precision();
    let storage = match weights.bits() {
        ..=2 => 2,
        3..=4 => 4,
        _ => 8,
    };
    let orders = 1..=weights.order();
    EncodedLayer {
        name: layer.name.clone(),
        geometry: layer.geometry.clone(),
        weights,
        activations: layer.activations,
        activation_clip: layer.activation_clip,
        storage,
        settings: None,
        terms: orders.clone().map(|i| pack(&layer.weight.term(i), storage).into()).collect(),
        block: layer.weight.block(),
        scales: orders.clone().map(|i| layer.weight.term_scales(i)).collect(),
        bias: layer.bias.clone(),
        bounds: orders.map(|i| layer.weight.worst_bound(i)).collect(),
        means: layer.weight.means().to_vec(),
        rounding: layer.weight.rounding(),
        asymmetry: layer.weight.bias(),
        saturation: layer.weight.saturation(),
    }
}

impl EncodedLayer {
    /// Name of the layer.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Precision of the weights.
    pub fn weights(&self) -> Precision {
        self.weights
    }

    /// Precision of the activations.
    pub fn activations(&self) -> Precision {
        self.activations
    }

    /// Largest bound over the channels, for every prefix of the terms.
    pub fn bounds(&self) -> &[f64] {
        &self.bounds
    }

    /// Bytes of terms, saturation part, scales and biases.
    pub fn bytes(&self) -> u64 {
        let terms = self.scales.len() * self.term_len(self.storage);
        let scales: usize = self.scales.iter().map(Vec::len).sum();
        let floats = scales + self.asymmetry.len() + self.bias.as_ref().map_or(0, Vec::len);
        (terms + SPARSE_BYTES * self.saturation.len() + 4 * floats) as u64
    }

    /// Frees the terms, by far the largest part. Writing expands the layer once more, with the `settings` it was made by.
    pub fn drop_terms(&mut self, settings: Settings) {
        (self.terms, self.settings) = (Vec::new(), Some(settings));
    }

    /// Bytes of terms, saturation part and scales, the bias left out.
    pub fn weight_bytes(&self) -> u64 {
        self.bytes() - 4 * self.bias.as_ref().map_or(0, Vec::len) as u64
    }

    /// Bytes of a term packed in `storage` bits.
    fn term_len(&self, storage: u32) -> usize {
        packed_len(self.geometry.weight_shape().iter().product(), storage)
    }

    /// Term `i` (from 0) packed in `storage` bits, which hold its digits.
    fn term(&self, i: usize, storage: u32) -> Bytes {
        if storage == self.storage {
            return self.terms[i].clone();
        }
        let len = self.geometry.weight_shape().iter().product();
        let digits = unpack(&self.terms[i], len, self.storage).expect("a term is packed by `encode`");
        pack(&digits, storage).into()
    }
}

/// The terms of a layer as they are written: those it holds, or made again while they are needed.
#[derive(Debug)]
pub(crate) struct Terms<'a> {
    model: &'a Model,
    /// Of the layer in the model.
    index: usize,
    layer: &'a EncodedLayer,
    again: Mutex<Option<EncodedLayer>>,
}

impl<'a> Terms<'a> {
    /// The terms of layer `index` of `model`.
    pub fn new(model: &'a Model, index: usize, layer: &'a EncodedLayer) -> Self {
        Self { model, index, layer, again: Mutex::new(None) }
    }

    /// Bytes of a term packed in `storage` bits.
    pub fn len(&self, storage: u32) -> usize {
        self.layer.term_len(storage)
    }

    /// Term `i` (from 0) packed in `storage` bits. Dropped terms stay in memory until the last one was asked for.
    pub fn packed(&self, i: usize, storage: u32) -> io::Result<Bytes> {
        let Some(settings) = &self.layer.settings else { return Ok(self.layer.term(i, storage)) };
        let mut again = self.again.lock().unwrap_or_else(PoisonError::into_inner);
        let made = match again.take() {
            Some(made) => made,
            None => {
                let layer = self.model.layer(self.index).map_err(io::Error::other)?;
                encode(&expand_layer(&layer, settings).map_err(|e| io::Error::other(crate::Error::from(e)))?)
            }
        };
        let term = made.term(i, storage);
        if i + 1 < made.terms.len() {
            *again = Some(made);
        }
        Ok(term)
    }
}
