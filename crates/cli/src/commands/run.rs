//! `fpxint run`: outputs of a model for arrays from files.

use std::collections::HashSet;

use anyhow::{Context, Result, bail, ensure};
use fpxint_runtime::Value;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::print_json;
use crate::args::{Common, Run};
use crate::grouping::GroupReport;
use crate::table::Table;
use crate::{Outcome, engine, inputs};

#[derive(Debug, Serialize)]
struct Output {
    name: String,
    shape: Vec<usize>,
    /// Of the little-endian bytes of the elements.
    sha256: String,
}

#[derive(Debug, Serialize)]
struct Report {
    outputs: Vec<Output>,
    /// The workers that shared the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<GroupReport>,
}

pub(crate) fn run(common: &Common, args: &Run) -> Result<Outcome> {
    let engine = engine::load(common, &args.model, &args.precisions)?;
    let values = inputs::read(engine.inputs(), &args.inputs)?;
    if let Some(ensemble) = &common.ensemble {
        let bytes: Vec<_> = values.iter().map(|(_, value)| value.to_le_bytes()).collect();
        ensemble.agree_on("inputs", bytes.iter().map(Vec::as_slice))?;
    }
    let outputs = engine.run(&values)?;
    if let Some(folder) = args.output.as_ref().filter(|_| common.is_first()) {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut files = HashSet::new();
        for (name, value) in &outputs {
            let file = name.replace(['/', '\\'], "_");
            if file.is_empty() || file.starts_with('.') {
                bail!("output `{name}` cannot name a file");
            }
            ensure!(files.insert(file.clone()), "output `{name}` and another one both name {file}.npy");
            inputs::write_npy(&folder.join(format!("{file}.npy")), value)?;
        }
    }
    let group = GroupReport::of(common, &engine)?;
    let report = Report { outputs: outputs.iter().map(|(name, value)| describe(name, value)).collect(), group };
    if common.json {
        print_json(&report)?;
    } else {
        let mut table = Table::new(2, &["output", "shape", "sha256"]);
        for output in report.outputs {
            table.row(vec![output.name, format!("{:?}", output.shape), output.sha256]);
        }
        print!("{table}");
        if let Some(group) = &report.group {
            group.print();
        }
    }
    Ok(Outcome::Done)
}

fn describe(name: &str, value: &Value) -> Output {
    let digest = Sha256::digest(value.to_le_bytes());
    let sha256 = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Output { name: name.to_owned(), shape: value.shape().to_vec(), sha256 }
}
