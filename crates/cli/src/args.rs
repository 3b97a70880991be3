//! The command line.

use std::path::PathBuf;
use std::sync::LazyLock;

use clap::{Args, Parser, Subcommand, ValueEnum};
use fpxint::{ActivationClip, AttentionPrecision, Clip, Granularity, Precision, Rounding};
use fpxint_onnx::Limits;
use regex::Regex;

use crate::data::mnli::Label;
use crate::ensemble::Ensemble;
use crate::group_args::{Basis, PlanWorkers, Workers};
use crate::limits::LimitFlags;
use crate::progress::Watch;
use crate::values::{activation_clip, clip, correction, granularity, rotation, rounding, symmetry};

static VERSION: LazyLock<String> = LazyLock::new(|| {
    let kernels: Vec<_> = fpxint_kernels::available().iter().map(|k| k.name()).collect();
    format!("{} (kernels on this CPU: {})", env!("CARGO_PKG_VERSION"), kernels.join(", "))
});

/// Expand neural networks into series of low-bit integer terms, without calibration data, and run them on integer units.
#[derive(Debug, Parser)]
#[command(name = "fpxint", version = VERSION.as_str(), max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Threads to use [default: all]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Print one JSON object on standard output, and nothing else there
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress bars and no remarks
    #[arg(long, global = true)]
    pub quiet: bool,
    /// What a model may hold
    #[command(flatten)]
    pub bounds: LimitFlags,
    /// Who is told of progress
    #[arg(skip)]
    pub watch: Option<Watch>,
    /// The processes that run this command together.
    #[arg(skip)]
    pub ensemble: Option<Ensemble>,
}

impl Common {
    /// The same flags with `--quiet`.
    pub(crate) fn quietly(&self) -> Self {
        Self { quiet: true, ..self.clone() }
    }

    /// Threads to use; of several processes on a machine each takes its share.
    pub fn threads(&self) -> usize {
        let all = || std::thread::available_parallelism().map_or(1, usize::from);
        let share = || self.ensemble.as_ref().map_or_else(all, |ensemble| ensemble.threads(all()));
        self.threads.map_or_else(share, usize::from)
    }

    /// These flags for what one process does alone.
    pub(crate) fn alone(&self) -> Self {
        Self { ensemble: None, ..self.clone() }
    }

    /// Whether this is the only process of the command, or the first.
    pub(crate) fn is_first(&self) -> bool {
        self.ensemble.as_ref().is_none_or(Ensemble::is_first)
    }

    /// What a model may hold.
    pub fn limits(&self) -> Limits {
        self.bounds.limits()
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Expand and evaluate the embedded network at six precisions; needs no files
    Demo,
    /// Expand an FP32 model and write it as one plain ONNX file
    Quantize(Quantize),
    /// Show the layers of a model with their precisions, bounds, sizes and costs, and what stays in FP32
    Inspect(Inspect),
    /// Run a model on arrays from .npy files
    Run(Run),
    /// Compare a model's outputs with a reference's
    Compare(Compare),
    /// Measure accuracy on a labelled data set
    Eval(Eval),
    /// Measure latency
    Bench(Bench),
    /// The paper's experiments on this model, as JSON and one HTML page
    Study(crate::study::args::Study),
    /// Write one basis model, the one of a weight term, as an ordinary ONNX file
    Basis(Basis),
    /// Predict time and traffic of the ways to split a model over workers
    Plan(PlanWorkers),
}

/// `int<X>x<n>` or `fp32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Not expanded.
    Fp32,
    /// Expanded.
    Int(Precision),
}

/// A precision or `fp32`.
///
/// # Errors
/// Why a text is neither, on one line.
pub fn format(text: &str) -> Result<Format, String> {
    match text {
        "fp32" => Ok(Format::Fp32),
        _ => text.parse().map(Format::Int).map_err(|e: fpxint::Error| e.to_string()),
    }
}

pub(crate) fn precision(text: &str) -> Result<Precision, String> {
    text.parse().map_err(|e: fpxint::Error| e.to_string())
}

fn attention(text: &str) -> Result<AttentionPrecision, String> {
    text.parse().map_err(|e: fpxint::Error| e.to_string())
}

