//! Data sets that do not fit themselves or the model, for `eval`.

use std::fs::{self, File};

use ndarray::{Array1, Array4};
use ndarray_npy::NpzWriter;

use crate::eval::{archive, cifar, imagenet};
use crate::models::colour;
use crate::program::Folder;

/// A folder with `model.onnx`, which sorts colour images of 32 x 32 into ten classes.
fn folder() -> Folder {
    let folder = Folder::new();
    folder.model("model.onnx", &colour(-1, 32, 10));
    folder
}

/// A folder with an ImageNet folder `set` of three images that `model.onnx` takes, after `edit` had its way with it.
fn altered(edit: impl FnOnce(&Folder)) -> Folder {
    let folder = folder();
    imagenet(&folder, "set", 3, 32);
    edit(&folder);
    folder
}

const IMAGENET: &str = "eval model.onnx --task imagenet --data set";
const CIFAR: &str = "eval model.onnx --task cifar10 --data set.npz";

#[test]
fn images_and_labels_must_match() {
    let cases: [(&str, &[&str]); 7] = [
        ("file,class_index\n0.png,0\n1.png,1\n", &["labels.csv", "2.png", "no label"]),
        ("0.png,0\n1.png,1\n2.png,2\n3.png,3\n", &["labels.csv", "3.png", "not in val"]),
        ("file,class_index\n0.png,0\n1.png;1\n2.png,2\n", &["labels.csv", "line 3", "1.png;1"]),
        ("0.png,0\n1.png,-1\n2.png,2\n", &["labels.csv", "line 2", "1.png,-1"]),
        ("0.png,0\n1.png,1\n1.png,1\n2.png,2\n", &["labels.csv", "line 3", "1.png", "second label"]),
        ("0.png,0\n1.png,10\n2.png,2\n", &["set", "label 10", "10 classes", "scores"]),
        ("", &["labels.csv", "no label"]),
    ];
    for (labels, words) in cases {
        altered(|folder| folder.write("set/labels.csv", labels)).refuses(IMAGENET, words);
    }
}

#[test]
fn folders_that_are_incomplete_are_named() {
    folder().refuses(IMAGENET, &["set/labels.csv", "No such file"]);
    altered(|f| fs::remove_file(f.path("set/labels.csv")).unwrap()).refuses(IMAGENET, &["set/labels.csv"]);
    altered(|f| fs::remove_dir_all(f.path("set/val")).unwrap()).refuses(IMAGENET, &["set/val", "No such file"]);
    altered(|f| f.write("set/labels.csv", [0xff, 0xfe])).refuses(IMAGENET, &["set/labels.csv", "UTF-8"]);
}

#[test]
fn images_that_cannot_be_used_are_named() {
    altered(|f| f.write("set/val/1.png", "no image")).refuses(IMAGENET, &["set/val/1.png"]);
    altered(|f| f.write("set/val/2.png", "")).refuses(IMAGENET, &["set/val/2.png"]);
    let small = |f: &Folder| image::RgbImage::new(40, 31).save(f.path("set/val/1.png")).unwrap();
    altered(small).refuses(IMAGENET, &["set/val/1.png", "40 x 31", "32 x 32", "--resize"]);
    altered(|_| ()).refuses(&format!("{IMAGENET} --crop 64"), &["64 x 64", "--resize"]);
    altered(|_| ()).refuses(&format!("{IMAGENET} --crop 16"), &["`input`", "[3, 3, 16, 16]", "[?, 3, 32, 32]"]);
    altered(|_| ()).refuses(&format!("{IMAGENET} --crop 0"), &["--crop"]);
}

#[test]
fn archives_that_do_not_fit_are_named() {
    let refused = |pixels: Array4<u8>, labels: Array1<i64>, words: &[&str]| {
        let folder = folder();
        archive(&folder, "set.npz", &pixels, &labels);
        folder.refuses(CIFAR, &[&["set.npz"], words].concat());
    };
    let pixels = || Array4::from_elem((3, 32, 32, 3), 7u8);
    refused(pixels(), Array1::from(vec![1, 2]), &["2 labels", "3 images"]);
    refused(pixels(), Array1::from(vec![1, 10, 2]), &["label 10", "ten classes"]);
    refused(pixels(), Array1::from(vec![1, -1, 2]), &["ten classes"]);
    refused(Array4::zeros((0, 32, 32, 3)), Array1::zeros(0), &["no images"]);
    refused(Array4::zeros((3, 3, 32, 32)), Array1::zeros(3), &["`x`", "[3, 3, 32, 32]"]);
    refused(Array4::zeros((3, 8, 8, 3)), Array1::zeros(3), &["`x`", "[3, 8, 8, 3]"]);
}

#[test]
fn files_that_are_no_archives_are_named() {
    let folder = folder();
    folder.refuses(CIFAR, &["set.npz", "No such file"]);
    folder.write("set.npz", "no archive");
    folder.refuses(CIFAR, &["set.npz", "not an .npz archive"]);
    cifar(&folder, "whole.npz", 4);
    let whole = folder.read("whole.npz");
    folder.write("set.npz", &whole[..whole.len() - 50]);
    folder.refuses(CIFAR, &["set.npz"]);
    let mut archive = NpzWriter::new(File::create(folder.path("set.npz")).unwrap());
    archive.add_array("images", &Array4::<u8>::zeros((1, 32, 32, 3))).unwrap();
    archive.finish().unwrap();
    folder.refuses(CIFAR, &["set.npz", "array `x`"]);
    folder.write("set.bin", [0; 5000]);
    folder.refuses("eval model.onnx --task cifar10 --data set.bin", &["set.bin", "5000 bytes"]);
    fs::create_dir(folder.path("set")).unwrap();
    folder.refuses("eval model.onnx --task cifar10 --data set", &["set", "test_batch.bin"]);
}

#[test]
fn models_that_do_not_take_the_images_are_refused() {
    let folder = folder();
    cifar(&folder, "set.npz", 4);
    folder.model("large.onnx", &colour(-1, 224, 10));
    folder.model("four.onnx", &colour(-1, 32, 4));
    folder.model("one.onnx", &colour(-1, 32, 1));
    let refused = |model: &str, words: &[&str]| {
        folder.refuses(&format!("eval {model} --task cifar10 --data set.npz"), words);
        folder.refuses(&format!("eval {model} --task cifar10 --data set.npz --weights int4x2"), words);
        folder.refuses(&format!("{CIFAR} --reference {model}"), &[]);
    };
    refused("digits.onnx", &["`input`", "[?, 1, 8, 8]", "colour images"]);
    refused("large.onnx", &["[224, 224]", "32 x 32"]);
    refused("four.onnx", &["set.npz", "label", "4 classes", "`scores`"]);
    refused("one.onnx", &["`scores`", "classes"]);
}
