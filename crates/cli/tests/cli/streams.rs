//! Standard output and error: JSON alone, readers that leave, disks that are full.

use std::fs::File;
use std::process::Stdio;

use crate::eval::cifar;
use crate::models::colour;
use crate::program::{DONE, Folder, REFUSED};

/// Every command that prints, in a folder that has what it needs.
const LINES: [&str; 8] = [
    "demo",
    "quantize digits.onnx -o out.onnx",
    "inspect digits.onnx",
    "run digits.onnx -i input=x.npy --weights int4x2",
    "compare digits.onnx digits.onnx --weights int4x2",
    "compare digits.onnx digits.onnx --weights int4x2 --layers",
    "eval colour.onnx --task cifar10 --data set.npz",
    "bench digits.onnx --runs 1",
];

fn folder() -> Folder {
    let folder = Folder::new();
    folder.model("colour.onnx", &colour(-1, 32, 10));
    cifar(&folder, "set.npz", 2);
    folder
}

#[test]
fn json_is_one_object_alone() {
    let folder = folder();
    for line in LINES {
        folder.run(&format!("{line} --json")).done().json();
        folder.run(&format!("--json {line} --quiet")).done().json();
        folder.run(line).done();
    }
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let folder = folder();
    for line in LINES.into_iter().chain(["--help", "--version", "eval --help"]) {
        for line in [line.to_owned(), format!("--json {line}")] {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            let output = folder.command(&line).stdout(writer).stderr(Stdio::piped()).output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code() == DONE && stderr.is_empty(), "{line}: {:?} {stderr}", output.status);
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told() {
    let folder = folder();
    for line in LINES {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = folder.command(line).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == REFUSED && stderr.starts_with("error: standard output"), "{line}: {stderr}");
        assert_eq!(stderr.trim_end().lines().count(), 1, "{line}: {stderr}");
    }
}

#[test]
fn bad_use_is_told_in_one_line() {
    let folder = folder();
    folder.refuses("nonsense", &["nonsense"]);
    folder.refuses("demo digits.onnx", &["digits.onnx"]);
    folder.refuses("quantize digits.onnx", &["--output"]);
    folder.refuses("demo --colour", &["--colour"]);
    folder.refuses("bench", &["MODEL"]);
    folder.refuses("eval digits.onnx --task reading --data set.npz", &["reading", "cifar10"]);
}

#[test]
fn quiet_says_nothing() {
    let folder = folder();
    let ended = folder.run("quantize digits.onnx -o out.onnx --quiet").done();
    assert!(ended.stdout.is_empty(), "{ended:?}");
}

#[test]
fn the_version_lists_the_kernels() {
    let version = folder().run("--version").done().stdout;
    assert!(version.starts_with(&format!("fpxint {}", env!("CARGO_PKG_VERSION"))), "{version}");
    assert!(version.contains("scalar") && version.trim_end().lines().count() == 1, "{version}");
}
