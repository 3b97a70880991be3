//! `fpxint compare`: figures and thresholds.

use crate::models::set;
use crate::program::{BELOW, DONE, Folder, keys, number};

#[test]
fn keys_are_those_that_tools_rely_on() {
    let folder = Folder::with_artefact("int4x2", "int4x2");
    let report = folder.run("compare digits.onnx terms.onnx --random 3 --batch 4 --json").done().json();
    assert_eq!(keys(&report), ["activations", "outputs", "runs", "weights"]);
    assert_eq!((report["weights"].as_str(), report["activations"].as_str()), (Some("int4x2"), Some("int4x2")));
    assert_eq!((report["runs"].as_u64(), report["outputs"].as_array().unwrap().len()), (Some(3), 1));
    let output = &report["outputs"][0];
    assert_eq!(keys(output), ["argmax_agreement", "cosine", "max_abs", "name", "relative", "sqnr_db"]);
    assert_eq!(output["name"], "logits");
    assert!(number(output, "relative") < 0.1 && number(output, "cosine") > 0.99, "{report}");
    assert!(number(output, "sqnr_db") > 20.0 && number(output, "max_abs") > 0.0, "{report}");
}

#[test]
fn a_model_equals_itself() {
    let folder = Folder::new();
    let report = folder.run("compare digits.onnx digits.onnx -i input=x.npy --json").done().json();
    let output = &report["outputs"][0];
    assert_eq!((number(output, "max_abs"), number(output, "relative"), number(output, "cosine")), (0.0, 0.0, 1.0));
    assert!(output["sqnr_db"].is_null() && number(output, "argmax_agreement") == 1.0, "{report}");
}

#[test]
fn thresholds_set_the_exit_code() {
    let folder = Folder::with_artefact("int4x2", "int4x2");
    let code = |flags: &str| {
        let ended = folder.run(&format!("compare digits.onnx terms.onnx --batch 8 {flags}"));
        assert!(ended.stderr.is_empty() && ended.stdout.contains("logits"), "{ended:?}");
        ended.code
    };
    assert_eq!(code(""), DONE);
    assert_eq!(code("--max-relative 0.2"), DONE);
    assert_eq!(code("--max-relative 0.2 --json"), DONE);
    assert_eq!(code("--max-relative 1e-9"), BELOW);
    assert_eq!(code("--max-relative 1e-9 --json"), BELOW);
    assert_eq!(code("--min-agreement 0.5"), DONE);
    assert_eq!(code("--min-agreement 1.01"), BELOW);
    assert_eq!(code("--max-relative 0.2 --min-agreement 1.01"), BELOW);
}

#[test]
fn nothing_passes_a_threshold_with_outputs_that_are_no_numbers() {
    let folder = Folder::new();
    folder.edited("reference.onnx", |graph| set(graph, "classifier.bias", 0, f32::NAN));
    let ended = folder.run("compare reference.onnx digits.onnx --weights int4x2 --max-relative 1000");
    assert_eq!(ended.code, BELOW, "{ended:?}");
}

#[test]
fn more_terms_come_closer() {
    let folder = Folder::with_artefact("int4x3", "int8x3");
    let relative = |flags: &str| {
        let report = folder.run(&format!("compare digits.onnx terms.onnx --batch 16 --json {flags}")).done().json();
        number(&report["outputs"][0], "relative")
    };
    let by_terms = [1, 2, 3].map(|terms| relative(&format!("--weight-terms {terms}")));
    assert!(by_terms[0] > 4.0 * by_terms[1] && by_terms[1] > 4.0 * by_terms[2], "{by_terms:?}");
    assert!(relative("") == by_terms[2] && by_terms[2] < 2e-3, "{by_terms:?}");
    let by_activations = [1, 2].map(|terms| relative(&format!("--activation-terms {terms}")));
    assert!(by_activations[0] > by_activations[1], "{by_activations:?}");
}

#[test]
fn random_inputs_are_the_same_every_time() {
    let folder = Folder::with_artefact("int4x2", "int4x2");
    let line = "compare digits.onnx terms.onnx --random 2 --json";
    assert_eq!(folder.run(line).done().stdout, folder.run(&format!("{line} --threads 1")).done().stdout);
}

#[test]
fn outputs_that_do_not_correspond_are_refused() {
    let folder = Folder::new();
    folder.model("ten.onnx", &crate::models::colour(-1, 32, 10));
    folder.model("four.onnx", &crate::models::colour(-1, 32, 4));
    folder.refuses("compare ten.onnx four.onnx", &["`scores`", "[1, 10]", "[1, 4]"]);
    folder.refuses("compare digits.onnx ten.onnx", &["the model", "`input`", "[?, 3, 32, 32]"]);
    folder.edited("renamed.onnx", |graph| {
        graph.node.last_mut().unwrap().output[0] = "scores".into();
        graph.output[0].name = Some("scores".into());
    });
    folder.refuses("compare digits.onnx renamed.onnx", &["`logits`"]);
}
