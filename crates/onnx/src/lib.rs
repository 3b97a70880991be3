//! ONNX files to and from fpxint models. Every file is treated as hostile.

mod artefact;
mod assemble;
mod check;
mod constants;
mod encode;
mod error;
mod fold;
mod foreign;
mod geometry;
mod index;
mod layers;
mod limits;
mod model;
mod node;
pub mod proto;
mod raise;
mod skeleton;
mod tensor;
mod wire;
mod write;

pub use encode::{EncodedLayer, encode};
pub use error::Error;
pub use limits::Limits;
pub use model::{Dim, LayerInfo, Model, Skipped, ValueInfo, parse, read};
pub use raise::{Unraisable, raise};
pub use skeleton::{DOMAIN, skeleton};
pub use write::{Written, write};