fn pattern(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|e| e.to_string().lines().last().unwrap_or_default().to_owned())
}

/// Precision flags of a model that is run.
#[derive(Debug, Clone, Default, Args)]
pub struct Precisions {
    /// Expand an FP32 model's weights in memory: bits per term x terms, as in int4x2, or fp32
    #[arg(long, value_name = "PRECISION", value_parser = format)]
    pub weights: Option<Format>,
    /// Precision of the activations
    #[arg(long, value_name = "PRECISION", value_parser = format)]
    pub activations: Option<Format>,
    /// How weights are expanded.
    #[command(flatten)]
    pub method: Method,
    /// How attention computes: fp32, or on integers of eight bits [default: what the artefact states;
    /// otherwise int8x1 where all activations have at most 8 bits, or else fp32]
    #[arg(long, value_name = "fp32|int8x1|int4x2", value_parser = attention)]
    pub attention: Option<AttentionPrecision>,
    /// Use only the first N terms of the weights
    #[arg(long, value_name = "N")]
    pub weight_terms: Option<u32>,
    /// Quantise activations afresh at N terms
    #[arg(long, value_name = "N")]
    pub activation_terms: Option<u32>,
    /// Precisions that differ from layer to layer.
    #[command(flatten)]
    pub planning: Planning,
    /// A group of workers.
    #[command(flatten)]
    pub workers: Workers,
}

/// Flags of how weights are expanded, whatever their precision.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Method {
    /// How weights become integers: nearest, or sum: the errors of an output channel cancel [default: nearest; of plans: sum]
    #[arg(long, value_name = "nearest|sum", value_parser = rounding)]
    pub rounding: Option<Rounding>,
    /// Clip weights, what lies beyond becoming a sparse integer part: none, laplace or mse [default: none; of plans: mse where
    /// weights have fewer than eight bits]
    #[arg(long, value_name = "none|laplace|mse", value_parser = clip)]
    pub clip: Option<Clip>,
    /// Weights about zero, or with a bias a channel beside their terms: symmetric or asymmetric [default: symmetric; of plans:
    /// asymmetric where that pays]
    #[arg(long, value_name = "symmetric|asymmetric", value_parser = symmetry)]
    pub symmetry: Option<bool>,
    /// Clip activations, what lies beyond becoming a sparse integer part: none or laplace [default: none, or what the artefact
    /// states; of plans: laplace for rows of 8 bits that are not rotated]
    #[arg(long, value_name = "none|laplace", value_parser = activation_clip)]
    pub activation_clip: Option<ActivationClip>,
    /// Rotate what enters matrix products, so that no value decides the grid of its row: none or hadamard [default: none; of plans:
    /// hadamard where they are most of the model]
    #[arg(long, value_name = "none|hadamard", value_parser = rotation)]
    pub rotation: Option<bool>,
    /// Correct biases by the mean error of the weights, the means of activations being those of synthetic inputs: none or
    /// synthetic [default: none; of plans: synthetic, but for models of tokens]
    #[arg(long, value_name = "none|synthetic", value_parser = correction)]
    pub bias_correction: Option<bool>,
}

impl Method {
    /// The first flag that was given of those that are matters of the expansion.
    pub fn given(&self) -> Option<&'static str> {
        let rounding = self.rounding.map(|_| "--rounding");
        let grid = self.clip.map(|_| "--clip").or(self.symmetry.map(|_| "--symmetry"));
        let values = self.rotation.map(|_| "--rotation").or(self.bias_correction.map(|_| "--bias-correction"));
        rounding.or(grid).or(values)
    }
}

/// Flags of precisions that differ from layer to layer.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Layer by layer")]
pub struct Planning {
    /// Precisions by layer, in TOML: read if FILE is there, written to it if not and a plan is made
    #[arg(long, value_name = "FILE", conflicts_with_all = ["weights", "activations"])]
    pub plan: Option<PathBuf>,
    /// Least error with at most P products, 1 being one 8-bit product everywhere
    #[arg(long, value_name = "P", conflicts_with_all = ["weights", "activations", "tolerance", "target_bits"])]
    pub target_products: Option<f64>,
    /// Fewest products with an expected relative output error of at most T in every layer
    #[arg(long, value_name = "T", conflicts_with_all = ["weights", "activations", "target_bits"])]
    pub tolerance: Option<f64>,
    /// Least error with at most B bits a weight in the mean
    #[arg(long, value_name = "B", conflicts_with_all = ["weights", "activations"])]
    pub target_bits: Option<f64>,
    /// As many terms of X bits as the paper's stopping rules ask for, and eight bits for the first and the last layer
    #[arg(
        long,
        value_name = "X",
        value_parser = clap::value_parser!(u32).range(2..=8),
        conflicts_with_all = ["weights", "activations", "tolerance", "target_products", "target_bits"]
    )]
    pub stopping_rules: Option<u32>,
}

