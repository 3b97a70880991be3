//! The program under a real `mpirun`: the same bits for any number of processes, and an end for all where one fails.

mod failures;
mod outputs;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// The program that mpirun starts.
const PROGRAM: &str = env!("CARGO_BIN_EXE_fpxint-mpi");

/// The command of one process, which is built with the workspace.
fn fpxint() -> PathBuf {
    let path = Path::new(PROGRAM).with_file_name("fpxint");
    assert!(path.exists(), "{} is not built: cargo build --workspace", path.display());
    path
}

fn digits() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/digits.onnx")
}

/// A file among the real models and data; `None`, which is said, where they are not there.
fn asset(name: &str) -> Option<PathBuf> {
    match std::env::var_os("FPXINT_ASSETS") {
        Some(folder) => Some(Path::new(&folder).join(name)).filter(|path| path.exists()),
        None => {
            println!("{name}: skipped, FPXINT_ASSETS is not set");
            None
        }
    }
}

/// `mpirun` with what it needs to start more processes than cores, also as root.
fn mpirun() -> Command {
    let mut command = Command::new("mpirun");
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command.arg("--oversubscribe").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split_whitespace()
}

/// Runs the program in `ranks` processes with one thread each.
fn ranks(ranks: usize, line: &str) -> Output {
    let mut command = mpirun();
    command.args(["-n", &ranks.to_string(), PROGRAM]).args(words(line)).args(["--threads", "1"]);
    command.output().expect("mpirun is installed")
}

/// Runs the command of one process.
fn alone(line: &str) -> Output {
    Command::new(fpxint()).args(words(line)).output().expect("fpxint is built")
}

/// The one JSON object on standard output of a run that succeeded.
fn json(output: &Output) -> Value {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stdout.trim_end().lines().count() == 1, "{:?}: {stdout}{stderr}", output.status);
    serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}{stderr}"))
}

/// Writes a .npy file of floats.
fn npy(path: &Path, shape: &[usize], value: impl Fn(usize) -> f32) {
    let dims: Vec<String> = shape.iter().map(usize::to_string).collect();
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({},), }}", dims.join(", "));
    while !(10 + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend((0..shape.iter().product()).flat_map(|i| value(i).to_le_bytes()));
    std::fs::write(path, bytes).unwrap();
}
