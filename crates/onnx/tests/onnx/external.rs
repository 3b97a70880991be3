//! Tensors in other files: read where they may be, refused where they may not, written where one file is too small.

use crate::build::*;
use fpxint::{Granularity, Weight};
use fpxint_onnx::proto::{ModelProto, TensorProto, tensor_proto::DataType};
use fpxint_onnx::{Error, Limits, Model, read, skeleton, write, write_within};
use prost::Message;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Moves the data of every initialiser to `weights.bin`, after `gap` bytes each; a folder with the two files.
fn outside(build: &Build, gap: usize) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let mut build = build.clone();
    let mut data = Vec::new();
    for tensor in &mut build.graph().initializer {
        data.extend(vec![0xee; gap]);
        let raw = tensor.raw_data.take().unwrap();
        place(tensor, "weights.bin", Some(data.len()), Some(raw.len()));
        data.extend(raw);
    }
    std::fs::write(folder.path().join("weights.bin"), data).unwrap();
    let path = save(&build, &folder);
    (folder, path)
}

fn save(build: &Build, folder: &TempDir) -> PathBuf {
    let path = folder.path().join("test.onnx");
    std::fs::write(&path, build.bytes()).unwrap();
    path
}

/// Says where a tensor lies, keys in an order that is not the usual one.
fn place(tensor: &mut TensorProto, location: &str, offset: Option<usize>, length: Option<usize>) {
    tensor.raw_data = None;
    tensor.data_location = Some(1);
    tensor.external_data = vec![property("checksum", "0"), property("location", location)];
    tensor.external_data.extend(offset.map(|v| property("offset", &v.to_string())));
    tensor.external_data.insert(0, property("length", &length.map_or(String::new(), |v| v.to_string())));
    if length.is_none() {
        tensor.external_data.remove(0);
    }
}

fn load(path: &Path) -> Model {
    read(path, &Limits::default()).unwrap()
}

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

