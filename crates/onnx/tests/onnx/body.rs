//! Everything that can be done with the bytes of a model, for fuzzing: nothing here may panic.

use bytes::Bytes;
use fpxint::{Granularity, Settings, expand_layer};
use fpxint_onnx::{Limits, encode, parse, skeleton, write};

/// Parses `bytes`; of a model, decodes and expands every layer, and writes skeleton and artefact, the latter in `folder`.
/// Whether it was a model.
pub fn exercise(bytes: Bytes, folder: &std::path::Path) -> bool {
    let limits = Limits {
        max_file_bytes: 1 << 20,
        max_nodes: 1 << 10,
        max_records: 1 << 14,
        max_tensor_elements: 1 << 18,
        ..Limits::default()
    };
    let model = match parse(bytes.clone(), "fuzz", &limits) {
        Ok(model) => model,
        Err(error) => {
            assert!(!error.to_string().contains('\n'), "{error}");
            return false;
        }
    };
    assert_eq!(model.original(), &bytes);
    let (weights, activations) = ("int4x2".parse().unwrap(), "int4x2".parse().unwrap());
    let settings = Settings {
        weights,
        activations,
        granularity: Granularity::Channel,
        rounding: Default::default(),
        clip: Default::default(),
        asymmetric: false,
        activation_clip: Default::default(),
    };
    _ = (model.inputs(), model.outputs(), skeleton(&model).unwrap());
    let expanded = (0..model.layers().len()).map(|i| expand_layer(&model.layer(i).ok()?, &settings).ok());
    let Some(expanded) = expanded.collect::<Option<Vec<_>>>() else { return true };
    let encoded: Vec<_> = expanded.iter().map(encode).collect();
    let path = folder.join("fuzz.onnx");
    write(&model, &encoded, &path).unwrap();
    let again = fpxint_onnx::read(&path, &Limits::default()).unwrap();
    for (i, layer) in expanded.iter().enumerate() {
        assert_eq!(again.layer(i).unwrap().weight, fpxint::Weight::Series(layer.weight.clone()));
    }
    true
}
