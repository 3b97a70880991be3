//! The command line of `fpxint study`.

use std::path::PathBuf;

use clap::Args;

use crate::args::{DataSet, Eval, Precisions};

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
    #[command(flatten)]
    pub set: DataSet,
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
            reference: Some(self.model.clone()),
            set: self.set.clone(),
            precisions: Precisions::default(),
        }
    }
}
