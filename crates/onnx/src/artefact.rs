//! Reads an artefact back: the sum of scaled integer terms that [`crate::write`] leaves where a weight was.
//!
//! ```text
//! Add( .. Add(T_1, T_2) .., T_n)       left-associated, T_1 alone for one term; before it a saturation part S, a bias B, or S + B
//! T_i = DequantizeLinear(term_i, scale_i)   or   Mul(Cast(term_i), scale_i);     S the same of a sparse INT8 and scale_1
//! ```
//!
//! Terms are INT2, INT4 or INT8 tensors, scales and B f32: a scalar, one value an output channel, or one a block of inputs. Names do
//! not matter. The metadata adds what the graph does not say: bits per term of a single term, and the activations.

use std::collections::HashMap;

use fpxint::{ActivationClip, AttentionPrecision, Geometry, Packed, Precision, Rounding, Scales, Series};
use serde::{Deserialize, Serialize};

use crate::constants::Constant;
use crate::error::shown;
use crate::external::{External, held};
use crate::index::Index;
use crate::node::{input, node_name, onnx_op};
use crate::proto::{GraphProto, ModelProto, NodeProto};
use crate::summand::{Asymmetry, Saturation, Term};
use crate::{Error, foreign, tensor};

/// Key of the format version.
pub(crate) const VERSION_KEY: &str = "fpxint.version";
/// Key of how attention computes, where that is stated.
pub(crate) const ATTENTION_KEY: &str = "fpxint.attention";
/// Prefix of the key of a layer's record.
pub(crate) const LAYER_KEY: &str = "fpxint.layer.";
/// Version of the format that this crate writes, and the newest that it reads.
pub(crate) const VERSION: u64 = 1;
/// Terms of a series of most terms: 32 bits of 2.
const MAX_TERMS: usize = 16;

/// What the metadata says of a layer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Name of the layer.
    pub name: String,
    /// Precision of the weights.
    pub weights: String,
    /// Precision of the activations.
    pub activations: String,
    /// Largest bound over the channels, for every prefix.
    pub bounds: Vec<f64>,
    /// Mean dropped part of every proper prefix, one a channel, in units of `scale_n * 2^-X`.
    pub means: Vec<Vec<i64>>,
    /// Rule by which the integers were rounded, where it is not `nearest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rounding: Option<String>,
    /// Rule by which the activations are clipped, where it is not `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation_clip: Option<String>,
}

/// A record whose precisions are parsed.
#[derive(Debug)]
pub(crate) struct Known {
    pub weights: Precision,
    pub activations: Precision,
    pub means: Vec<Vec<i64>>,
    pub rounding: Rounding,
    pub activation_clip: ActivationClip,
}

/// The `fpxint.` part of a model's metadata.
#[derive(Debug, Default)]
pub(crate) struct Metadata {
    /// The file says that fpxint wrote it.
    pub is_ours: bool,
    /// How attention computes, where it is stated.
    pub attention: Option<AttentionPrecision>,
    layers: HashMap<String, Known>,
}

impl Metadata {
    /// Reads the metadata of a model.
    pub fn read(model: &ModelProto, file: &str) -> Result<Self, Error> {
        let mut metadata = Self::default();
        for entry in &model.metadata_props {
            let (key, value) = (entry.key.as_deref().unwrap_or(""), entry.value.as_deref().unwrap_or(""));
            let fault = |reason: String| Error::Artefact {
                file: file.to_owned(),
                name: format!("metadata {}", shown(key)),
                reason,
            };
            if key == VERSION_KEY {
                let version: u64 = value.parse().map_err(|_| fault("it is no version number".to_owned()))?;
                if version > VERSION {
                    return Err(Error::Newer { file: file.to_owned(), version: version.to_string() });
                }
                metadata.is_ours = true;
            } else if key == ATTENTION_KEY {
                metadata.attention = Some(value.parse().map_err(|e: fpxint::Error| fault(e.to_string()))?);
            } else if key.starts_with(LAYER_KEY) {
                let record: Record = serde_json::from_str(value).map_err(|e| fault(e.to_string()))?;
                let precision = |text: &str| text.parse::<Precision>().map_err(|e| fault(e.to_string()));
                let (weights, activations) = (precision(&record.weights)?, precision(&record.activations)?);
                let rounding = record.rounding.as_deref().unwrap_or_default();
                let rounding = if rounding.is_empty() { Some(Rounding::Nearest) } else { Rounding::named(rounding) };
                let rounding = rounding.ok_or_else(|| fault("its rounding is unknown".to_owned()))?;
                let clip = record.activation_clip.as_deref().map_or(Some(ActivationClip::None), ActivationClip::named);
                let activation_clip = clip.ok_or_else(|| fault("the clip of its activations is unknown".to_owned()))?;
                let known = Known { weights, activations, means: record.means, rounding, activation_clip };
                metadata.layers.insert(record.name, known);
            }
        }
        Ok(metadata)
    }

