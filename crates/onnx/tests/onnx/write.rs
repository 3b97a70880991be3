//! Files: deterministic, whole or absent.

use crate::build::*;
use fpxint::Granularity;
use fpxint_onnx::{Error, proto::ModelProto, write};
use prost::Message;

#[test]
fn the_bytes_are_the_same_every_time() {
    let model = conv(13).model();
    let layers = encoded(&expand(&model, "int4x2", Granularity::Channel));
    let folder = tempfile::tempdir().unwrap();
    let paths = ["a.onnx", "b.onnx"].map(|name| folder.path().join(name));
    let written = paths.clone().map(|path| write(&model, &layers, &path).unwrap());
    assert_eq!(written[0], written[1]);
    let [a, b] = paths.map(|path| std::fs::read(path).unwrap());
    assert_eq!(a, b);
    assert_eq!(a.len() as u64, written[0].bytes);
    assert_eq!(layers[0].bytes(), 2 * 54 + 4 * (2 * 4 + 4));
    assert_eq!((layers[0].name(), layers[0].bounds().len()), ("Conv_y", 2));
}

#[test]
fn foreign_metadata_is_kept() {
    let mut build = conv(13);
    build.proto.metadata_props = vec![property("author", "someone"), property("fpxint.version", "1")];
    let (proto, _) = artefact(&build.model(), "int4x2", Granularity::Channel);
    let keys: Vec<_> = proto.metadata_props.iter().map(|p| p.key()).collect();
    assert_eq!(keys, ["author", "fpxint.version", "fpxint.layer.00000"]);
}

#[test]
fn a_failed_write_leaves_nothing() {
    let model = conv(13).model();
    let layers = encoded(&expand(&model, "int4x2", Granularity::Channel));
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent").join("a.onnx");
    assert!(matches!(write(&model, &layers, &absent), Err(Error::Write { .. })));
    // The target is a folder: the rename fails.
    let taken = folder.path().join("taken.onnx");
    std::fs::create_dir(&taken).unwrap();
    std::fs::write(taken.join("kept"), "kept").unwrap();
    assert!(matches!(write(&model, &layers, &taken), Err(Error::Write { .. })));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(std::fs::read_to_string(taken.join("kept")).unwrap(), "kept");
}

#[test]
fn a_target_is_replaced_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.onnx");
    std::fs::write(&path, conv(13).bytes()).unwrap();
    // The target is the source itself.
    let model = fpxint_onnx::read(&path, &Default::default()).unwrap();
    write(&model, &encoded(&expand(&model, "int4x2", Granularity::Channel)), &path).unwrap();
    assert!(fpxint_onnx::read(&path, &Default::default()).unwrap().is_artefact());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn layers_left_out_stay_as_they_are() {
    let mut build = conv(13).floats("w2", &[4, 4, 1, 1], &ramp(16));
    build.graph().node[0].output[0] = "h".into();
    let mut build = build.op("Conv", &["h", "w2"], "y");
    let model = build.model();
    let layers = encoded(&expand(&model, "int4x2", Granularity::Channel));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.onnx");
    write(&model, &layers[..1], &path).unwrap();
    let again = fpxint_onnx::read(&path, &Default::default()).unwrap();
    assert!(again.layers().len() == 1 && again.layers()[0].weights.is_some());
    let [left] = again.skipped() else { panic!("{:?}", again.skipped()) };
    assert_eq!((&left.name, &*left.op_type), (&model.layers()[1].name, "Conv"));
    // Its node and its weights are as they were.
    let proto = ModelProto::decode(&*std::fs::read(&path).unwrap()).unwrap().graph.unwrap();
    let tensor = proto.initializer.iter().find(|t| t.name() == "w2").unwrap();
    assert_eq!(tensor, build.graph().initializer.iter().find(|t| t.name() == "w2").unwrap());
}

#[test]
fn names_of_the_model_are_no_obstacle() {
    let mut build = conv(13).op("Relu", &["x"], "fpxint/0/term1").op("Relu", &["fpxint/0/term1"], "fpxint1/z");
    build.graph().output.push(value("fpxint1/z", fpxint_onnx::proto::tensor_proto::DataType::Float, &[]));
    let (proto, again) = artefact(&build.model(), "int4x2", Granularity::Channel);
    assert!(String::from_utf8_lossy(&proto.encode_to_vec()).contains("fpxint2/0/term1"));
    assert!(again.is_artefact());
}

#[test]
#[should_panic(expected = "one of the model's")]
fn a_layer_of_another_model_is_a_mistake() {
    let layers = encoded(&expand(&matmul(13).model(), "int4x2", Granularity::Channel));
    _ = write(&conv(13).model(), &layers, std::path::Path::new("/nonexistent/a.onnx"));
}
