//! Starts the program in a temporary folder, and judges how it ended.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Formatter};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fpxint_onnx::proto::{GraphProto, ModelProto};
use ndarray::{Array4, ArrayD};
use ndarray_npy::{ReadNpyExt, WritableElement, WriteNpyExt};
use prost::Message;
use serde_json::Value;
use tempfile::TempDir;

use crate::models;

/// Exit code for done.
pub const DONE: Option<i32> = Some(0);
/// Exit code for a threshold that was not met.
pub const BELOW: Option<i32> = Some(1);
/// Exit code for bad use or bad input.
pub const REFUSED: Option<i32> = Some(2);

/// How a run of the program ended.
pub struct Ended {
    line: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Debug for Ended {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { line, code, stdout, stderr } = self;
        write!(f, "\nfpxint {line}\nexit code: {code:?}\nstdout: {stdout}\nstderr: {stderr}")
    }
}

impl Ended {
    /// The run, which must have succeeded without a word on standard error.
    pub fn done(self) -> Self {
        assert!(self.code == DONE && self.stderr.is_empty(), "{self:?}");
        self
    }

    /// The one JSON object on standard output, which must hold nothing else.
    pub fn json(&self) -> Value {
        let value: Value = serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        assert!(value.is_object() && self.stdout.trim_end().lines().count() == 1, "{self:?}");
        value
    }

    /// Checks that the run was refused: exit code 2, nothing on standard output, and on standard error one line that holds
    /// every one of `words`.
    pub fn refused(&self, words: &[&str]) {
        let one_line = self.stderr.trim_end().lines().count() == 1 && self.stderr.ends_with('\n');
        assert!(self.code == REFUSED && self.stdout.is_empty() && one_line, "{self:?}");
        assert!(self.stderr.starts_with("error: ") && !self.stderr.contains("panicked"), "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "no `{word}` in {self:?}");
        }
    }
}

/// A folder for one test, and the program started in it.
pub struct Folder(TempDir);

impl Folder {
    /// An empty folder.
    pub fn empty() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A folder with `digits.onnx` and its input `x.npy`, two images.
    pub fn new() -> Self {
        let folder = Self::empty();
        folder.write("digits.onnx", models::DIGITS);
        folder.array("x.npy", &models::images(2));
        folder
    }

    /// As [`Folder::new`], with `digits.onnx` expanded to the artefact `terms.onnx`.
    pub fn with_artefact(weights: &str, activations: &str) -> Self {
        let folder = Self::new();
        let precisions = format!("--weights {weights} --activations {activations}");
        folder.run(&format!("quantize digits.onnx -o terms.onnx --quiet {precisions}")).done();
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    pub fn array<T: WritableElement>(&self, name: &str, array: &Array4<T>) {
        array.write_npy(fs::File::create(self.path(name)).unwrap()).unwrap();
    }

    /// Values of a .npy file of floats.
    pub fn floats(&self, name: &str) -> ArrayD<f32> {
        ArrayD::read_npy(&self.read(name)[..]).unwrap()
    }

    pub fn model(&self, name: &str, model: &ModelProto) {
        self.write(name, model.encode_to_vec());
    }

    /// Writes `digits.onnx` under another name after `edit` had its way with the graph.
    pub fn edited(&self, name: &str, edit: impl FnOnce(&mut GraphProto)) {
        let mut model = models::digits();
        edit(model.graph.as_mut().unwrap());
        self.model(name, &model);
    }

    /// The program with the arguments that `line` holds between blanks, not yet started.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fpxint"));
        command.args(line.split_whitespace()).current_dir(self.0.path()).stdin(Stdio::null());
        command
    }

    /// Runs the program with the arguments that `line` holds between blanks.
    pub fn run(&self, line: &str) -> Ended {
        self.run_with(line, &[])
    }

    /// As [`Folder::run`], with environment variables.
    pub fn run_with(&self, line: &str, variables: &[(&str, &str)]) -> Ended {
        let output = self.command(line).envs(variables.iter().copied()).output().unwrap();
        Ended {
            line: line.to_owned(),
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs the program, which must refuse with one line that holds every one of `words`, and change no file.
    pub fn refuses(&self, line: &str, words: &[&str]) {
        let before = self.files();
        let ended = self.run(line);
        ended.refused(words);
        assert_eq!(self.files(), before, "{ended:#?}");
    }

    /// Every path below the folder, with the bytes of files.
    pub fn files(&self) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        let mut found = BTreeMap::new();
        collect(self.0.path(), &mut found);
        found
    }
}

fn collect(folder: &Path, found: &mut BTreeMap<PathBuf, Option<Vec<u8>>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            collect(&path, found);
        }
        let bytes = kind.is_file().then(|| fs::read(&path).unwrap());
        found.insert(path, bytes);
    }
}

/// Writes to the terminal, past the capture of the test harness.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The keys of a JSON object, sorted.
pub fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// A number in a JSON object.
pub fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("`{key}` is no number in {value}"))
}
