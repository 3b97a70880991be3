//! Runs expanded models: integer products on our kernels, everything else on tract.
//!
//! [`Model::load`] turns a [`fpxint_onnx::Model`] into a plan of steps over value slots. tract reads the model's skeleton, in
//! which every expanded layer is a placeholder without weights, infers shapes and folds constants; each placeholder becomes an
//! integer product with its epilogue (bias, residual, activation), and image values stay NHWC between them. One symbolic plan
//! serves every batch size. [`Float`] runs the unmodified FP32 file on tract alone, as the reference.

#![forbid(unsafe_code)]

mod activation;
mod batch;
mod coded;
mod costs;
mod crew;
mod encoder;
mod error;
mod exact;
mod execute;
mod float;
mod graph;
mod held;
mod layer;
mod layout;
mod memory;
mod model;
mod moments;
mod observe;
mod placeholder;
mod plan;
mod pooling;
mod sensitivity;
mod separable;
mod shared;
mod shared_run;
mod sharing;
mod survey;
mod value;

pub use costs::member_costs;
pub use crew::{Missing, MissingLayer};
pub use error::Error;
pub use float::Float;
pub use layer::LayerReport;
pub use model::{Expansion, Model, Options, StepTime};
pub use observe::input_means;
pub use plan::HostNode;
pub use sensitivity::Measurement;
pub use sharing::{Crew, HeldBytes, Sharing};
pub use survey::{Survey, survey};
pub use value::{Element, Port, Value, ValueView};

/// Outputs by name, in the model's order.
pub type Outputs = Vec<(String, Value)>;
