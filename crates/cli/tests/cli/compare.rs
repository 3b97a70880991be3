//! `fpxint compare`: figures and thresholds.

use fpxint_onnx::proto::tensor_proto::DataType;
use serde_json::Value;

use crate::models::{colour, insert, node, raw, set, value};
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
    folder.model("ten.onnx", &colour(-1, 32, 10));
    folder.model("four.onnx", &colour(-1, 32, 4));
    folder.refuses("compare ten.onnx four.onnx", &["`scores`", "[1, 10]", "[1, 4]"]);
    folder.refuses("compare digits.onnx ten.onnx", &["the model", "`input`", "[?, 3, 32, 32]"]);
    folder.edited("renamed.onnx", |graph| {
        graph.node.last_mut().unwrap().output[0] = "scores".into();
        graph.output[0].name = Some("scores".into());
    });
    folder.refuses("compare digits.onnx renamed.onnx", &["`logits`"]);
}

/// The report of a comparison with `--layers`.
fn traced(folder: &Folder, line: &str) -> Value {
    folder.run(&format!("compare {line} --layers --json")).done().json()
}

fn layers(report: &Value) -> &Vec<Value> {
    report["layers"].as_array().unwrap()
}

#[test]
fn layers_show_where_the_error_enters() {
    let folder = Folder::with_artefact("int4x2", "int4x2");
    for model in ["terms.onnx", "digits.onnx --weights int4x2"] {
        let line = format!("digits.onnx {model} --batch 8 --random 2");
        let report = traced(&folder, &line);
        assert_eq!(keys(&report), ["activations", "layers", "outputs", "runs", "weights"]);
        let layers = layers(&report);
        let names: Vec<_> = layers.iter().map(|layer| layer["name"].as_str().unwrap()).collect();
        let wanted = ["stem", "block1_dw", "block1_pw", "down", "block2_dw", "block2_pw", "head", "classifier"];
        assert_eq!(names, wanted);
        for layer in layers {
            let wanted = [
                "activations",
                "input_relative",
                "name",
                "op",
                "output_max_relative",
                "output_relative",
                "own_relative",
                "weights",
            ];
            assert_eq!(keys(layer), wanted);
            assert_eq!((layer["weights"].as_str(), layer["activations"].as_str()), (Some("int4x2"), Some("int4x2")));
            assert!((1e-3..3e-2).contains(&number(layer, "own_relative")), "{layer}");
        }
        // The first layer has the very input; all the error of its output is its own.
        assert_eq!(number(&layers[0], "input_relative"), 0.0);
        let first = number(&layers[0], "output_relative") / number(&layers[0], "own_relative");
        assert!((first - 1.0).abs() < 1e-5, "{first}");
        // The last layer makes the output.
        assert_eq!(layers[7]["output_max_relative"], report["outputs"][0]["relative"]);
        // Looking changes nothing.
        let plain = folder.run(&format!("compare {line} --json")).done().json();
        assert_eq!(plain["outputs"], report["outputs"]);
        assert!(plain.get("layers").is_none(), "{plain}");
    }
    let table = folder.run("compare digits.onnx terms.onnx --layers").done().stdout;
    assert!(table.contains("own error") && table.contains("block2_pw   Conv  int4x2   int4x2"), "{table}");
    assert!(table.lines().any(|line| line.starts_with("most error enters at ")), "{table}");
    let both = "compare digits.onnx terms.onnx --layers --json -i input=x.npy --max-relative 1e-9";
    assert_eq!(folder.run(both).code, BELOW);
}

