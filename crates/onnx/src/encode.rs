//! A layer in the form it has in a file: packed terms, scales, bias and what the metadata says of it.
//!
//! A term of `X` bits is stored in the smallest of 2, 4 and 8 bits that holds it. An encoded layer is small (a byte per
//! weight at int4x2), so that a model can be expanded one layer at a time.

use bytes::Bytes;
use fpxint::{ExpandedLayer, Geometry, Precision, pack, packed_len, unpack};

/// An expanded layer, packed.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedLayer {
    pub(crate) name: String,
    pub(crate) geometry: Geometry,
    pub(crate) weights: Precision,
    pub(crate) activations: Precision,
    /// Bits that a digit is packed in: 2, 4 or 8.
    pub(crate) storage: u32,
    pub(crate) terms: Vec<Bytes>,
    /// Per term, one value a channel or one in all.
    pub(crate) scales: Vec<Vec<f32>>,
    pub(crate) bias: Option<Vec<f32>>,
    pub(crate) bounds: Vec<f64>,
    pub(crate) means: Vec<Vec<i64>>,
}

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
        storage,
        terms: orders.clone().map(|i| pack(&layer.weight.term(i), storage).into()).collect(),
        scales: orders.clone().map(|i| layer.weight.term_scales(i)).collect(),
        bias: layer.bias.clone(),
        bounds: orders.map(|i| layer.weight.worst_bound(i)).collect(),
        means: layer.weight.means().to_vec(),
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

    /// Bytes of terms, scales and bias.
    pub fn bytes(&self) -> u64 {
        let terms: usize = self.terms.iter().map(Bytes::len).sum();
        let floats: usize = self.scales.iter().map(Vec::len).sum::<usize>() + self.bias.as_ref().map_or(0, Vec::len);
        (terms + 4 * floats) as u64
    }

    /// Bytes of a term packed in `storage` bits.
    pub(crate) fn term_len(&self, storage: u32) -> usize {
        packed_len(self.geometry.weight_shape().iter().product(), storage)
    }

    /// Term `i` (from 0) packed in `storage` bits, which hold its digits.
    pub(crate) fn term(&self, i: usize, storage: u32) -> Bytes {
        if storage == self.storage {
            return self.terms[i].clone();
        }
        let len = self.geometry.weight_shape().iter().product();
        let digits = unpack(&self.terms[i], len, self.storage).expect("a term is packed by `encode`");
        pack(&digits, storage).into()
    }
}