/// What `quantize` takes.
#[derive(Debug, Args)]
pub struct Quantize {
    /// FP32 ONNX file
    pub model: PathBuf,
    /// File to write
    #[arg(short, long, value_name = "OUT", required_unless_present = "dry_run")]
    pub output: Option<PathBuf>,
    /// Precision of the weights: bits per term x terms [default: planned layer by layer, or int4x2 with --activations]
    #[arg(long, value_name = "PRECISION", value_parser = precision)]
    pub weights: Option<Precision>,
    /// Precision of the activations, kept in the file as its setting [default: planned, or int4x2 with --weights]
    #[arg(long, value_name = "PRECISION", value_parser = precision)]
    pub activations: Option<Precision>,
    /// Which weights share a scale: channel, tensor or group:G, G consecutive inputs of a channel
    #[arg(long, value_name = "channel|tensor|group:G", default_value = "channel", value_parser = granularity)]
    pub granularity: Granularity,
    /// How weights are expanded.
    #[command(flatten)]
    pub method: Method,
    /// How attention computes, kept in the file as its setting: fp32, or on integers of eight bits [default: not stated]
    #[arg(long, value_name = "fp32|int8x1|int4x2", value_parser = attention)]
    pub attention: Option<AttentionPrecision>,
    /// Leave layers in FP32 whose name this regular expression matches; may be given more than once
    #[arg(long, value_name = "REGEX", value_parser = pattern)]
    pub exclude: Vec<Regex>,
    /// Expand and report, but write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Precisions that differ from layer to layer.
    #[command(flatten)]
    pub planning: Planning,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// FP32 ONNX file, expanded in memory, or artefact
    pub model: PathBuf,
    /// Precision that an FP32 model's weights are expanded at [default: int4x2]
    #[arg(long, value_name = "PRECISION", value_parser = precision)]
    pub weights: Option<Precision>,
    /// Precision of the activations [default: int4x2, or what the artefact states]
    #[arg(long, value_name = "PRECISION", value_parser = precision)]
    pub activations: Option<Precision>,
    /// How weights are expanded.
    #[command(flatten)]
    pub method: Method,
    #[command(flatten)]
    pub planning: Planning,
    /// Also run the model on synthetic inputs, and write its layers with their time and errors as an HTML page
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// FP32 ONNX file or artefact
    pub model: PathBuf,
    /// Input array; once for every input
    #[arg(short, long = "input", value_name = "NAME=FILE.npy", required = true)]
    pub inputs: Vec<String>,
    /// Folder that gets one .npy file an output
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub precisions: Precisions,
}

#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// Reference model
    pub reference: PathBuf,
    /// Model that the precision flags apply to
    pub model: PathBuf,
    /// Input array; once for every input
    #[arg(short, long = "input", value_name = "NAME=FILE.npy", conflicts_with = "random")]
    pub inputs: Vec<String>,
    /// Compare on N random inputs
    #[arg(long, value_name = "N")]
    pub random: Option<u32>,
    /// Fail (exit code 1) where an output's largest difference, relative to its largest value, exceeds R
    #[arg(long, value_name = "R")]
    pub max_relative: Option<f64>,
    /// Fail (exit code 1) where the same largest element is found for less than this share of the rows
    #[arg(long, value_name = "A")]
    pub min_agreement: Option<f64>,
    /// Also show layer by layer where the error enters; REFERENCE is then the FP32 model
    #[arg(long)]
    pub layers: bool,
    #[command(flatten)]
    pub sizes: Sizes,
    #[command(flatten)]
    pub precisions: Precisions,
}