#[test]
fn a_bad_layer_stands_out() {
    let folder = Folder::new();
    folder.edited("worse.onnx", |graph| {
        for element in 0..40 {
            set(graph, "block2_pw.weight", element, 2.0);
        }
    });
    let report = traced(&folder, "digits.onnx worse.onnx --weights int8x3 --activations int8x3 --batch 4");
    for layer in layers(&report) {
        let (own, is_bad) = (number(layer, "own_relative"), layer["name"] == "block2_pw");
        assert_eq!(own > 1e-2, is_bad, "{layer}");
        assert!(own < 1e-5 || is_bad, "{layer}");
    }
    let table = folder.run("compare digits.onnx worse.onnx --weights int8x3 --layers").done().stdout;
    assert!(table.lines().any(|line| line.starts_with("most error enters at block2_pw (")), "{table}");
}

#[test]
fn layers_of_half_precision_graphs_are_those_inside_the_casts() {
    let folder = Folder::empty();
    let mut model = colour(-1, 32, 10);
    let graph = model.graph.as_mut().unwrap();
    let bytes = [0x3c00u16, 0xbc00, 0x3800, 0xb400].iter().flat_map(|half| half.to_le_bytes());
    graph.initializer = vec![raw("w", DataType::Float16, &[2, 2], bytes.collect())];
    graph.input = vec![value("x", DataType::Float16, &[-1, 2])];
    graph.output = vec![value("y", DataType::Float16, &[-1, 2])];
    graph.node = vec![node("Tanh", "tanh", &["x"], "t", &[]), node("MatMul", "product", &["t", "w"], "y", &[])];
    folder.model("half.onnx", &model);
    folder.run("quantize half.onnx -o terms.onnx --weights int8x2 --activations int8x2 --quiet").done();
    for model in ["terms.onnx", "half.onnx --weights int8x2 --activations int8x2"] {
        let report = traced(&folder, &format!("half.onnx {model} --batch 9"));
        let [layer] = &layers(&report)[..] else { panic!("{report}") };
        assert_eq!(layer["name"], "product");
        assert!(number(layer, "own_relative") < 1e-3 && number(layer, "input_relative") < 1e-3, "{report}");
    }
}

#[test]
fn layers_that_correspond_to_none_are_told() {
    let folder = Folder::with_artefact("int4x2", "int4x2");
    folder.edited("renamed.onnx", |graph| {
        graph.node.iter_mut().find(|n| n.name() == "down").unwrap().name = Some("up".into());
    });
    let line = "digits.onnx renamed.onnx --weights int4x2";
    let report = traced(&folder, line);
    assert_eq!((layers(&report).len(), &report["unmatched"]), (7, &serde_json::json!(["up"])));
    let table = folder.run(&format!("compare {line} --layers")).done().stdout;
    assert!(table.contains("not in the reference: up\n"), "{table}");

    let mut other = colour(-1, 32, 10);
    other.graph.as_mut().unwrap().node.iter_mut().for_each(|node| node.name = Some(format!("my {}", node.name())));
    folder.model("other.onnx", &other);
    let refused = |line: &str, words: &[&str]| folder.refuses(&format!("compare {line} --layers"), words);
    refused("digits.onnx digits.onnx", &["digits.onnx", "--weights"]);
    refused("terms.onnx digits.onnx --weights int4x2", &["terms.onnx", "expanded already", "FP32"]);
    refused("terms.onnx terms.onnx", &["terms.onnx", "expanded already", "FP32"]);
    refused("other.onnx terms.onnx", &["other.onnx", "terms.onnx", "no layer of the same name"]);
    folder.model("colour.onnx", &colour(-1, 32, 10));
    folder.model("four.onnx", &colour(-1, 32, 4));
    refused("colour.onnx four.onnx --weights int4x2", &["`classifier`", "[4, 8]", "[10, 8]"]);
    folder.edited("shrunk.onnx", |graph| {
        let pool = node("MaxPool", "shrink", &["input"], "small", &[("kernel_shape", &[2, 2]), ("strides", &[2, 2])]);
        insert(graph, pool, "stem", "input");
    });
    refused("digits.onnx shrunk.onnx --weights int4x2", &["layer `", "has shape"]);
}
