//! The commands of the README, run as they are written on small stand-ins for the files they name.
//!
//! What is run is every line of a code block that begins with `fpxint`, or `$ fpxint`. A new name of a model stands for a small
//! network, any other name needs a stand-in here.

use std::collections::BTreeSet;

use fpxint_onnx::proto::tensor_proto::DataType;
use ndarray::Array4;

use crate::encoders::{Head, STS, encoder, tokenizer};
use crate::eval::imagenet;
use crate::models::{colour, noise};
use crate::program::{DONE, Folder};

const README: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md"));

/// The commands, without `fpxint` and remarks.
fn commands() -> Vec<&'static str> {
    let blocks = README.lines().filter_map(|line| line.strip_prefix("    "));
    let commands = blocks.filter_map(|line| line.strip_prefix("$ ").unwrap_or(line).strip_prefix("fpxint "));
    commands.map(|line| line.split("  #").next().unwrap_or(line).trim()).collect()
}

/// The arguments of a line, without quotes.
fn arguments(line: &str) -> Vec<String> {
    line.split_whitespace().map(|word| word.trim_matches(['\'', '"']).to_owned()).collect()
}

/// A folder with everything that the commands read and none of them writes.
fn folder(commands: &[&str]) -> Folder {
    let folder = Folder::empty();
    let words: Vec<Vec<String>> = commands.iter().map(|line| arguments(line)).collect();
    let written =
        |words: &[String]| words.windows(2).filter(|w| w[0] == "-o").map(|w| w[1].clone()).collect::<Vec<_>>();
    let written: BTreeSet<String> = words.iter().flat_map(|words| written(words)).collect();
    let models = words.iter().flatten().filter(|word| word.ends_with(".onnx") && !written.contains(*word));
    for name in models.collect::<BTreeSet<_>>() {
        let is_encoder = ["encoder", "minilm", "bert"].iter().any(|kind| name.contains(kind));
        let model = if is_encoder { encoder(Head::Hidden, DataType::Int64, -1, -2) } else { colour(-1, 32, 1000) };
        folder.model(name, &model);
    }
    folder.array("x.npy", &Array4::from_shape_vec((2, 3, 32, 32), noise(2 * 3 * 32 * 32).collect()).unwrap());
    folder.write("tokenizer.json", tokenizer());
    folder.write("sts-dev.csv", STS);
    imagenet(&folder, "DIR", 4, 40);
    folder
}

#[test]
fn the_commands_of_the_readme_run_as_written() {
    let commands = commands();
    assert!(commands.len() > 10, "{commands:?}");
    let folder = folder(&commands);
    for line in commands {
        let output = folder.command("").args(arguments(line)).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == DONE && !output.stdout.is_empty(), "fpxint {line}\n{told}");
    }
}
