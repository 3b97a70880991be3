//! Making a series: of a tensor, of activations, of a layer, of a model. Nothing here runs one.

pub mod activation;
mod centre;
pub mod clip;
pub mod correction;
pub mod layer;
pub mod loss;
pub mod model;
pub mod partition;
pub mod saturate;
mod sum;
pub mod tensor;
