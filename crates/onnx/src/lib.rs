//! ONNX files to and from fpxint models. Every file is treated as hostile.
//!
//! * [`read`], [`parse`]: a file to a [`Model`] whose layers are found and whose weights still lie in the file's bytes or in
//!   other files of its folder; [`Model::layer`] decodes one, with BatchNormalization and constants per channel folded in.
//! * [`skeleton`]: the graph around the layers, for whoever runs it; [`Model::expose`] adds values to its outputs, and
//!   [`Model::alone`] makes a model of one layer.
//! * [`encode`], [`write()`]: expanded layers to an artefact, which is plain ONNX; [`read`] takes it back.
//! * [`raise`](raise()): a model to a later operator set.
//! * [`available_memory`]: what there is to be had, for requests that may be too large.
//! * [`fuse`](fuse()): attention, normalisations, GELU and SiLU of a graph as one node each.
//!
//! The order of work when reading is: bound the records ([`Limits`]), decode, check names and tensors, refuse what another
//! tool quantised, find the layers. Nothing is decoded into floats on the way but scales.

#![forbid(unsafe_code)]

mod alone;
mod artefact;
mod assemble;
mod attributes;
mod basis;
mod check;
mod constants;
mod dims;
mod embedding;
mod encode;
mod error;
mod expose;
mod external;
mod fold;
mod foreign;
mod fuse;
mod geometry;
mod index;
mod layers;
mod limits;
mod memory;
mod model;
mod node;
mod persist;
pub mod proto;
mod raise;
mod rotation;
mod skeleton;
mod stream;
mod summand;
mod tensor;
mod terms;
mod widen;
mod wire;
mod write;

pub use basis::{FloatLayer, write_floats};
pub use embedding::Embedding;
pub use encode::{EncodedLayer, encode};
pub use error::Error;
pub use fuse::fuse;
pub use limits::Limits;
pub use memory::available_memory;
pub use model::{Dim, LayerInfo, Model, Operator, Skipped, ValueInfo, parse, read};
pub use raise::{Unraisable, raise};
pub use skeleton::{DOMAIN, skeleton};
pub use write::{Written, preview, write, write_within};
