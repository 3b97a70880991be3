//! Model files that are no models, damaged, or beyond what the program runs.

use fpxint_onnx::proto::{OperatorSetIdProto, tensor_proto::DataType};

use crate::models::{DIGITS, floats, insert, node, raw, tensor};
use crate::program::{DONE, Folder};

/// Every command that takes a model, on the model `name`.
fn lines(name: &str) -> [String; 7] {
    [
        format!("quantize {name} -o out.onnx"),
        format!("inspect {name}"),
        format!("run {name} -i input=x.npy -o out"),
        format!("run {name} -i input=x.npy --weights int4x2"),
        format!("compare digits.onnx {name}"),
        format!("compare {name} digits.onnx --weights int4x2 --layers"),
        format!("bench {name} --runs 1"),
    ]
}

fn refused_by_all(folder: &Folder, name: &str, words: &[&str]) {
    for line in lines(name) {
        folder.refuses(&line, words);
    }
}

#[test]
fn files_that_are_no_models_are_named() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("folder")).unwrap();
    folder.write("empty.onnx", "");
    folder.write("text.onnx", "Dear reader,\nthis is a letter and not a network.\n".repeat(40));
    image::RgbImage::from_fn(20, 20, |x, y| image::Rgb([x as u8, y as u8, 7])).save(folder.path("photo.png")).unwrap();
    refused_by_all(&folder, "missing.onnx", &["missing.onnx", "No such file"]);
    refused_by_all(&folder, "folder", &["folder", "directory"]);
    refused_by_all(&folder, "empty.onnx", &["empty.onnx", "not an ONNX model"]);
    refused_by_all(&folder, "text.onnx", &["text.onnx", "not an ONNX model"]);
    refused_by_all(&folder, "photo.png", &["photo.png", "not an ONNX model"]);
    refused_by_all(&folder, "x.npy", &["x.npy", "not an ONNX model"]);
}

#[test]
fn a_reason_is_given_once() {
    let folder = Folder::new();
    let ended = folder.run("bench missing.onnx");
    assert_eq!(ended.stderr.matches("No such file").count(), 1, "{ended:?}");
}

/// Lengths to cut a file to: even steps, and next to both ends.
fn cuts(len: usize) -> Vec<usize> {
    let ends = [1, 2, 3, 17, len - 2, len - 1];
    (0..20).map(|i| i * len / 20).chain(ends).collect()
}

/// Cuts a model everywhere: it must be refused, or still be a model.
fn cut_everywhere(folder: &Folder, bytes: &[u8], line: &str) {
    for cut in cuts(bytes.len()) {
        folder.write("cut.onnx", &bytes[..cut]);
        let ended = folder.run(line);
        if ended.code != DONE {
            ended.refused(&["cut.onnx"]);
            assert!(!folder.path("out.onnx").exists(), "{ended:?}");
        }
    }
}

#[test]
fn a_model_that_is_cut_off_is_refused() {
    cut_everywhere(&Folder::new(), DIGITS, "quantize cut.onnx -o out.onnx");
}

#[test]
fn an_artefact_that_is_cut_off_is_refused() {
    let folder = Folder::with_artefact("int2x3", "int4x2");
    let bytes = folder.read("terms.onnx");
    cut_everywhere(&folder, &bytes, "run cut.onnx -i input=x.npy");
}

#[test]
fn altered_artefacts_are_refused() {
    let folder = Folder::with_artefact("int4x2", "int4x2");
    let source: fpxint_onnx::proto::ModelProto = prost::Message::decode(&folder.read("terms.onnx")[..]).unwrap();
    let line = "run altered.onnx -i input=x.npy";
    let mut newer = source.clone();
    newer.metadata_props.iter_mut().find(|e| e.key.as_deref() == Some("fpxint.version")).unwrap().value =
        Some("999".into());
    folder.model("altered.onnx", &newer);
    folder.refuses(line, &["altered.onnx", "999", "newer"]);

    let mut beyond = source.clone();
    let terms =
        beyond.graph.as_mut().unwrap().initializer.iter_mut().find(|t| t.data_type == Some(DataType::Int4 as i32));
    let terms = terms.unwrap();
    terms.raw_data = Some(vec![0x88; terms.raw_data.as_ref().unwrap().len()].into());
    folder.model("altered.onnx", &beyond);
    folder.refuses(line, &["altered.onnx", "stem", "int4x2"]);

    let mut bare = source;
    bare.metadata_props.clear();
    folder.model("altered.onnx", &bare);
    folder.refuses(line, &["altered.onnx", "stem", "activation"]);
    folder.run(&format!("{line} --activations int4x2")).done();
}

