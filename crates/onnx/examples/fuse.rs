//! A developer's tool: fuses what is recognised in an ONNX file. `fuse IN OUT` prints the number of fused nodes by operator.
//!
//! Exit code 0: written; 2: bad use or bad input.

use std::collections::BTreeMap;
use std::process::ExitCode;

use fpxint_onnx::DOMAIN;
use fpxint_onnx::proto::{ModelProto, OperatorSetIdProto};
use prost::Message;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [input, output] = arguments.as_slice() else {
        eprintln!("use: fuse IN OUT");
        return ExitCode::from(2);
    };
    match run(input, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn run(input: &str, output: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut model = ModelProto::decode(std::fs::read(input)?.as_slice())?;
    let own = model.opset_import.iter().filter(|set| matches!(set.domain(), "" | "ai.onnx"));
    let opset = own.map(OperatorSetIdProto::version).max().unwrap_or(0);
    let graph = model.graph.as_mut().ok_or("there is no graph")?;
    fpxint_onnx::fuse(graph, opset);
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for node in graph.node.iter().filter(|node| node.domain() == DOMAIN) {
        *count.entry(node.op_type()).or_default() += 1;
    }
    for (op_type, count) in count {
        println!("{op_type} {count}");
    }
    model.opset_import.push(OperatorSetIdProto { domain: Some(DOMAIN.to_owned()), version: Some(1) });
    std::fs::write(output, model.encode_to_vec())?;
    Ok(())
}
