//! `fpxint bench`: what it reports.

use crate::program::{Folder, keys, number};

#[test]
fn keys_are_those_that_tools_rely_on() {
    let folder = Folder::with_artefact("int4x2", "int4x3");
    let report = folder.run("bench terms.onnx --runs 3 --batch 4 --threads 2 --json").done().json();
    let relied_on = ["activations", "gmacs", "kernel", "latency_ms", "model", "peak_rss_mb", "threads", "weights"];
    let found = keys(&report);
    assert!(relied_on.iter().all(|key| found.contains(key)), "{found:?}");
    assert_eq!((report["weights"].as_str(), report["activations"].as_str()), (Some("int4x2"), Some("int4x3")));
    assert_eq!((report["model"].as_str(), report["threads"].as_u64()), (Some("terms.onnx"), Some(2)));
    let latency = &report["latency_ms"];
    assert_eq!(keys(latency), ["median", "min", "p95"]);
    let [min, median, p95] = ["min", "median", "p95"].map(|key| number(latency, key));
    assert!(0.0 < min && min <= median && median <= p95, "{report}");
    assert!(number(&report, "peak_rss_mb") > 1.0, "{report}");
}

/// Multiply-accumulates of the digits network on one image.
const MACS: f64 = (64 * (24 * 9 + 24 * 9 + 24 * 24) + 16 * (48 * 24 * 9 + 48 * 9 + 48 * 48 + 64 * 48 * 9) + 640) as f64;

#[test]
fn work_grows_with_the_batch() {
    let folder = Folder::with_artefact("int4x2", "int4x2");
    for batch in [1, 3] {
        let report = folder.run(&format!("bench terms.onnx --runs 1 --batch {batch} --json")).done().json();
        assert!((number(&report, "gmacs") * 1e9 - MACS * f64::from(batch)).abs() < 0.5, "{report}");
    }
}

#[test]
fn an_fp32_file_runs_as_it_is() {
    let folder = Folder::new();
    let report = folder.run("bench digits.onnx --runs 2 --json").done().json();
    assert_eq!((report["weights"].as_str(), report["activations"].as_str()), (Some("fp32"), Some("fp32")));
    assert!(number(&report["latency_ms"], "median") > 0.0, "{report}");
    let expanded = folder.run("bench digits.onnx --runs 2 --weights int4x2 --json").done().json();
    assert_eq!(expanded["weights"], "int4x2");
}

#[test]
fn a_profile_covers_every_kind_of_step() {
    let folder = Folder::with_artefact("int4x2", "int4x2");
    let report = folder.run("bench terms.onnx --runs 2 --profile --json").done().json();
    let operators = report["profile"].as_array().unwrap();
    let steps = |name: &str| operators.iter().find(|o| o["operator"] == name).map(|o| o["steps"].as_u64().unwrap());
    assert_eq!((steps("Conv"), steps("depthwise Conv"), steps("MatMul")), (Some(5), Some(2), Some(1)));
    assert!(operators.iter().all(|o| number(o, "milliseconds") >= 0.0), "{report}");
    folder.refuses("bench digits.onnx --runs 1 --profile", &["--profile"]);
}
