//! Models: FP32 files, artefacts, and tensors in other files.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use fpxint::{Granularity, Settings, Weight, expand_layer};
use fpxint_onnx::{Error, Limits, Model, encode, parse, read, skeleton, write};
use tempfile::TempDir;

use crate::told;

/// What an input may hold, so that memory stays in proportion to it.
fn limits() -> Limits {
    Limits {
        max_file_bytes: 1 << 20,
        max_nodes: 1 << 10,
        max_records: 1 << 14,
        max_tensor_elements: 1 << 18,
        max_total_bytes: 1 << 22,
        max_nesting: 60,
    }
}

/// A folder in memory where there is one: every file that is written is synced.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder for temporary files")
}

fn settings(model: &Model, index: usize) -> Settings {
    let stated = &model.layers()[index];
    let default = || "int4x2".parse().expect("a precision");
    Settings {
        weights: stated.weights.unwrap_or_else(default),
        activations: stated.activations.unwrap_or_else(default),
        granularity: Granularity::Channel,
        rounding: Default::default(),
        clip: Default::default(),
        asymmetric: false,
        activation_clip: stated.activation_clip,
    }
}

/// The ONNX reader: of what is a model, the skeleton is made and every layer is expanded, written and read back, rotated
/// too where it has products to rotate.
pub fn onnx(data: &[u8]) {
    match parse(Bytes::copy_from_slice(data), "input", &limits()) {
        Ok(model) => {
            round_trip(&model);
            let rotated = model.rotated(None);
            if rotated.layers() != model.layers() {
                round_trip(&rotated);
            }
        }
        Err(error) => told(&error.to_string()),
    }
}

/// The reader of artefacts: what was read is written again, and both files have the same series.
pub fn artefact(data: &[u8]) {
    match parse(Bytes::copy_from_slice(data), "input", &limits()) {
        Ok(model) if model.is_artefact() => round_trip(&model),
        Ok(_) => {}
        Err(error) => told(&error.to_string()),
    }
}

/// Tensors in other files: four bytes say how many of the rest are the model; what follows is the file `w.bin` in its folder.
pub fn external(data: &[u8]) {
    let Some((length, rest)) = data.split_first_chunk() else { return };
    let (model, tensors) = rest.split_at(rest.len().min(u32::from_le_bytes(*length) as usize));
    let folder = folder();
    let place = |name: &str| folder.path().join(name);
    fs::write(place("w.bin"), tensors).expect("room for an input");
    fs::write(place("model.onnx"), model).expect("room for an input");
    match read(&place("model.onnx"), &limits()) {
        Ok(model) => round_trip(&model),
        Err(error) => told(&error.to_string()),
    }
}

/// Expands and writes a model, and reads it back.
fn round_trip(model: &Model) {
    match skeleton(model) {
        Ok(bytes) => assert!(!bytes.is_empty()),
        Err(error) => return told(&error.to_string()),
    }
    let mut expanded = Vec::new();
    for index in 0..model.layers().len() {
        let layer = match model.layer(index) {
            Ok(layer) => layer,
            Err(error) => return told(&error.to_string()),
        };
        match expand_layer(&layer, &settings(model, index)) {
            Ok(layer) => expanded.push(layer),
            Err(error) => return told(&error.to_string()),
        }
    }
    let folder = folder();
    let path = folder.path().join("out.onnx");
    let encoded: Vec<_> = expanded.iter().map(encode).collect();
    if let Err(error) = write(model, &encoded, &path) {
        assert!(!path.exists(), "an artefact that was not written");
        return told(&error.to_string());
    }
    let again = reread(&path);
    for (index, layer) in expanded.iter().enumerate() {
        let series = again.layer(index).expect("a layer that was written");
        assert_eq!(series.weight, Weight::Series(layer.weight.clone()));
        assert_eq!(series.name, layer.name);
        assert_eq!(again.layers()[index].rotation, model.layers()[index].rotation);
    }
}

fn reread(path: &Path) -> Model {
    read(path, &Limits::default()).unwrap_or_else(|error: Error| panic!("what was written is refused: {error}"))
}
