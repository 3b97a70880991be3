//! The command line of `fpxint study`.

use std::path::PathBuf;

use clap::Args;

use crate::args::{Eval, Precisions, Preset, Task, labels};
use crate::data::mnli::Label;

#[derive(Debug, Args)]
pub(crate) struct Study {
    /// FP32 ONNX file
    pub model: PathBuf,
    /// Folder for study.html, study.json and the finished sections, with which a run that was stopped goes on
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Only these sections, as in a,c,f: a tensors, b layer by layer, c activation terms, d saturation and symmetry, e weights or
    /// activations, f bit settings, g weight terms and seeds, h saturation part, i ensembles, j products [default: all]
    #[arg(long, value_name = "LETTERS", value_delimiter = ',', value_parser = section)]
    pub sections: Vec<char>,
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
    /// Cut sequences to this many tokens
    #[arg(long, help_heading = "Text", value_name = "N", value_parser = clap::value_parser!(u32).range(8..=16384))]
    pub max_length: Option<u32>,
    /// Order of the model's classes (mnli) [default: entailment,neutral,contradiction]
    #[arg(long, help_heading = "Text", value_name = "A,B,C", value_parser = labels)]
    pub labels: Option<[Label; 3]>,
    /// Use only the first N samples
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
}

fn section(text: &str) -> Result<char, String> {
    let one = text.chars().next().filter(|letter| text.len() == 1 && ('a'..='j').contains(letter));
    one.ok_or_else(|| "is not a letter from a to j".to_owned())
}

impl Study {
    /// `eval` of the same data and model.
    pub(crate) fn eval(&self) -> Eval {
        Eval {
            model: self.model.clone(),
            task: self.task,
            data: self.data.clone(),
            reference: Some(self.model.clone()),
            preset: self.preset,
            resize: self.resize,
            crop: self.crop,
            tokenizer: self.tokenizer.clone(),
            max_length: self.max_length,
            labels: self.labels,
            limit: self.limit,
            precisions: Precisions::default(),
        }
    }
}