/// Sizes of symbolic dimensions.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Sizes {
    /// Batch size
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: u32,
    /// Sequence length
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    pub sequence: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Task {
    Imagenet,
    Cifar10,
    StsB,
    Squad,
    Mnli,
}

impl Task {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Task::Imagenet => "imagenet",
            Task::Cifar10 => "cifar10",
            Task::StsB => "sts-b",
            Task::Squad => "squad",
            Task::Mnli => "mnli",
        }
    }

    /// Whether its samples are text.
    pub(crate) fn is_text(self) -> bool {
        matches!(self, Task::StsB | Task::Squad | Task::Mnli)
    }
}

/// The three classes of MNLI in an order.
pub(crate) fn labels(text: &str) -> Result<[Label; 3], String> {
    let found: Option<Vec<_>> = text.split(',').map(|name| Label::named(name.trim())).collect();
    let found = found.and_then(|found| <[Label; 3]>::try_from(found).ok());
    let found = found.filter(|found| Label::ALL.iter().all(|label| found.contains(label)));
    found.ok_or_else(|| "give entailment, neutral and contradiction once each, between commas".to_owned())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preset {
    /// Pixels / 255, less mean .485 .456 .406, divided by .229 .224 .225
    Torchvision,
    /// Pixels / 127.5 - 1
    Tf,
}

/// A labelled data set, and how a model takes its samples.
#[derive(Debug, Clone, Args)]
pub(crate) struct DataSet {
    /// What is measured
    #[arg(long, value_enum)]
    pub task: Task,
    /// Folder or file with the data set
    #[arg(long, value_name = "PATH")]
    pub data: PathBuf,
    /// How pixels become numbers [default: torchvision]
    #[arg(long, value_enum, help_heading = "Images")]
    pub preset: Option<Preset>,
    /// Resize the shorter side to this many pixels before cropping
    #[arg(long, help_heading = "Images", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16384))]
    pub resize: Option<u32>,
    /// Crop to this size from the centre [default: the model's input size]
    #[arg(long, help_heading = "Images", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16384))]
    pub crop: Option<u32>,
    /// Hugging Face tokenizer [default: tokenizer.json beside the model, or else beside the data]
    #[arg(long, help_heading = "Text", value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// Cut sequences to this many tokens [default: 128; squad: 384; never more than the model takes]
    #[arg(long, help_heading = "Text", value_name = "N", value_parser = clap::value_parser!(u32).range(8..=16384))]
    pub max_length: Option<u32>,
    /// Order of the model's classes (mnli) [default: entailment,neutral,contradiction]
    #[arg(long, help_heading = "Text", value_name = "A,B,C", value_parser = labels)]
    pub labels: Option<[Label; 3]>,
    /// Use only the first N samples
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Eval {
    /// FP32 ONNX file or artefact
    pub model: PathBuf,
    /// Also run this model and report how often the two agree
    #[arg(long, value_name = "REF")]
    pub reference: Option<PathBuf>,
    #[command(flatten)]
    pub set: DataSet,
    #[command(flatten)]
    pub precisions: Precisions,
}

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// FP32 ONNX file or artefact
    pub model: PathBuf,
    /// Timed runs, after warming up
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// Also measure each kind of operator
    #[arg(long)]
    pub profile: bool,
    #[command(flatten)]
    pub sizes: Sizes,
    #[command(flatten)]
    pub precisions: Precisions,
}

/// A usage error on one line.
pub(crate) fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
    let lines = lines.filter(|l| !l.starts_with("Usage:") && !l.starts_with("For more information"));
    lines.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn usage_errors_fit_one_line() {
        let wrong = [
            vec!["fpxint", "quantize", "a.onnx"],
            vec!["fpxint", "bench", "a.onnx", "--weights", "int9x1"],
            vec!["fpxint", "bench", "a.onnx", "--weights", "four"],
            vec!["fpxint", "bench", "a.onnx", "--threads", "0"],
            vec!["fpxint", "nonsense"],
        ];
        for line in wrong {
            let error = Cli::try_parse_from(&line).unwrap_err();
            let text = one_line(&error);
            assert!(text.starts_with("error: ") && !text.contains('\n'), "{text}");
        }
    }
}
