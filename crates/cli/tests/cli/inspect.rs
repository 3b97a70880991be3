//! `fpxint inspect`: what is told of FP32 files and artefacts.

use fpxint_onnx::proto::tensor_proto::DataType;
use serde_json::{Value, json};

use crate::models::{colour, floats, insert, node, raw, value};
use crate::program::{Folder, keys, number};

fn inspect(folder: &Folder, line: &str) -> Value {
    folder.run(&format!("inspect {line} --json")).done().json()
}

fn layers(report: &Value) -> &Vec<Value> {
    report["layers"].as_array().unwrap()
}

fn warnings(report: &Value) -> Vec<&str> {
    report["warnings"].as_array().unwrap().iter().map(|warning| warning.as_str().unwrap()).collect()
}

#[test]
fn keys_are_those_that_tools_rely_on() {
    let report = inspect(&Folder::new(), "digits.onnx");
    let wanted = ["artefact", "embeddings", "host", "layers", "model", "opset", "skipped", "totals", "warnings"];
    assert_eq!(keys(&report), wanted);
    assert_eq!((&report["model"], &report["artefact"]), (&json!("digits.onnx"), &json!(false)));
    assert_eq!(report["opset"], 13);
    let wanted = [
        "activation_bits",
        "activation_clip",
        "activations",
        "asymmetric",
        "bounds",
        "bound",
        "bytes",
        "fp32_bytes",
        "groups",
        "macs",
        "max_error",
        "max_errors",
        "name",
        "op",
        "products",
        "rotation",
        "scales",
        "shape",
        "sparse_fraction",
        "weight_bits",
        "weights",
    ];
    let (mut wanted, depthwise) = (wanted.to_vec(), &layers(&report)[1]);
    wanted.sort_unstable();
    assert_eq!(keys(depthwise), wanted);
    assert_eq!((&depthwise["name"], &depthwise["op"]), (&json!("block1_dw"), &json!("Conv")));
    assert_eq!((&depthwise["shape"], &depthwise["groups"]), (&json!([24, 1, 3, 3]), &json!(24)));
    assert_eq!((&depthwise["weights"], &depthwise["activations"]), (&json!("int4x2"), &json!("int4x2")));
    // Two terms of four bits and their scales; an image of 4 x 4 pixels with 24 channels and nine weights each.
    assert_eq!((number(depthwise, "bytes"), number(depthwise, "fp32_bytes")), (216.0 + 2.0 * 24.0 * 4.0, 864.0));
    assert_eq!(number(depthwise, "macs") % (24.0 * 9.0), 0.0);
    assert_eq!(keys(&depthwise["scales"]), ["groups", "max", "min"]);
    assert_eq!(number(&depthwise["scales"], "groups"), 24.0);
    assert!(number(&depthwise["scales"], "min") < number(&depthwise["scales"], "max"), "{depthwise}");
    let totals = &report["totals"];
    assert_eq!(keys(totals), ["bytes", "fp32_bytes", "gmacs", "layers", "mean_weight_bits", "products"]);
    let sum = |key: &str| layers(&report).iter().map(|layer| number(layer, key)).sum::<f64>();
    assert_eq!((number(totals, "layers"), number(totals, "bytes")), (8.0, sum("bytes")));
    assert_eq!((number(totals, "fp32_bytes"), number(totals, "gmacs")), (sum("fp32_bytes"), sum("macs") / 1e9));
    assert_eq!((number(totals, "mean_weight_bits"), number(totals, "products")), (8.0, 1.0));
    assert!(warnings(&report).is_empty(), "{report}");
}

