//! `fpxint run`: the same bits by every way to the same precision.

use ndarray::Axis;
use ndarray_npy::WriteNpyExt;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::models::images;
use crate::program::{Ended, Folder, keys};

fn sha256(report: &Value) -> &str {
    report["outputs"][0]["sha256"].as_str().unwrap()
}

/// Digest of the output of `fpxint run LINE -i input=x.npy`.
fn digest(folder: &Folder, line: &str, variables: &[(&str, &str)]) -> String {
    let ended: Ended = folder.run_with(&format!("run {line} -i input=x.npy --json"), variables);
    sha256(&ended.done().json()).to_owned()
}

#[test]
fn outputs_are_described_and_written() {
    let folder = Folder::with_artefact("int4x2", "int4x2");
    let report = folder.run("run terms.onnx -i input=x.npy -o deep/out --json").done().json();
    assert_eq!(keys(&report), ["outputs"]);
    let outputs = report["outputs"].as_array().unwrap();
    assert_eq!(outputs.len(), 1);
    assert_eq!(keys(&outputs[0]), ["name", "sha256", "shape"]);
    assert_eq!((&outputs[0]["name"], &outputs[0]["shape"]), (&"logits".into(), &serde_json::json!([2, 10])));
    let written = folder.floats("deep/out/logits.npy");
    assert_eq!(written.shape(), [2, 10]);
    let bytes: Vec<u8> = written.iter().flat_map(|v| v.to_le_bytes()).collect();
    let wanted: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(sha256(&report), wanted);
    let table = folder.run("run terms.onnx -i input=x.npy").done().stdout;
    assert!(table.contains(&wanted) && table.contains("logits") && table.contains("[2, 10]"), "{table}");
}

#[test]
fn an_artefact_gives_what_the_fp32_file_gives_at_its_precision() {
    for (weights, activations) in [
        ("int4x2", "int4x2"),
        ("int4x3", "int8x2"),
        ("int2x3", "int2x4"),
        ("int8x1", "int4x1"),
        ("int8x3", "int8x3"),
        ("int3x4", "int5x2"),
    ] {
        let folder = Folder::with_artefact(weights, activations);
        let expanded = digest(&folder, &format!("digits.onnx --weights {weights} --activations {activations}"), &[]);
        assert_eq!(digest(&folder, "terms.onnx", &[]), expanded, "{weights} by {activations}");
        // Another precision of the activations, for the artefact a flag that replaces its own.
        let expanded = digest(&folder, &format!("digits.onnx --weights {weights} --activations int8x2"), &[]);
        assert_eq!(digest(&folder, "terms.onnx --activations int8x2", &[]), expanded, "{weights} by int8x2");
    }
}

#[test]
fn kernels_and_threads_give_the_same_bits() {
    for (weights, activations) in [("int4x2", "int4x2"), ("int4x3", "int8x2"), ("int8x3", "int4x3")] {
        let folder = Folder::with_artefact(weights, activations);
        folder.array("x.npy", &images(5));
        let mut found = Vec::new();
        let mut fastest = folder.command("run terms.onnx -i input=x.npy --json");
        let output = fastest.env_remove("FPXINT_KERNEL").output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        found.push(sha256(&report).to_owned());
        for threads in ["1", "2", "5"] {
            let line = format!("terms.onnx --threads {threads}");
            found.push(digest(&folder, &line, &[("FPXINT_KERNEL", "scalar")]));
            found.push(digest(&folder, &line, &[]));
        }
        assert!(found.iter().all(|sha| *sha == found[0]), "{weights} by {activations}: {found:#?}");
    }
}

#[test]
fn every_kernel_of_this_cpu_gives_the_same_bits() {
    let folder = Folder::with_artefact("int4x3", "int4x2");
    let version = folder.run("--version").done().stdout;
    let list = version.split_once(": ").unwrap().1.trim_end().trim_end_matches(')');
    let found: Vec<_> =
        list.split(", ").map(|name| digest(&folder, "terms.onnx", &[("FPXINT_KERNEL", name)])).collect();
    assert!(list.contains("scalar") && found.iter().all(|sha| *sha == found[0]), "{list}: {found:#?}");
}

#[test]
fn a_batch_of_eight_is_eight_batches_of_one() {
    for precisions in ["--weights int4x2 --activations int4x2", "--weights int4x3 --activations int8x2"] {
        let folder = Folder::new();
        let all = images(8);
        folder.array("all.npy", &all);
        folder.run(&format!("run digits.onnx -i input=all.npy -o all {precisions}")).done();
        let together = folder.floats("all/logits.npy");
        for i in 0..8 {
            folder.array("one.npy", &all.slice_axis(Axis(0), (i..=i).into()).to_owned());
            folder.run(&format!("run digits.onnx -i input=one.npy -o one {precisions}")).done();
            let mut wanted = Vec::new();
            together.slice_axis(Axis(0), (i..=i).into()).to_owned().write_npy(&mut wanted).unwrap();
            assert!(folder.read("one/logits.npy") == wanted, "image {i} at {precisions}");
        }
    }
}

#[test]
fn fewer_terms_of_a_file_change_its_output() {
    let folder = Folder::with_artefact("int4x3", "int8x2");
    let whole = digest(&folder, "terms.onnx", &[]);
    let by_terms = [1, 2, 3].map(|terms| digest(&folder, &format!("terms.onnx --weight-terms {terms}"), &[]));
    assert_eq!(by_terms[2], whole);
    assert!(by_terms[0] != by_terms[1] && by_terms[1] != whole, "{by_terms:?}");
    let fp32 = "digits.onnx --weights int4x3 --activations int8x2 --weight-terms";
    let expanded = [1, 2, 3].map(|terms| digest(&folder, &format!("{fp32} {terms}"), &[]));
    assert_eq!(expanded, by_terms);
}

#[test]
fn fewer_terms_of_the_activations_are_a_precision_of_their_own() {
    let folder = Folder::with_artefact("int4x2", "int4x3");
    let whole = digest(&folder, "terms.onnx", &[]);
    for terms in [1, 2, 3, 4] {
        let fresh = digest(&folder, &format!("terms.onnx --activation-terms {terms}"), &[]);
        assert_eq!(fresh, digest(&folder, &format!("terms.onnx --activations int4x{terms}"), &[]), "{terms}");
        assert_eq!(fresh == whole, terms == 3, "{terms}");
    }
}

#[test]
fn arrays_of_any_order_are_read() {
    let folder = Folder::with_artefact("int4x2", "int4x2");
    let wanted = digest(&folder, "terms.onnx", &[]);
    let x = images(2);
    let mut fortran = ndarray::Array4::zeros(ndarray::ShapeBuilder::f((2, 1, 8, 8)));
    fortran.assign(&x);
    folder.array("x.npy", &fortran);
    assert_eq!(digest(&folder, "terms.onnx", &[]), wanted);
    let data: Vec<u8> = x.iter().flat_map(|v| v.to_be_bytes()).collect();
    let header = "{'descr': '>f4', 'fortran_order': False, 'shape': (2, 1, 8, 8), }";
    folder.write("x.npy", [b"\x93NUMPY\x01\x00\x76\x00", format!("{header:<117}\n").as_bytes(), &data].concat());
    assert_eq!(digest(&folder, "terms.onnx", &[]), wanted);
}