#[test]
fn a_model_that_another_tool_quantised_is_refused() {
    let folder = Folder::new();
    folder.edited("qdq.onnx", |graph| {
        graph.initializer.push(floats("step", &[], [0.02]));
        graph.initializer.push(raw("zero", DataType::Uint8, &[], vec![3]));
        insert(graph, node("QuantizeLinear", "to_codes", &["input", "step", "zero"], "codes", &[]), "stem", "");
        insert(graph, node("DequantizeLinear", "back", &["codes", "step", "zero"], "x", &[]), "stem", "input");
    });
    refused_by_all(&folder, "qdq.onnx", &["qdq.onnx", "already quantised", "to_codes", "FP32"]);
    folder.edited("weights.onnx", |graph| {
        graph.initializer.push(floats("step", &[], [0.02]));
        graph.initializer.push(raw("codes", DataType::Int8, &[24, 1, 3, 3], vec![5; 216]));
        graph.initializer.push(raw("zero", DataType::Int8, &[], vec![0]));
        let inputs = ["codes", "step", "zero"];
        insert(graph, node("DequantizeLinear", "codes_dq", &inputs, "w", &[]), "stem", "stem.weight");
    });
    refused_by_all(&folder, "weights.onnx", &["weights.onnx", "already quantised", "codes_dq"]);
}

#[test]
fn an_artefact_is_not_quantised_again() {
    let folder = Folder::with_artefact("int4x2", "int4x2");
    folder.refuses("quantize terms.onnx -o out.onnx", &["terms.onnx", "expanded already", "FP32"]);
}

#[test]
fn unknown_operators_are_named_with_their_node() {
    for domain in ["", "ai.onnx.ml", "com.example"] {
        let folder = Folder::new();
        let mut model = crate::models::digits();
        let mut weird = node("Frobnicate", "weird", &["stem_relu.out"], "frobnicated", &[]);
        weird.domain = Some(domain.into());
        insert(model.graph.as_mut().unwrap(), weird, "block1_dw", "stem_relu.out");
        if !domain.is_empty() {
            model.opset_import.push(OperatorSetIdProto { domain: Some(domain.into()), version: Some(1) });
        }
        folder.model("odd.onnx", &model);
        refused_by_all(&folder, "odd.onnx", &["odd.onnx", "weird", "Frobnicate"]);
    }
}

#[test]
fn contradictions_in_a_graph_are_named() {
    let folder = Folder::new();
    let refused = |edit: &dyn Fn(&mut fpxint_onnx::proto::GraphProto), words: &[&str]| {
        folder.edited("odd.onnx", edit);
        folder.refuses("quantize odd.onnx -o out.onnx", &[&["odd.onnx"], words].concat());
    };
    refused(&|g| g.node[1].output[0] = g.node[0].output[0].clone(), &["stem.out", "twice"]);
    refused(&|g| g.node[3].input[0] = "no\nsuch".into(), &["block1_dw", "no\\nsuch", "nothing defines"]);
    refused(&|g| g.node.swap(3, 4), &["block1_dw", "before it is computed"]);
    refused(&|g| tensor(g, "down.weight").dims[3] = 4, &["down.weight", "damaged"]);
    refused(&|g| tensor(g, "down.weight").dims[3] = -3, &["down.weight", "impossible dimensions"]);
    // As many values as before, in a shape that the node's attributes deny.
    refused(&|g| tensor(g, "down.weight").dims[1..3].copy_from_slice(&[12, 6]), &["down"]);
    refused(&|g| *tensor(g, "stem_bn.scale") = floats("stem_bn.scale", &[23], [1.0; 23]), &["stem_bn"]);
    refused(&|g| *tensor(g, "classifier.weight") = floats("classifier.weight", &[10, 65], [1.0; 650]), &["classifier"]);
    refused(&|g| tensor(g, "stem.weight").data_type = Some(DataType::Int32 as i32), &["stem"]);
}

#[test]
fn models_without_layers_and_of_old_operator_sets_are_refused() {
    let folder = Folder::new();
    folder.edited("relu.onnx", |graph| {
        graph.node = vec![node("Relu", "relu", &["input"], "logits", &[])];
        graph.initializer.clear();
        graph.output = vec![crate::models::value("logits", DataType::Float, &[-1, 1, 8, 8])];
    });
    folder.refuses("quantize relu.onnx -o out.onnx", &["relu.onnx", "nothing to expand"]);
    let mut model = crate::models::digits();
    model.opset_import[0].version = Some(6);
    folder.model("old.onnx", &model);
    refused_by_all(&folder, "old.onnx", &["old.onnx", "operator set 6"]);
}