    pub fn layer(&self, name: &str) -> Option<&Known> {
        self.layers.get(name)
    }

    /// The error for a weight at `node` that looks like a series and is none.
    pub fn fault(&self, file: &str, node: &NodeProto, reason: String) -> Error {
        if self.is_ours {
            Error::Artefact { file: file.to_owned(), name: node_name(node), reason }
        } else {
            foreign::already_quantised(node, file)
        }
    }
}

/// A weight in the form of an artefact.
#[derive(Debug)]
pub(crate) struct Pattern {
    terms: Vec<Term>,
    saturation: Option<Saturation>,
    asymmetry: Option<Asymmetry>,
    /// Nodes that make it.
    nodes: Vec<usize>,
}

/// The terms of a layer, with what their integers mean.
#[derive(Debug, Clone)]
pub(crate) struct SeriesPlan {
    terms: Vec<Constant>,
    scales: Scales,
    pub precision: Precision,
    means: Vec<Vec<i64>>,
    rounding: Rounding,
    saturation: Option<Saturation>,
    offsets: Vec<i32>,
    /// Nodes that make the weight.
    pub nodes: Vec<usize>,
}

impl Pattern {
    /// The pattern that ends in `name`, if it is one.
    pub fn find(index: &Index, name: &str) -> Option<Self> {
        let mut pattern = Self { terms: Vec::new(), saturation: None, asymmetry: None, nodes: Vec::new() };
        let mut name = name;
        loop {
            if pattern.terms.len() == MAX_TERMS {
                return None;
            }
            if !pattern.terms.is_empty() && pattern.asymmetry.is_none() {
                pattern.asymmetry = Asymmetry::find(index, name);
                if pattern.asymmetry.is_some() {
                    break;
                }
            }
            let node = index.maker(name)?;
            if onnx_op(node) != "Add" {
                match Saturation::find(index, name) {
                    Some((saturation, nodes)) => {
                        pattern.saturation = Some(saturation);
                        pattern.nodes.extend(nodes);
                    }
                    // What stands beside a bias is the saturation part.
                    None if pattern.asymmetry.is_none() => pattern.push(Term::find(index, name)?),
                    None => return None,
                }
                break;
            }
            if pattern.asymmetry.is_some() {
                return None;
            }
            pattern.nodes.push(index.producer(name)?);
            match Term::find(index, input(node, 1)?) {
                Some(term) => pattern.push(term),
                None if pattern.terms.is_empty() => return None,
                None => pattern.asymmetry = Some(Asymmetry::find(index, input(node, 1)?)?),
            }
            name = input(node, 0)?;
        }
        pattern.terms.reverse();
        let shape = pattern.shape();
        let is_beside = |s: &Saturation| pattern.terms.first().is_some_and(|first| s.is_beside(first));
        let bias_is_beside = |b: &Asymmetry| pattern.terms.first().is_some_and(|first| b.is_beside(first));
        if !pattern.saturation.iter().all(is_beside) || !pattern.asymmetry.iter().all(bias_is_beside) {
            return None;
        }
        pattern.terms.iter().all(|t| t.digits.shape == shape).then_some(pattern)
    }

    fn push(&mut self, (term, nodes): (Term, Vec<usize>)) {
        self.terms.push(term);
        self.nodes.extend(nodes);
    }

    /// Dimensions of the weight.
    pub fn shape(&self) -> &[usize] {
        self.terms.first().map_or(&[], |t| &t.digits.shape)
    }

