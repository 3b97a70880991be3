//! The command line of models that are split: over workers, and into basis models.

use std::path::PathBuf;

use clap::Args;
use fpxint::{Clip, Precision, Rounding};

use crate::args::{Sizes, precision};
use crate::values::{clip, rotation, rounding, symmetry};

/// Flags of workers within this process.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Workers")]
pub struct Workers {
    /// Split the terms over N workers within this process
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub workers: Option<u32>,
    /// Go on without the terms of workers that are lost, and say which bounds then hold
    #[arg(long, requires = "workers")]
    pub allow_missing: bool,
    /// Lose worker W, counted from 0, before the first run; may be given more than once
    #[arg(long, value_name = "W", requires = "workers")]
    pub lose: Vec<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Basis {
    /// FP32 ONNX file, expanded in memory, or artefact
    pub model: PathBuf,
    /// Which term of the weights, from 1
    #[arg(long, value_name = "I", value_parser = clap::value_parser!(u32).range(1..=16))]
    pub weight_term: u32,
    /// File to write
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,
    /// Precision that an FP32 model's weights are expanded at [default: int4x2]
    #[arg(long, value_name = "PRECISION", value_parser = precision)]
    pub weights: Option<Precision>,
    /// How weights become integers: nearest, or sum: the errors of an output channel cancel [default: nearest]
    #[arg(long, value_name = "nearest|sum", value_parser = rounding)]
    pub rounding: Option<Rounding>,
    /// Clip weights, what lies beyond becoming a sparse integer part: none, laplace or mse [default: none]
    #[arg(long, value_name = "none|laplace|mse", value_parser = clip)]
    pub clip: Option<Clip>,
    /// Weights about zero, or with a bias a channel beside their terms: symmetric or asymmetric [default: symmetric]
    #[arg(long, value_name = "symmetric|asymmetric", value_parser = symmetry)]
    pub symmetry: Option<bool>,
    /// Rotate what enters matrix products: none or hadamard [default: none]
    #[arg(long, value_name = "none|hadamard", value_parser = rotation)]
    pub rotation: Option<bool>,
}

#[derive(Debug, Args)]
pub(crate) struct PlanWorkers {
    /// FP32 ONNX file or artefact
    pub model: PathBuf,
    /// Most workers
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub workers: u32,
    /// Time that a message takes at least, in microseconds
    #[arg(long, value_name = "L", default_value_t = 5.0)]
    pub latency_us: f64,
    /// Bytes that pass between two workers, in 1e9 a second
    #[arg(long, value_name = "B", default_value_t = 5.0)]
    pub bandwidth_gbs: f64,
    /// Timed runs of every split, after warming up
    #[arg(long, value_name = "R", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// Also draw the predictions, as SVG
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    #[command(flatten)]
    pub sizes: Sizes,
    /// Precision of the weights [default: int4x2]
    #[arg(long, value_name = "PRECISION", value_parser = precision)]
    pub weights: Option<Precision>,
    /// Precision of the activations [default: int4x2, or what the artefact states]
    #[arg(long, value_name = "PRECISION", value_parser = precision)]
    pub activations: Option<Precision>,
}
