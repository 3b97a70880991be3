//! What is there after `quantize` was killed, or had no room: the old file, or the whole new one.
//!
//! `FPXINT_KILLS` says how often it is killed (40).

#![cfg(unix)]

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fpxint_onnx::proto::{GraphProto, ModelProto, OperatorSetIdProto, tensor_proto::DataType};

use crate::models::{floats, node, noise, value};
use crate::program::{Folder, REFUSED, say};

const OLD: &[u8] = b"what was there before";
const QUANTIZE: &str = "quantize wide.onnx -o out.onnx --weights int4x3 --activations int4x2 --threads 1 --quiet";

/// A network whose artefact takes a while to write: three products of 512 x 512.
fn wide() -> ModelProto {
    let size = 512;
    let weights = |i: usize| floats(&format!("w{i}"), &[size, size], noise((size * size) as usize).map(|v| v - 0.5));
    let layer = |i: usize| {
        node("MatMul", &format!("layer{i}"), &[&format!("h{i}"), &format!("w{i}")], &format!("h{}", i + 1), &[])
    };
    let graph = GraphProto {
        name: Some("wide".into()),
        input: vec![value("h0", DataType::Float, &[-1, size])],
        output: vec![value("h3", DataType::Float, &[-1, size])],
        initializer: (0..3).map(weights).collect(),
        node: (0..3).map(layer).collect(),
        ..Default::default()
    };
    let import = OperatorSetIdProto { domain: Some(String::new()), version: Some(13) };
    ModelProto { ir_version: Some(8), opset_import: vec![import], graph: Some(graph), ..Default::default() }
}

/// A folder with the network, the artefact that it has to become as `whole.onnx`, and how long that took.
fn folder() -> (Folder, Vec<u8>, Duration) {
    let folder = Folder::empty();
    folder.model("wide.onnx", &wide());
    let start = Instant::now();
    folder.run(&QUANTIZE.replace("out.onnx", "whole.onnx")).done();
    let took = start.elapsed();
    let whole = folder.read("whole.onnx");
    (folder, whole, took)
}

/// Files that are no model of the test's: what a killed process left.
fn leftovers(folder: &Folder) -> Vec<std::path::PathBuf> {
    let known = ["wide.onnx", "whole.onnx", "out.onnx"].map(|name| folder.path(name));
    fs::read_dir(folder.path("")).unwrap().map(|entry| entry.unwrap().path()).filter(|p| !known.contains(p)).collect()
}

#[test]
fn killed_at_any_moment_it_leaves_the_old_file_or_the_whole_new_one() {
    let kills: u32 = std::env::var("FPXINT_KILLS").map_or(40, |text| text.parse().unwrap());
    let (folder, whole, took) = folder();
    let (mut old, mut new, mut left) = (0, 0, 0);
    for (i, share) in noise(kills as usize).enumerate() {
        folder.write("out.onnx", OLD);
        let mut process = folder.command(QUANTIZE).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Half of them in the last third, where the file is written.
        let share = if i % 2 == 0 { share } else { 0.67 + 0.4 * share };
        std::thread::sleep(took.mul_f32(share));
        process.kill().unwrap();
        process.wait().unwrap();
        let there = folder.read("out.onnx");
        assert!(there == OLD || there == whole, "after kill {i}: {} bytes that are neither", there.len());
        if there == OLD {
            old += 1
        } else {
            new += 1
        }
        for path in leftovers(&folder) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            assert!(name.starts_with(".fpxint-"), "{name} was left");
            fs::remove_file(path).unwrap();
            left += 1;
        }
    }
    say(&format!("{kills} kills: the old file {old} times, the new one {new}; {left} temporary files were left"));
    assert!(old > 0, "no kill came before the end");
}

#[test]
fn without_room_nothing_is_left_and_the_old_file_stays() {
    let (folder, whole, _) = folder();
    folder.write("out.onnx", OLD);
    // bash counts in 1024 bytes.
    let blocks = whole.len() / 1024;
    for room in [0, 1, blocks / 3, blocks / 2, blocks - 1] {
        // A write beyond the limit fails, as on a full disk, where its signal is ignored.
        let line = format!("trap '' XFSZ; ulimit -f {room}; exec \"$0\" {QUANTIZE}");
        let mut shell = Command::new("bash");
        shell.args(["-c", &line, env!("CARGO_BIN_EXE_fpxint")]).current_dir(folder.path(""));
        let output = shell.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), REFUSED, "{room} blocks: {told}");
        assert!(told.contains("out.onnx") && told.contains("cannot be written") && told.lines().count() == 1, "{told}");
        assert_eq!(folder.read("out.onnx"), OLD);
        assert_eq!(leftovers(&folder), [""; 0].map(std::path::PathBuf::from));
    }
}

#[test]
fn a_model_may_be_replaced_by_its_artefact() {
    let (folder, whole, _) = folder();
    folder.run(&QUANTIZE.replace("out.onnx", "wide.onnx")).done();
    assert!(folder.read("wide.onnx") == whole);
}

#[test]
fn requests_that_no_memory_holds_are_refused_with_their_size() {
    let folder = Folder::new();
    // Four gigabytes of address space stand for the memory of a small machine.
    for (request, words) in [
        ("bench digits.onnx --weights int4x2 --batch 16000000", ["16000000, 1, 8, 8", "of memory can be had"]),
        ("compare digits.onnx digits.onnx --batch 2000000000", ["2000000000, 1, 8, 8", "too large"]),
    ] {
        let line = format!("ulimit -v 4000000; exec \"$0\" {request} --threads 1");
        let mut shell = Command::new("bash");
        shell.args(["-c", &line, env!("CARGO_BIN_EXE_fpxint")]).current_dir(folder.path(""));
        let output = shell.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), REFUSED, "{request}: {told}");
        assert!(words.iter().all(|word| told.contains(word)) && told.lines().count() == 1, "{request}: {told}");
    }
}

#[test]
fn flags_bound_what_a_model_may_hold() {
    let folder = Folder::new();
    for flag in ["--max-bytes 1000", "--max-nodes 3", "--max-nesting 2", "--max-tensor-elements 20"] {
        for command in ["inspect digits.onnx", "quantize digits.onnx -o out.onnx", "run digits.onnx -i input=x.npy"] {
            folder.refuses(&format!("{command} {flag}"), &["digits.onnx", "beyond the limit"]);
        }
    }
    folder.run("inspect digits.onnx --max-bytes 1000000 --max-nodes 1000 --max-nesting 50").done();
}
