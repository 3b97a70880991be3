//! A model whose tensors lie in another file runs as the same model in one file, in integers and in FP32.

use fpxint_onnx::proto::{ModelProto, StringStringEntryProto};
use fpxint_runtime::Float;
use prost::Message;

use crate::build::digits;
use crate::{array, bits, feed, load, options};

#[test]
fn tensors_in_another_file_change_nothing() {
    let whole = digits();
    let mut proto = ModelProto::decode(whole.original().clone()).unwrap();
    let mut data = vec![1; 3];
    for tensor in &mut proto.graph.as_mut().unwrap().initializer {
        let Some(raw) = tensor.raw_data.take() else { continue };
        let entry = |key: &str, value: String| StringStringEntryProto { key: Some(key.into()), value: Some(value) };
        let (offset, length) = (data.len().to_string(), raw.len().to_string());
        tensor.external_data =
            vec![entry("length", length), entry("offset", offset), entry("location", "digits.bin".into())];
        tensor.data_location = Some(1);
        data.extend(raw);
    }
    assert!(data.len() > 3);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("digits.onnx");
    std::fs::write(&path, proto.encode_to_vec()).unwrap();
    std::fs::write(folder.path().join("digits.bin"), data).unwrap();
    let model = fpxint_onnx::read(&path, &Default::default()).unwrap();
    assert!(model.folder().is_some());

    let x = feed("input", array(&[2, 1, 8, 8], 0.21));
    let integers = |source: &_| bits(&load(source, &options("int4x2", "int4x2")).run(&x).unwrap());
    assert_eq!(integers(&model), integers(&whole));
    let fp32 = |source: &_| bits(&Float::load(source).unwrap().run(&x).unwrap());
    assert_eq!(fp32(&model), fp32(&whole));
    std::fs::write(folder.path().join("digits.bin"), b"cut").unwrap();
    assert!(Float::load(&model).is_err());
}
