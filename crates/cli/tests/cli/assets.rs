//! Trained networks on real images, where the environment variable `FPXINT_ASSETS` names a folder that has them:
//! `cifar10/{resnet20.onnx, resnet56.onnx, test1000.npz}` and `imagenet/{squeezenet1.1.onnx, mobilenet_v1_0.75.onnx,
//! labels.csv, val/}`. Without it these tests pass over themselves and say so.

use std::path::PathBuf;

use serde_json::Value;

use crate::program::{Folder, number, say};

fn assets() -> Option<PathBuf> {
    let folder = std::env::var_os("FPXINT_ASSETS").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    if folder.is_none() {
        say("skipped: FPXINT_ASSETS is not set");
    }
    folder
}

const MODELS: [&str; 4] = [
    "cifar10/resnet20.onnx",
    "cifar10/resnet56.onnx",
    "imagenet/squeezenet1.1.onnx",
    "imagenet/mobilenet_v1_0.75.onnx",
];

/// A folder in which `cifar10` and `imagenet` are those of the assets.
fn folder() -> Option<Folder> {
    let assets = assets()?;
    let folder = Folder::empty();
    for name in ["cifar10", "imagenet"] {
        let there = std::fs::canonicalize(assets.join(name)).unwrap_or_else(|e| panic!("{name} in FPXINT_ASSETS: {e}"));
        std::os::unix::fs::symlink(there, folder.path(name)).unwrap();
    }
    Some(folder)
}

const INT4X2: &str = "--weights int4x2 --activations int4x2";

/// What `eval` reports of a model on a task at int4x2, against the same model in FP32.
fn eval(folder: &Folder, model: &str, task: &str) -> Value {
    let line = format!("eval {model} --task {task} {INT4X2} --reference {model} --json");
    folder.run(&line).done().json()
}

#[test]
fn cifar10_networks_agree_with_fp32() {
    let Some(folder) = folder() else { return };
    for model in &MODELS[..2] {
        let report = eval(&folder, model, "cifar10 --data cifar10");
        assert_eq!(report["count"].as_u64(), Some(1000));
        assert!(number(&report["reference"], "agreement") >= 0.99, "{model}: {report}");
        assert!(number(&report["reference"]["metrics"], "top1") > 0.91, "{model}: {report}");
    }
}

#[test]
fn half_the_terms_of_a_file_still_see() {
    let Some(folder) = folder() else { return };
    folder.run("quantize cifar10/resnet20.onnx -o terms.onnx --weights int2x4 --quiet").done();
    let report = folder.run("eval terms.onnx --task cifar10 --data cifar10 --weight-terms 2 --json").done().json();
    assert!(number(&report["metrics"], "top1") > 0.85, "{report}");
}

#[test]
fn squeezenet_agrees_with_fp32() {
    let Some(folder) = folder() else { return };
    let report = eval(&folder, MODELS[2], "imagenet --data imagenet --preset torchvision");
    assert_eq!(report["count"].as_u64(), Some(500));
    assert!(number(&report["reference"], "agreement") >= 0.965, "{report}");
}

#[test]
fn mobilenet_agrees_with_fp32() {
    let Some(folder) = folder() else { return };
    let report = eval(&folder, MODELS[3], "imagenet --data imagenet --preset tf");
    assert_eq!(report["count"].as_u64(), Some(500));
    assert!(number(&report["reference"], "agreement") >= 0.93, "{report}");
}

#[test]
fn sixteen_bits_leave_little_difference() {
    let Some(folder) = folder() else { return };
    for model in MODELS {
        let line = format!("compare {model} {model} --weights int8x2 --activations int8x2 --max-relative 1e-3 --json");
        let report = folder.run(&line).done().json();
        assert!(number(&report["outputs"][0], "relative") < 1e-3, "{model}: {report}");
    }
}

#[test]
fn nothing_is_left_in_fp32() {
    let Some(folder) = folder() else { return };
    for model in MODELS {
        let report = folder.run(&format!("quantize {model} -o terms.onnx --weights int4x2 --json")).done().json();
        assert_eq!(report["skipped"].as_array().map(Vec::len), Some(0), "{model}: {report}");
        assert!(report["layers"].as_array().unwrap().len() >= 20, "{model}: {report}");
        assert_eq!(number(&report, "products"), 1.0, "{model}: {report}");
    }
}

#[test]
fn every_layer_of_trained_networks_adds_little_error() {
    let Some(folder) = folder() else { return };
    for model in MODELS {
        let plain = folder.run(&format!("compare {model} {model} {INT4X2} --json")).done().json();
        let report = folder.run(&format!("compare {model} {model} {INT4X2} --layers --json")).done().json();
        assert_eq!(report["outputs"], plain["outputs"], "{model}");
        let layers = report["layers"].as_array().unwrap();
        assert!(layers.len() >= 20, "{model}: {report}");
        for layer in layers {
            assert!((1e-4..5e-2).contains(&number(layer, "own_relative")), "{model}: {layer}");
        }
    }
}
