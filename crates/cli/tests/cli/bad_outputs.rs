//! Places that cannot be written: nothing is left there, and nothing that was there is harmed.

use std::fs;

use crate::program::Folder;

#[test]
fn a_folder_that_is_missing_is_named() {
    let folder = Folder::new();
    folder.refuses("quantize digits.onnx -o nowhere/out.onnx", &["nowhere/out.onnx", "No such file"]);
    folder.refuses("quantize digits.onnx -o x.npy/out.onnx", &["x.npy/out.onnx", "Not a directory"]);
}

#[test]
fn what_is_no_file_is_not_replaced() {
    let folder = Folder::new();
    fs::create_dir(folder.path("taken.onnx")).unwrap();
    folder.refuses("quantize digits.onnx -o taken.onnx", &["taken.onnx", "not a file"]);
    folder.refuses("quantize digits.onnx -o .", &["not a file"]);
    #[cfg(unix)]
    {
        let _listener = std::os::unix::net::UnixListener::bind(folder.path("socket")).unwrap();
        std::os::unix::fs::symlink("socket", folder.path("link")).unwrap();
        folder.refuses("quantize digits.onnx -o socket", &["socket", "not a file"]);
        folder.refuses("quantize digits.onnx -o link", &["link", "not a file"]);
    }
}

#[test]
fn a_read_only_folder_is_named() {
    let folder = Folder::new();
    let locked = folder.path("locked");
    fs::create_dir(&locked).unwrap();
    let mut permissions = fs::metadata(&locked).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&locked, permissions).unwrap();
    if fs::write(locked.join("probe"), "").is_ok() {
        crate::program::say("skipped: this user may write into read-only folders");
        return;
    }
    folder.refuses("quantize digits.onnx -o locked/out.onnx", &["locked/out.onnx", "cannot be written"]);
    folder.refuses("run digits.onnx -i input=x.npy -o locked/deeper", &["locked/deeper"]);
}

#[test]
fn outputs_of_a_run_that_cannot_be_written_are_named() {
    let folder = Folder::new();
    folder.refuses("run digits.onnx -i input=x.npy -o x.npy", &["x.npy"]);
    fs::create_dir_all(folder.path("taken/logits.npy")).unwrap();
    folder.refuses("run digits.onnx -i input=x.npy -o taken", &["logits.npy", "cannot write"]);
}

#[test]
fn a_refused_model_leaves_the_old_artefact() {
    let folder = Folder::with_artefact("int4x2", "int4x2");
    folder.edited("bad.onnx", |graph| crate::models::set(graph, "head.weight", 0, f32::NAN));
    folder.refuses("quantize bad.onnx -o terms.onnx", &["bad.onnx", "head"]);
}