fn names(folder: &TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Two layers, a table that is no layer's and a scale that is folded; large enough for a file of tensors.
fn large() -> Build {
    let mut build = Build::new(13, &[2, 64], 2)
        .floats("w1", &[64, 48], &ramp(64 * 48))
        .floats("w2", &[48, 48], &ramp(48 * 48))
        .floats("c", &[48], &ramp(48))
        .floats("table", &[600, 2], &ramp(1200))
        .tensor(int64s("picked", &[3, 599]))
        .op("MatMul", &["x", "w1"], "h")
        .op("Relu", &["h"], "r")
        .op("MatMul", &["r", "w2"], "s")
        .op("Add", &["s", "c"], "y")
        .op("Gather", &["table", "picked"], "t");
    build.graph().output.push(value("t", DataType::Float, &[2, 2]));
    build
}

#[test]
fn a_model_reads_the_same_from_two_files() {
    for build in [large(), conv(13), gemm(13, true, vec![])] {
        let whole = build.model();
        let (folder, path) = outside(&build, 7);
        let model = load(&path);
        assert_eq!(model.layers(), whole.layers());
        for i in 0..model.layers().len() {
            assert_eq!(model.layer(i).unwrap(), whole.layer(i).unwrap());
        }
        assert_eq!(skeleton(&model).unwrap(), skeleton(&whole).unwrap());
        assert_eq!(model.folder(), Some(folder.path().canonicalize().unwrap().as_path()));
        let size: u64 = ["test.onnx", "weights.bin"].map(|n| bytes(&folder.path().join(n)).len() as u64).iter().sum();
        assert_eq!((model.file_bytes(), whole.folder()), (size, None));
    }
}

#[test]
fn offset_and_length_may_be_left_out() {
    let (folder, _) = outside(&matmul(13), 0);
    let mut build = matmul(13);
    place(&mut build.graph().initializer[0], "./weights.bin", None, None);
    let model = load(&save(&build, &folder));
    assert_eq!(model.layer(0).unwrap(), matmul(13).model().layer(0).unwrap());
}

#[test]
fn matrices_are_read_when_they_are_needed() {
    let (folder, path) = outside(&large(), 0);
    let model = load(&path);
    std::fs::write(folder.path().join("weights.bin"), b"cut").unwrap();
    for error in [model.layer(0).unwrap_err(), skeleton(&model).unwrap_err()] {
        checked(error, "cut off after");
    }
    let target = folder.path().join("a.onnx");
    let failed = write(&model, &encoded(&expand(&large().model(), "int4x2", Granularity::Channel)), &target);
    checked(failed.unwrap_err(), "cut off after");
    assert_eq!(names(&folder), ["test.onnx", "weights.bin"]);
}

/// The error, which names file and tensor on one line.
fn checked(error: Error, part: &str) {
    let text = error.to_string();
    assert!(matches!(error, Error::ExternalData { .. }), "{text}");
    assert!(text.contains("test.onnx") && text.contains("tensor `") && !text.contains('\n'), "{text}");
    assert!(text.contains(part), "{text}");
}

fn refused(change: impl FnOnce(&mut TensorProto, &Path), part: &str) {
    let (folder, path) = outside(&matmul(13), 0);
    let proto = ModelProto::decode(bytes(&path).as_slice()).unwrap();
    let mut build = Build { proto };
    change(&mut build.graph().initializer[0], folder.path());
    checked(read(&save(&build, &folder), &Limits::default()).unwrap_err(), part);
}

#[test]
fn places_outside_the_folder_are_refused() {
    let at = |location: &'static str| move |tensor: &mut TensorProto, _: &Path| place(tensor, location, None, Some(60));
    refused(at("nowhere.bin"), "No such file");
    refused(at(""), "own folder");
    refused(at("."), "not a file");
    for location in ["../weights.bin", "/etc/passwd", "sub/../../weights.bin", "/"] {
        refused(at(location), "own folder");
    }
    refused(at("line\nbreak"), "`line\\nbreak`");
    refused(at("nul\0"), "`nul\\0`");
}

#[cfg(unix)]
#[test]
fn links_out_of_the_folder_are_refused_and_others_followed() {
    let elsewhere = tempfile::tempdir().unwrap();
    let secret = elsewhere.path().join("secret.bin");
    std::fs::write(&secret, [0; 60]).unwrap();
    let link = |tensor: &mut TensorProto, folder: &Path| {
        std::os::unix::fs::symlink(&secret, folder.join("link.bin")).unwrap();
        place(tensor, "link.bin", None, None);
    };
    refused(link, "link out of the model's folder");
    let link = |tensor: &mut TensorProto, folder: &Path| {
        std::os::unix::fs::symlink(elsewhere.path(), folder.join("sub")).unwrap();
        place(tensor, "sub/secret.bin", None, None);
    };
    refused(link, "link out of the model's folder");
    let (folder, _) = outside(&matmul(13), 0);
    std::os::unix::fs::symlink("weights.bin", folder.path().join("link.bin")).unwrap();
    let mut build = matmul(13);
    place(&mut build.graph().initializer[0], "link.bin", None, None);
    assert!(load(&save(&build, &folder)).layer(0).is_ok());
}

#[test]
fn lengths_and_offsets_are_checked() {
    let at = |offset, length| move |tensor: &mut TensorProto, _: &Path| place(tensor, "weights.bin", offset, length);
    refused(at(Some(1), Some(60)), "60 bytes at 1");
    refused(at(Some(usize::MAX), Some(60)), "beyond the 60");
    refused(at(Some(61), None), "beyond the 60");
    refused(at(None, Some(59)), "length 59");
    refused(at(None, Some(61)), "length 61");
    let cut = |_: &mut TensorProto, folder: &Path| std::fs::write(folder.join("weights.bin"), [0; 59]).unwrap();
    refused(cut, "beyond the 59");
    let entry = |key: &'static str, text: &'static str| {
        move |tensor: &mut TensorProto, _: &Path| tensor.external_data.push(property(key, text))
    };
    refused(entry("location", "weights.bin"), "location is stated twice");
    refused(entry("offset", "0"), "offset is stated twice");
    let replaced = |key: &'static str, text: &'static str| {
        move |tensor: &mut TensorProto, _: &Path| {
            tensor.external_data.retain(|entry| entry.key() != key);
            tensor.external_data.push(property(key, text));
        }
    };
    refused(replaced("offset", "-1"), "offset `-1` is no number");
    refused(replaced("length", "0x3c"), "length `0x3c` is no number");
    refused(|tensor, _| tensor.external_data.clear(), "location is not stated");
    refused(|tensor, _| tensor.data_location = None, "not EXTERNAL");
    refused(|tensor, _| tensor.float_data = ramp(15), "as well");
    refused(|tensor, _| tensor.data_type = Some(DataType::String as i32), "STRING");
}

#[test]
fn dimensions_of_tensors_in_files_are_checked() {
    let with = |dims: &[i64]| {
        let (folder, path) = outside(&matmul(13), 0);
        let mut build = Build { proto: ModelProto::decode(bytes(&path).as_slice()).unwrap() };
        build.graph().initializer[0].dims = dims.to_vec();
        read(&save(&build, &folder), &Limits::default()).unwrap_err()
    };
    assert!(matches!(with(&[1 << 62]), Error::Limit { .. }));
    assert!(matches!(with(&[1 << 62, 4]), Error::Dimension { .. }));
    assert!(matches!(with(&[-5, 3]), Error::Dimension { .. }));
    assert!(matches!(with(&[-5, -3]), Error::Dimension { .. }));
    assert!(matches!(with(&[5, 4]), Error::ExternalData { .. }));
}

#[test]
fn only_initialisers_of_the_graph_lie_in_files() {
    let (folder, _) = outside(&matmul(13), 0);
    let mut tensor = floats("", &[5, 3], &[]);
    place(&mut tensor, "weights.bin", None, None);
    let constant = node("Constant", &[], "w", vec![held("value", tensor)]);
    let build = Build::new(13, &[2, 5], 2).node(constant).op("MatMul", &["x", "w"], "y");
    checked(read(&save(&build, &folder), &Limits::default()).unwrap_err(), "only initialisers");
    checked(build.parse().unwrap_err(), "only initialisers");
}

/// Writes to `name` in `folder` with a limit.
fn written(model: &Model, folder: &TempDir, name: &str, limit: u64) -> (PathBuf, fpxint_onnx::Written) {
    let layers = encoded(&expand(model, "int4x2", Granularity::Channel));
    let path = folder.path().join(name);
    let written = write_within(model, &layers, &path, limit).unwrap();
    (path, written)
}

/// Whether the artefact at `path` has exactly the integers of `model`, and the rest of its graph.
fn same_integers(path: &Path, model: &Model) {
    let again = load(path);
    for (i, layer) in expand(model, "int4x2", Granularity::Channel).into_iter().enumerate() {
        let read = again.layer(i).unwrap();
        assert_eq!((read.weight, read.bias), (Weight::Series(layer.weight), layer.bias));
    }
    let table = ramp(1200).iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    assert!(skeleton(&again).unwrap().windows(table.len()).any(|window| window == table));
}

#[test]
fn what_fits_is_written_as_one_file() {
    let whole = large().model();
    let (folder, path) = outside(&large(), 3);
    let model = load(&path);
    let (plain, report) = written(&model, &folder, "a.onnx", 1 << 30);
    let (expected, _) = written(&whole, &folder, "b.onnx", 1 << 30);
    assert_eq!((report.data, report.bytes), (None, bytes(&plain).len() as u64));
    assert_eq!(bytes(&plain), bytes(&expected));
    assert_eq!(ModelProto::decode(bytes(&plain).as_slice()).unwrap().encode_to_vec(), bytes(&plain));
    same_integers(&plain, &whole);
    assert_eq!(names(&folder), ["a.onnx", "b.onnx", "test.onnx", "weights.bin"]);
}

#[test]
fn what_does_not_fit_is_written_as_two_files() {
    let whole = large().model();
    let (folder, path) = outside(&large(), 3);
    for model in [&whole, &load(&path)] {
        let (path, report) = written(model, &folder, "a.onnx", 6000);
        let data = folder.path().join("a.onnx.data");
        assert_eq!(report.data.as_ref(), Some(&data));
        assert_eq!(report.bytes, (bytes(&path).len() + bytes(&data).len()) as u64);
        same_integers(&path, &whole);
        let before = (bytes(&path), bytes(&data));
        written(model, &folder, "a.onnx", 6000);
        assert!(before == (bytes(&path), bytes(&data)));
        let graph = ModelProto::decode(before.0.as_slice()).unwrap().graph.unwrap();
        let moved: Vec<_> = graph.initializer.iter().filter(|t| t.data_location.is_some()).collect();
        assert_eq!(moved.len(), 5); // The table and two terms of two layers.
        for tensor in moved {
            let entries: Vec<_> = tensor.external_data.iter().map(|e| (e.key(), e.value())).collect();
            assert_eq!(
                [entries[0], (entries[1].0, ""), (entries[2].0, "")],
                [("location", "a.onnx.data"), ("offset", ""), ("length", "")]
            );
            assert_eq!(entries[1].1.parse::<u64>().unwrap() % 4096, 0);
        }
    }
}

#[test]
fn an_artefact_in_two_files_can_be_written_over_itself() {
    let whole = large().model();
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = written(&whole, &folder, "a.onnx", 6000);
    let before = (bytes(&path), bytes(&folder.path().join("a.onnx.data")));
    let model = load(&path);
    let (_, _) = written(&model, &folder, "a.onnx", 6000);
    assert!(before == (bytes(&path), bytes(&folder.path().join("a.onnx.data"))));
    let (plain, report) = written(&model, &folder, "b.onnx", 1 << 30);
    assert_eq!(report.data, None);
    same_integers(&plain, &whole);
}

#[test]
fn typed_data_leave_the_model_as_bytes() {
    let mut build = large();
    let table = build.graph().initializer.iter_mut().find(|t| t.name() == "table").unwrap();
    (table.raw_data, table.float_data) = (None, ramp(1200));
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = written(&build.model(), &folder, "a.onnx", 6000);
    same_integers(&path, &large().model());
    assert!(bytes(&path).len() < 6000);
}

#[test]
fn terms_stored_wider_than_they_are_go_out_too() {
    let mut build = large();
    build.graph().node.push(node("Unheard", &["x"], "u", vec![]));
    build.graph().output.push(value("u", DataType::Float, &[2, 64]));
    let model = build.model();
    let folder = tempfile::tempdir().unwrap();
    let (path, report) = written(&model, &folder, "a.onnx", 6000);
    assert_eq!((report.storage, report.data.is_some()), ("INT8", true));
    same_integers(&path, &model);
}

#[test]
fn a_failed_write_of_two_files_leaves_what_was_there() {
    let model = large().model();
    let layers = encoded(&expand(&model, "int4x2", Granularity::Channel));
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let fails = |name: &str| {
        let error = write_within(&model, &layers, &at(name), 6000).unwrap_err();
        assert!(matches!(error, Error::Write { .. }), "{error}");
    };
    // The place of the second file is taken by a folder.
    std::fs::create_dir_all(at("a.onnx.data")).unwrap();
    std::fs::write(at("a.onnx"), "kept").unwrap();
    fails("a.onnx");
    assert_eq!((bytes(&at("a.onnx")).as_slice(), at("a.onnx.data").is_dir()), (b"kept".as_slice(), true));
    // The place of the first one is, so that the second one is there already when it fails.
    std::fs::create_dir_all(at("b.onnx")).unwrap();
    std::fs::write(at("b.onnx").join("kept"), "kept").unwrap();
    std::fs::write(at("b.onnx.data"), "kept").unwrap();
    fails("b.onnx");
    assert_eq!(bytes(&at("b.onnx.data")), b"kept");
    std::fs::remove_file(at("b.onnx.data")).unwrap();
    fails("b.onnx");
    fails("absent/c.onnx");
    assert_eq!(names(&folder), ["a.onnx", "a.onnx.data", "b.onnx"]);
}

#[test]
fn damaged_models_beside_their_data_are_survived() {
    let (folder, path) = outside(&large(), 3);
    let sample = bytes(&path);
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let limits = Limits { max_tensor_elements: 1 << 18, ..Limits::default() };
    for _ in 0..2000 {
        let mut damaged = sample.clone();
        let at = random() as usize % damaged.len();
        damaged[at] ^= 1 << (random() % 8);
        std::fs::write(&path, damaged).unwrap();
        match read(&path, &limits) {
            Ok(model) => {
                _ = (0..model.layers().len()).map(|i| model.layer(i)).collect::<Vec<_>>();
                _ = skeleton(&model);
                let written = write_within(&model, &[], &folder.path().join("a.onnx"), 6000);
                assert!(written.is_ok(), "{written:?}");
            }
            Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
        }
    }
}

#[test]
fn other_files_count_towards_the_total() {
    let (_folder, path) = outside(&large(), 3);
    let own = bytes(&path).len() as u64;
    let under = |max_total_bytes| read(&path, &Limits { max_total_bytes, ..Limits::default() });
    assert!(matches!(under(own + 16), Err(Error::Limit { .. })));
    assert!(under(1 << 30).is_ok());
}
