//! Weights that are NaN or infinite are refused by the layer's name; activations that are stay in their own image.

use crate::models::{images, set};
use crate::program::Folder;

#[test]
fn weights_that_are_no_numbers_name_their_layer() {
    let folder = Folder::new();
    let cases = [
        ("stem.weight", 3, "stem"),
        ("block1_dw.weight", 5, "block1_dw"),
        ("head.weight", 27_647, "head"),
        ("stem_bn.scale", 1, "stem"),
        ("stem_bn.bias", 2, "stem"),
        ("stem_bn.mean", 0, "stem"),
        ("block2_pw_bn.scale", 47, "block2_pw"),
        ("classifier.weight", 7, "classifier"),
        ("classifier.bias", 9, "classifier"),
    ];
    for (tensor, element, layer) in cases {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            folder.edited("bad.onnx", |graph| set(graph, tensor, element, value));
            let words = ["bad.onnx", &format!("`{layer}"), &format!("element {element}")];
            folder.refuses("quantize bad.onnx -o out.onnx", &words);
            folder.refuses("run bad.onnx -i input=x.npy -o out --activations int4x2", &words);
        }
    }
}

#[test]
fn a_variance_that_has_no_root_names_its_layer() {
    let folder = Folder::new();
    for value in [f32::NAN, -1.0, f32::NEG_INFINITY] {
        folder.edited("bad.onnx", |graph| set(graph, "down_bn.var", 4, value));
        folder.refuses("quantize bad.onnx -o out.onnx", &["bad.onnx", "`down", "element 4"]);
    }
}

#[test]
fn images_that_are_no_numbers_spoil_themselves_alone() {
    let folder = Folder::with_artefact("int4x2", "int4x2");
    let mut x = images(3);
    folder.array("clean.npy", &x);
    x[[1, 0, 4, 4]] = f32::NAN;
    folder.array("spoilt.npy", &x);
    folder.run("run terms.onnx -i input=clean.npy -o clean").done();
    folder.run("run terms.onnx -i input=spoilt.npy -o spoilt").done();
    let (clean, spoilt) = (folder.floats("clean/logits.npy"), folder.floats("spoilt/logits.npy"));
    for (image, (clean, spoilt)) in clean.outer_iter().zip(spoilt.outer_iter()).enumerate() {
        let as_clean = clean.iter().zip(&spoilt).all(|(a, b)| a.to_bits() == b.to_bits());
        assert_eq!(as_clean, image != 1, "image {image}: {spoilt}");
        assert_eq!(spoilt.iter().all(|v| v.is_nan()), image == 1, "image {image}: {spoilt}");
    }
}
