//! `--rotation`: the same bits from the model, its artefact and its parts, its place in plans, and where it is refused.

use serde_json::Value;

use fpxint_onnx::proto::{GraphProto, ModelProto, OperatorSetIdProto, tensor_proto::DataType};

use crate::models::{floats, node, noise, value};
use crate::program::{Folder, number};

const FLAGS: &str = "--weights int4x2 --activations int4x2";

/// By layer, values of a block.
fn blocks(report: &Value) -> Vec<Option<u64>> {
    report["layers"].as_array().unwrap().iter().map(|layer| layer["rotation"].as_u64()).collect()
}

#[test]
fn the_model_its_artefact_and_its_workers_give_the_same_bits() {
    let folder = Folder::new();
    let flags = format!("{FLAGS} --rotation hadamard");
    let report = folder.run(&format!("quantize digits.onnx -o out.onnx {flags} --json")).done().json();
    // The classifier alone is a matrix product.
    let (last, others) = blocks(&report).split_last().map(|(last, others)| (*last, others.to_vec())).unwrap();
    assert_eq!((last, others), (Some(64), vec![None; 7]));
    for layer in report["layers"].as_array().unwrap() {
        assert!(number(layer, "max_error") <= number(layer, "bound"), "{layer}");
    }
    let outputs = |line: &str| folder.run(&format!("{line} -i input=x.npy --json")).done().json()["outputs"].clone();
    let direct = outputs(&format!("run digits.onnx {flags}"));
    assert_ne!(direct, outputs(&format!("run digits.onnx {FLAGS}")));
    assert_eq!(outputs("run out.onnx"), direct);
    assert_eq!(outputs("run out.onnx --workers 4"), direct);
    for inspected in ["out.onnx".to_owned(), "digits.onnx --rotation hadamard".to_owned()] {
        let inspected = format!("inspect {inspected}");
        assert!(folder.run(&inspected).done().stdout.contains("what enters 1 layers is rotated, in blocks of 64"));
        assert_eq!(blocks(&folder.run(&format!("{inspected} --json")).done().json()), blocks(&report));
    }
    // Layer by layer it is compared with the model as it was.
    for compared in ["out.onnx".to_owned(), format!("digits.onnx {flags}")] {
        let line = format!("compare digits.onnx {compared} --layers -i input=x.npy --json");
        let report = folder.run(&line).done().json();
        let own = number(report["layers"].as_array().unwrap().last().unwrap(), "own_relative");
        assert!((0.0..0.02).contains(&own), "{compared}: {own}");
    }
}

#[test]
fn basis_models_of_rotated_layers_are_rotated_too() {
    let folder = Folder::new();
    let basis = |term: u32, output: &str| {
        let line = format!("basis digits.onnx --weight-term {term} --weights int4x2 --rotation hadamard -o {output}");
        folder.run(&line).done();
        let outputs = folder.run(&format!("inspect {output} --json")).done().json();
        assert_eq!(blocks(&outputs).last(), Some(&Some(64)));
    };
    basis(1, "one.onnx");
    basis(2, "two.onnx");
    folder
        .refuses("basis digits.onnx --weight-term 1 --rotation givens -o o.onnx", &["--rotation", "none or hadamard"]);
}

/// An embedding of tokens and two products of it, one of which has no rotation.
fn tokens() -> ModelProto {
    let values = |len: usize| noise(len).map(|v| 2.0 * v - 1.0);
    let graph = GraphProto {
        name: Some("tokens".into()),
        input: vec![value("input_ids", DataType::Int64, &[-1, -2])],
        output: vec![value("y", DataType::Float, &[-1, -2, 24])],
        initializer: vec![
            floats("table", &[40, 32], values(40 * 32)),
            floats("wide", &[32, 24], values(32 * 24)),
            floats("narrow", &[24, 24], values(24 * 24)),
        ],
        node: vec![
            node("Gather", "embed", &["table", "input_ids"], "embedded", &[]),
            node("MatMul", "first", &["embedded", "wide"], "hidden", &[]),
            node("MatMul", "second", &["hidden", "narrow"], "y", &[]),
        ],
        ..Default::default()
    };
    let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(17) };
    ModelProto { ir_version: Some(8), graph: Some(graph), opset_import: vec![opset], ..Default::default() }
}

#[test]
fn plans_of_token_models_rotate_and_keep_it_in_their_file() {
    let folder = Folder::empty();
    folder.model("tokens.onnx", &tokens());
    let quantize =
        |flags: &str| folder.run(&format!("quantize tokens.onnx -o out.onnx {flags} --json --quiet")).done().json();
    let made = quantize("--plan plan.toml");
    assert_eq!(blocks(&made), [Some(32), None], "{made}");
    let text = std::fs::read_to_string(folder.path("plan.toml")).unwrap();
    assert!(text.contains("\nrotation = \"hadamard\"\n"), "{text}");
    let clips = folder.run("inspect out.onnx --json").done().json();
    for (layer, block) in clips["layers"].as_array().unwrap().iter().zip(blocks(&clips)) {
        assert_eq!(layer["activation_clip"] == "none", block.is_some(), "what is rotated is not clipped: {layer}");
    }
    assert_eq!(blocks(&quantize("--plan plan.toml")), blocks(&made));
    assert!(blocks(&quantize("--plan plan.toml --rotation none")).iter().all(Option::is_none));
    assert!(blocks(&quantize("--rotation none")).iter().all(Option::is_none));
    assert!(blocks(&quantize("--stopping-rules 4")).iter().all(Option::is_none));
    let images = Folder::new();
    let report = images.run("quantize digits.onnx -o out.onnx --json").done().json();
    assert!(blocks(&report).iter().all(Option::is_none), "{report}");
    let line = format!("quantize digits.onnx -o out.onnx {FLAGS} --rotation hadamard --exclude classifier --json");
    let kept = images.run(&line).done().json();
    assert!(!images.read("out.onnx").windows(8).any(|name| name == b"/rotated"));
    let warning = kept["warnings"].as_array().unwrap().last().unwrap().as_str().unwrap().to_owned();
    assert!(warning.contains("--rotation hadamard has nothing to rotate"), "{warning}");
}

#[test]
fn an_expanded_model_has_its_rotation_already() {
    let folder = Folder::with_artefact("int4x2", "int4x2");
    let flag = "--rotation hadamard";
    for line in ["run terms.onnx -i input=x.npy", "inspect terms.onnx", "basis terms.onnx --weight-term 1 -o o.onnx"] {
        folder.refuses(&format!("{line} {flag}"), &["terms.onnx", "expanded already"]);
    }
    folder.refuses(&format!("bench digits.onnx {flag}"), &["digits.onnx", "not expanded", "--rotation"]);
    folder.refuses("quantize digits.onnx -o o.onnx --rotation qr", &["--rotation", "none or hadamard"]);
}