#[test]
fn the_figures_are_those_of_quantize() {
    let folder = Folder::new();
    for precisions in ["--weights int4x2", "--weights int2x3 --activations int4x3", "--weights int8x3"] {
        let written = folder.run(&format!("quantize digits.onnx -o out.onnx --json {precisions}")).done().json();
        let report = inspect(&folder, &format!("digits.onnx {precisions}"));
        for (layer, written) in layers(&report).iter().zip(layers(&written)) {
            for (key, value) in written.as_object().unwrap() {
                assert_eq!(&layer[key], value, "{key} of {layer}");
            }
        }
        assert_eq!(report["totals"]["products"], written["products"]);
        assert_eq!(report["totals"]["mean_weight_bits"], written["mean_weight_bits"]);
        // Of the artefact the same but for the errors, since the float weights are gone.
        let stored = inspect(&folder, "out.onnx");
        assert_eq!((&stored["artefact"], &stored["totals"]), (&json!(true), &report["totals"]));
        for (stored, layer) in layers(&stored).iter().zip(layers(&report)) {
            let mut layer = layer.clone();
            layer["max_error"] = Value::Null;
            layer["max_errors"] = Value::Null;
            assert_eq!(stored, &layer);
        }
    }
}

#[test]
fn every_prefix_has_its_bound_and_its_error() {
    let report = inspect(&Folder::new(), "digits.onnx --weights int2x4");
    for layer in layers(&report) {
        let list = |key: &str| layer[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect::<Vec<_>>();
        let (bounds, errors) = (list("bounds"), list("max_errors"));
        assert_eq!((bounds.len(), errors.len()), (4, 4));
        assert!(errors.iter().zip(&bounds).all(|(error, bound)| error <= bound), "{layer}");
        assert!(bounds.is_sorted_by(|a, b| a > b) && errors.is_sorted_by(|a, b| a > b), "{layer}");
        assert_eq!((bounds[3], errors[3]), (number(layer, "bound"), number(layer, "max_error")));
    }
}

#[test]
fn what_is_not_a_layer_is_told_apart() {
    let folder = Folder::new();
    folder.edited("more.onnx", |graph| {
        graph.initializer.push(floats("up.weight", &[1, 1, 1, 1], [1.0]));
        insert(graph, node("ConvTranspose", "up", &["input", "up.weight"], "upped", &[]), "stem", "input");
        graph.initializer.push(floats("table", &[5, 1], [0.0; 5]));
        graph.initializer.push(raw("ids", DataType::Int64, &[1, 1, 1], vec![0; 8]));
        graph.input.push(value("which", DataType::Int64, &[1, 1, 8]));
        insert(graph, node("Gather", "lookup", &["table", "which"], "rows", &[]), "stem", "");
        insert(graph, node("Mul", "halved", &["rows", "half"], "added", &[]), "stem", "");
        graph.initializer.push(floats("half", &[1], [0.5]));
        insert(graph, node("Add", "sum", &["upped", "added"], "shifted", &[]), "stem", "upped");
    });
    let report = inspect(&folder, "more.onnx");
    assert_eq!(report["embeddings"], json!([{"name": "lookup", "shape": [5, 1], "bytes": 20}]));
    assert_eq!(keys(&report["skipped"][0]), ["name", "reason"]);
    assert_eq!(report["skipped"][0]["name"], "up");
    let host = report["host"].as_array().unwrap();
    assert_eq!(keys(&host[0]), ["count", "exact", "nodes", "operator"]);
    let counts = host.iter().map(|kind| (number(kind, "count") as usize, kind["nodes"].as_array().unwrap().len()));
    assert!(counts.clone().all(|(count, nodes)| count == nodes && count > 0), "{report}");
    assert!(counts.is_sorted_by(|a, b| a.0 >= b.0), "{report}");
    assert!(host.iter().any(|kind| kind["operator"] == "Gather" && kind["nodes"][0] == "lookup"), "{report}");

    let table = folder.run("inspect more.onnx").done().stdout;
    for line in ["stays in FP32: up: ", "stays in FP32: lookup: an embedding of 5 x 1, 20 B", "left to the host: "] {
        assert!(table.lines().any(|l| l.starts_with(line)), "{line}: {table}");
    }
    assert!(table.contains("equal bits on every CPU are not promised"), "{table}");
    assert!(table.contains("24x1x3x3 g24") && table.contains("8 layers"), "{table}");
}

#[test]
fn warnings_name_cause_and_remedy() {
    let folder = Folder::new();
    let report = inspect(&folder, "digits.onnx --weights int4x3 --activations int4x1");
    let [few, wide] = warnings(&report)[..] else { panic!("{report}") };
    for word in ["int4x1", "4 bits", "stem, block1_dw", "4 more", "--activations int4x2"] {
        assert!(few.contains(word), "no {word} in {few}");
    }
    for word in ["2 products", "weights of 12 bits take 2 integers", "activations of 4 take one", "stem, block1_pw"] {
        assert!(wide.contains(word), "no {word} in {wide}");
    }
    // Depthwise weights of 24 bits are two integers of 16.
    let report = inspect(&folder, "digits.onnx --weights int8x3 --activations int8x2");
    let [plain, depthwise, slow] = warnings(&report)[..] else { panic!("{report}") };
    assert!(slow.contains("likely slower than FP32"), "{slow}");
    assert!(plain.contains("6 products") && plain.contains("stem, block1_pw"), "{plain}");
    assert!(depthwise.contains("4 products") && depthwise.contains("block1_dw, block2_dw"), "{depthwise}");
    assert!(depthwise.contains("16 bits of weights"), "{depthwise}");
    // `quantize` says the same.
    let quantized = folder.run("quantize digits.onnx --dry-run --weights int8x3 --activations int8x2");
    assert!(quantized.done().stdout.contains(&format!("warning: {plain}")));
    // More nodes for the host than layers.
    let mut model = colour(-1, 32, 10);
    let nodes = &mut model.graph.as_mut().unwrap().node;
    nodes.insert(3, node("Tanh", "tanh", &["p"], "t", &[]));
    nodes[4].input = vec!["t".to_owned()];
    folder.model("colour.onnx", &model);
    let report = inspect(&folder, "colour.onnx");
    let [host] = warnings(&report)[..] else { panic!("{report}") };
    assert!(host.contains("2 layers") && host.contains("bench --profile"), "{host}");
    let table = folder.run("inspect colour.onnx").done().stdout;
    assert!(table.lines().any(|line| line == format!("warning: {host}")), "{table}");
}

#[test]
fn a_model_without_layers_has_nothing_but_a_host() {
    let folder = Folder::empty();
    let mut model = colour(-1, 32, 10);
    let graph = model.graph.as_mut().unwrap();
    graph.node = vec![node("Relu", "relu", &["input"], "scores", &[]), node("Tanh", "tanh", &["scores"], "t", &[])];
    graph.output = vec![value("t", DataType::Float, &[-1, 3, 32, 32])];
    graph.initializer.clear();
    folder.model("plain.onnx", &model);
    let report = inspect(&folder, "plain.onnx");
    assert_eq!((layers(&report).len(), number(&report["totals"], "products")), (0, 0.0));
    assert_eq!(report["host"], json!([{"operator": "Tanh", "count": 1, "exact": false, "nodes": ["tanh"]}]));
    folder.run("inspect plain.onnx").done();
}

#[test]
fn flags_replace_what_an_artefact_states_of_activations_alone() {
    let folder = Folder::with_artefact("int4x2", "int4x2");
    let report = inspect(&folder, "terms.onnx --activations int8x2");
    assert!(layers(&report).iter().all(|layer| layer["activations"] == "int8x2" && layer["products"] == 2));
    folder.refuses("inspect terms.onnx --weights int4x2", &["terms.onnx", "expanded already"]);
    folder.refuses("inspect terms.onnx --activations fp32", &["--activations", "fp32"]);
    folder.refuses("inspect digits.onnx --weights int9x1", &["--weights", "int9x1", "2 to 8 bits"]);
    folder.refuses("inspect", &["MODEL"]);
    let mut bare = fpxint_onnx::proto::ModelProto::default();
    prost::Message::merge(&mut bare, &folder.read("terms.onnx")[..]).unwrap();
    bare.metadata_props.clear();
    folder.model("bare.onnx", &bare);
    folder.refuses("inspect bare.onnx", &["bare.onnx", "stem", "activation"]);
    assert_eq!(layers(&inspect(&folder, "bare.onnx --activations int4x2")).len(), 8);
}
