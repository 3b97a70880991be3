//! Arrays that do not fit a model's input, for the FP32 file and for its artefact.

use ndarray::{Array1, Array4};
use ndarray_npy::WriteNpyExt;

use crate::models::images;
use crate::program::Folder;

/// Refuses `-i ARGUMENT` on the FP32 file, on the same expanded in memory, and on the artefact.
fn refused(folder: &Folder, arguments: &str, words: &[&str]) {
    for model in ["digits.onnx", "digits.onnx --weights int4x2", "terms.onnx"] {
        folder.refuses(&format!("run {model} {arguments} -o out"), words);
    }
    folder.refuses(&format!("compare digits.onnx terms.onnx {arguments}"), words);
}

#[test]
fn arrays_of_another_type_are_refused() {
    let folder = Folder::with_artefact("int4x2", "int4x2");
    folder.array("doubles.npy", &images(2).mapv(f64::from));
    folder.array("integers.npy", &images(2).mapv(|v| v as i64));
    folder.array("truths.npy", &images(2).mapv(|v| v > 0.5));
    for (file, found) in [("doubles.npy", "<f8"), ("integers.npy", "<i8"), ("truths.npy", "|b1")] {
        refused(&folder, &format!("-i input={file}"), &["`input`", file, found, "float32"]);
    }
}

#[test]
fn arrays_of_another_shape_are_refused() {
    let folder = Folder::with_artefact("int4x2", "int4x2");
    folder.array("wide.npy", &Array4::<f32>::zeros((2, 1, 8, 9)));
    folder.array("colours.npy", &Array4::<f32>::zeros((2, 3, 8, 8)));
    folder.array("none.npy", &Array4::<f32>::zeros((0, 1, 8, 8)));
    let flat = Array1::<f32>::zeros(128);
    flat.write_npy(std::fs::File::create(folder.path("flat.npy")).unwrap()).unwrap();
    refused(&folder, "-i input=wide.npy", &["`input`", "[2, 1, 8, 9]", "[?, 1, 8, 8]"]);
    refused(&folder, "-i input=colours.npy", &["`input`", "[2, 3, 8, 8]", "[?, 1, 8, 8]"]);
    refused(&folder, "-i input=flat.npy", &["`input`", "[128]", "[?, 1, 8, 8]"]);
    refused(&folder, "-i input=none.npy", &["`input`", "[0, 1, 8, 8]", "no values"]);
}

#[test]
fn names_that_do_not_match_are_refused() {
    let folder = Folder::with_artefact("int4x2", "int4x2");
    refused(&folder, "-i inputs=x.npy", &["`inputs`", "`input`"]);
    refused(&folder, "-i x.npy", &["x.npy", "NAME=FILE.npy"]);
    refused(&folder, "-i input=x.npy -i input=x.npy", &["`input`", "twice"]);
    folder.refuses("run digits.onnx", &["--input"]);
    let mut model = crate::models::digits();
    let graph = model.graph.as_mut().unwrap();
    graph.input.push(crate::models::value("mask", fpxint_onnx::proto::tensor_proto::DataType::Float, &[-1, 10]));
    graph.node.last_mut().unwrap().output[0] = "unmasked".into();
    graph.node.push(crate::models::node("Mul", "masked", &["unmasked", "mask"], "logits", &[]));
    folder.model("two.onnx", &model);
    folder.refuses("run two.onnx -i input=x.npy", &["`mask`", "not given"]);
    folder.refuses("run two.onnx -i input=x.npy --weights int4x2", &["`mask`", "not given"]);
}

#[test]
fn files_that_are_no_arrays_are_named() {
    let folder = Folder::with_artefact("int4x2", "int4x2");
    let whole = folder.read("x.npy");
    folder.write("text.npy", "1.0, 2.0\n");
    folder.write("empty.npy", "");
    folder.write("cut.npy", &whole[..whole.len() - 4]);
    folder.write("header.npy", &whole[..20]);
    folder.write("long.npy", [&whole[..], &[0; 5]].concat());
    std::fs::create_dir(folder.path("folder.npy")).unwrap();
    let names = ["missing", "text", "empty", "cut", "header", "long", "folder"];
    for name in names.map(|name| format!("{name}.npy")) {
        refused(&folder, &format!("-i input={name}"), &["`input`", &name]);
    }
}

#[test]
fn headers_that_promise_too_much_are_refused_before_memory_is_taken() {
    let folder = Folder::with_artefact("int4x2", "int4x2");
    for shape in ["9999999999999, 1, 8, 8", "4611686018427387904, 2, 8, 8", "99999999999999999999999, 1, 8, 8"] {
        let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}");
        let bytes = [b"\x93NUMPY\x01\x00\x76\x00", format!("{header:<117}\n").as_bytes(), &[0; 64]].concat();
        folder.write("huge.npy", bytes);
        refused(&folder, "-i input=huge.npy", &["`input`", "huge.npy"]);
    }
}
