//! A developer's tool: raises the opset of an ONNX file. `raise IN OUT TO`.
//!
//! Exit code 0: raised, or already there; 1: not raisable, with the reason on stderr; 2: bad use or bad input.

use std::process::ExitCode;

use fpxint_onnx::proto::ModelProto;
use prost::Message;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [input, output, to] = arguments.as_slice() else {
        eprintln!("use: raise IN OUT TO");
        return ExitCode::from(2);
    };
    match run(input, output, to) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(unraisable)) => {
            eprintln!("{unraisable}");
            ExitCode::from(1)
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

type Failure = Box<dyn std::error::Error>;

fn run(input: &str, output: &str, to: &str) -> Result<Result<(), fpxint_onnx::Unraisable>, Failure> {
    let mut model = ModelProto::decode(std::fs::read(input)?.as_slice())?;
    let raised = fpxint_onnx::raise(&mut model, to.parse()?);
    if raised.is_ok() {
        std::fs::write(output, model.encode_to_vec())?;
    }
    Ok(raised)
}