    /// Checks the scales against each other and against the geometry.
    pub fn series(self, geometry: &Geometry, known: Option<&Known>) -> Result<SeriesPlan, String> {
        let first = self.terms.first().ok_or("it has no terms")?;
        let channels = geometry.channels_out();
        let block = first.axis.and_then(|(_, block)| block);
        let astray = |t: &Term| match t.axis {
            Some((axis, Some(_))) => axis != geometry.input_axis(),
            Some((axis, None)) => axis != geometry.channel_axis() && t.scale.len() > 1,
            None => false,
        };
        if self.terms.iter().any(astray) {
            return Err("its scales do not lie along the output channels or in blocks of inputs".to_owned());
        }
        let differs = |t: &Term| t.scale.len() != first.scale.len() || t.axis.and_then(|(_, block)| block) != block;
        if self.terms.iter().any(differs) || (block.is_none() && ![1, channels].contains(&first.scale.len())) {
            return Err(format!("its terms have different numbers of scales for {channels} channels"));
        }
        let order = self.terms.len() as u32;
        let precision = match known {
            Some(known) if known.weights.order() == order => known.weights,
            Some(known) => return Err(format!("{order} terms where the metadata say {}", known.weights)),
            None => Precision::new(self.bits()?, order).map_err(|e| e.to_string())?,
        };
        for (i, term) in self.terms.iter().enumerate() {
            let step = 2f32.powi(-(precision.bits() as i32 * i as i32));
            if first.scale.iter().zip(&term.scale).any(|(first, scale)| (first * step).to_bits() != scale.to_bits()) {
                return Err(format!("the scales of term {} are not those of {precision}", i + 1));
            }
        }
        let means = known.map_or_else(Vec::new, |known| known.means.clone());
        let rounding = known.map_or(Rounding::Nearest, |known| known.rounding);
        let saturation = self.saturation;
        let last = self.terms.last().map_or(&[][..], |term| &term.scale);
        let offsets = self.asymmetry.map_or(Ok(Vec::new()), |asymmetry| asymmetry.offsets(last))?;
        let (scales, nodes) = (Scales { first: first.scale.clone(), block }, self.nodes);
        let terms = self.terms.into_iter().map(|t| t.digits).collect();
        Ok(SeriesPlan { terms, scales, precision, means, rounding, saturation, offsets, nodes })
    }

    /// Bits per term: the ratio of successive scales, or of a single term, its storage.
    fn bits(&self) -> Result<u32, String> {
        let storage = self.terms[0].storage;
        let Some(second) = self.terms.get(1) else { return Ok(storage) };
        let Some(at) = self.terms[0].scale.iter().position(|&s| s != 0.0) else { return Ok(storage) };
        let ratio = self.terms[0].scale[at] / second.scale[at];
        (2..=8).find(|&bits| ratio == (1u32 << bits) as f32).ok_or(format!("its scales fall by {ratio}"))
    }
}

impl SeriesPlan {
    /// Decodes the terms; `external` has those that lie in other files.
    pub fn decode(
        &self,
        graph: &GraphProto,
        external: Option<&External>,
        name: &str,
        geometry: &Geometry,
        file: &str,
    ) -> Result<Series, Error> {
        const UNPACKED: &str = "a term cannot be unpacked";
        let fault = |reason: String| Error::Artefact { file: file.to_owned(), name: shown(name), reason };
        let damaged = || fault(UNPACKED.to_owned());
        let digits = |c: &Constant| {
            let (graph, c) = held(external, graph, c)?;
            c.tensor(&graph).and_then(|t| tensor::packed_digits(t, c.len())).ok_or_else(damaged)
        };
        let packed = self.terms.iter().map(digits).collect::<Result<Vec<_>, _>>()?;
        let terms: Vec<_> = packed.iter().map(|(bytes, bits)| Packed { bytes, bits: *bits }).collect();
        let (shape, axis) = (geometry.weight_shape(), geometry.channel_axis());
        let (scales, means) = (self.scales.clone(), self.means.clone());
        let beyond = match &self.saturation {
            Some(saturation) => saturation.decode(graph).ok_or_else(|| fault(UNPACKED.to_owned()))?,
            None => Vec::new(),
        };
        Series::from_packed(name, self.precision, shape, axis, scales, &terms, means)
            .and_then(|series| series.with_saturation(name, &beyond))
            .and_then(|series| series.with_offsets(name, self.offsets.clone()))
            .map(|series| series.with_rounding(self.rounding))
            .map_err(|e| fault(e.to_string()))
    }
}
