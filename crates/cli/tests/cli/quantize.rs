//! `fpxint quantize`: what it reports and what it writes.

use crate::models::{DIGITS, floats, node};
use crate::program::{Folder, keys, number};

#[test]
fn keys_are_those_that_tools_rely_on() {
    let folder = Folder::new();
    let report = folder.run("quantize digits.onnx -o out.onnx --weights int4x3 --json").done().json();
    let relied_on = ["bytes_in", "bytes_out", "layers", "mean_weight_bits", "products", "seconds", "skipped"];
    let found = keys(&report);
    assert!(relied_on.iter().all(|key| found.contains(key)), "{found:?}");
    let layers = report["layers"].as_array().unwrap();
    let columns = ["activations", "bound", "max_error", "name", "op", "products", "sparse_fraction", "weights"];
    assert!(layers.iter().all(|layer| columns.iter().all(|key| keys(layer).contains(key))), "{report}");
    let names: Vec<_> = layers.iter().map(|layer| layer["name"].as_str().unwrap()).collect();
    let wanted = ["stem", "block1_dw", "block1_pw", "down", "block2_dw", "block2_pw", "head", "classifier"];
    assert_eq!(names, wanted);
    for layer in layers {
        assert!(number(layer, "max_error") <= number(layer, "bound"), "{layer}");
        assert_eq!((layer["weights"].as_str(), layer["activations"].as_str()), (Some("int4x3"), Some("int4x2")));
        assert_eq!(layer["op"], if layer["name"] == "classifier" { "Gemm" } else { "Conv" });
        // Twelve bits are two products, but one where sixteen-bit weights cost as much as eight.
        assert_eq!(number(layer, "products"), if layer["name"].as_str().unwrap().ends_with("_dw") { 1.0 } else { 2.0 });
    }
    assert_eq!(report["skipped"].as_array().unwrap().len(), 0);
    assert_eq!(number(&report, "mean_weight_bits"), 12.0);
    assert_eq!(number(&report, "bytes_in"), DIGITS.len() as f64);
    assert_eq!(number(&report, "bytes_out"), folder.read("out.onnx").len() as f64);
}

#[test]
fn what_is_skipped_is_listed_with_its_reason() {
    let folder = Folder::new();
    folder.edited("up.onnx", |graph| {
        graph.initializer.push(floats("up.weight", &[1, 1, 1, 1], [1.0]));
        let up = node("ConvTranspose", "up", &["input", "up.weight"], "upped", &[]);
        crate::models::insert(graph, up, "stem", "input");
    });
    let report = folder.run("quantize up.onnx -o out.onnx --json").done().json();
    let skipped = report["skipped"].as_array().unwrap();
    assert_eq!(skipped.len(), 1, "{report}");
    assert_eq!(keys(&skipped[0]), ["name", "reason"]);
    assert_eq!(skipped[0]["name"], "up");
    assert!(skipped[0]["reason"].as_str().unwrap().contains("ConvTranspose"), "{report}");
    assert_eq!(report["layers"].as_array().unwrap().len(), 8);
    folder.run("run out.onnx -i input=x.npy --quiet").done();
}

#[test]
fn the_same_bytes_come_from_any_number_of_threads() {
    let folder = Folder::new();
    for weights in ["int4x2", "int2x3", "int8x1", "int3x4", "int5x3", "int8x4"] {
        for granularity in ["channel", "tensor", "group:3"] {
            let written = [1, 2, 7].map(|threads| {
                let flags = format!("--weights {weights} --granularity {granularity} --threads {threads} --quiet");
                folder.run(&format!("quantize digits.onnx -o out.onnx {flags}")).done();
                folder.read("out.onnx")
            });
            assert!(written.iter().all(|bytes| *bytes == written[0]), "{weights} {granularity}");
        }
    }
}

#[test]
fn an_artefact_may_replace_a_file() {
    let folder = Folder::with_artefact("int4x2", "int4x2");
    let fresh = folder.read("terms.onnx");
    folder.write("taken.onnx", "something else");
    folder.run("quantize digits.onnx -o taken.onnx --weights int4x2 --quiet").done();
    assert_eq!(folder.read("taken.onnx"), fresh);
    let names: Vec<_> = folder.files().into_keys().map(|p| p.file_name().unwrap().to_owned()).collect();
    assert_eq!(names, ["digits.onnx", "taken.onnx", "terms.onnx", "x.npy"]);
}

#[test]
fn more_bits_take_more_bytes_and_err_less() {
    let folder = Folder::new();
    let report = |weights: &str| {
        folder.run(&format!("quantize digits.onnx -o out.onnx --json --weights {weights}")).done().json()
    };
    let worst = |report: &serde_json::Value| {
        let layers = report["layers"].as_array().unwrap();
        layers.iter().map(|layer| number(layer, "max_error")).fold(0.0, f64::max)
    };
    let reports = ["int2x2", "int2x3", "int4x2", "int4x3", "int8x2", "int8x3"].map(report);
    for pair in reports.windows(2) {
        assert!(worst(&pair[1]) < worst(&pair[0]), "{pair:#?}");
        assert!(number(&pair[1], "bytes_out") > number(&pair[0], "bytes_out"), "{pair:#?}");
    }
}

#[test]
fn an_operator_that_cannot_be_raised_keeps_terms_wide() {
    let folder = Folder::new();
    folder.edited("jitter.onnx", |graph| {
        graph.initializer.push(floats("none", &[1], [0.0]));
        crate::models::insert(
            graph,
            node("RandomUniform", "jitter", &[], "j", &[("shape", &[1, 1, 8, 8])]),
            "stem",
            "",
        );
        crate::models::insert(graph, node("Mul", "no_jitter", &["j", "none"], "n", &[]), "stem", "");
        crate::models::insert(graph, node("Add", "jittered", &["input", "n"], "x", &[]), "stem", "input");
    });
    let line = "quantize jitter.onnx -o out.onnx --weights int2x3";
    let report = folder.run(&format!("{line} --json")).done().json();
    assert_eq!((report["storage"].as_str(), report["opset"].as_u64()), (Some("INT4"), Some(21)), "{report}");
    let note = report["note"].as_str().unwrap();
    assert!(["`jitter`", "RandomUniform", "INT4"].iter().all(|word| note.contains(word)), "{note}");
    let table = folder.run(line).done().stdout;
    assert!(table.lines().any(|line| line.starts_with("note: ") && line.contains("`jitter`")), "{table}");
    let digest = |line: &str| folder.run(&format!("run {line} -i input=x.npy --json")).done().stdout;
    assert_eq!(digest("out.onnx"), digest("digits.onnx --weights int2x3 --activations int4x2"));
}

#[test]
fn excluded_layers_stay_in_full_precision() {
    let folder = Folder::new();
    let report = folder.run("quantize digits.onnx -o out.onnx --exclude _dw$ --exclude ^stem$ --json").done().json();
    let names = |key: &str| -> Vec<String> {
        report[key].as_array().unwrap().iter().map(|l| l["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("skipped"), ["stem", "block1_dw", "block2_dw"]);
    assert_eq!(names("layers"), ["block1_pw", "down", "block2_pw", "head", "classifier"]);
    assert!(report["skipped"].as_array().unwrap().iter().all(|s| s["reason"] == "excluded"));
    // Part of the weights keeps 32 bits.
    let bits = number(&report, "mean_weight_bits");
    assert!(8.0 < bits && bits < 32.0, "{bits}");
    // The artefact runs, and its excluded layers are as exact as in the source.
    folder.run("compare digits.onnx out.onnx -i input=x.npy --max-relative 0.1 --json").done();
    let all = folder.run("compare digits.onnx digits.onnx --weights int4x2 --activations int4x2 -i input=x.npy --json");
    let some = folder.run("compare digits.onnx out.onnx -i input=x.npy --json").done().json();
    assert_ne!(all.done().json()["outputs"], some["outputs"]);

    folder.refuses("quantize digits.onnx -o no.onnx --exclude nonsense", &["--exclude nonsense", "no layer"]);
    folder.refuses("quantize digits.onnx -o no.onnx --exclude .", &["leaves no layer"]);
    folder.refuses("quantize digits.onnx -o no.onnx --exclude (", &["--exclude", "unclosed group"]);
}

#[test]
fn a_dry_run_reports_and_writes_nothing() {
    let folder = Folder::new();
    let before = folder.files();
    let dry = folder.run("quantize digits.onnx --dry-run --json").done().json();
    let named = folder.run("quantize digits.onnx -o out.onnx --dry-run --json").done().json();
    assert_eq!(folder.files(), before);
    let wet = folder.run("quantize digits.onnx -o out.onnx --json").done().json();
    for key in ["bytes_out", "layers", "opset", "storage", "products"] {
        assert_eq!((&dry[key], &named[key]), (&wet[key], &wet[key]), "{key}");
    }
    let table = folder.run("quantize digits.onnx --dry-run").done();
    assert!(table.stdout.contains("nothing written"), "{table:?}");
    folder.refuses("quantize digits.onnx", &["--output"]);
}

#[test]
fn groups_of_inputs_are_finer_and_cost_what_is_said() {
    let folder = Folder::new();
    let error = |flags: &str| {
        let report = folder.run(&format!("quantize digits.onnx -o out.onnx {flags} --json")).done().json();
        folder.run("run out.onnx -i input=x.npy --json").done();
        let close = folder.run("compare digits.onnx out.onnx -i input=x.npy --activations int8x2 --json").done().json();
        let error = 1.0 / number(&close["outputs"][0], "sqnr_db");
        (error, number(&report, "products"))
    };
    let (channel, products) = error("--weights int4x1");
    let (group, grouped) = error("--weights int4x1 --granularity group:4");
    assert_eq!((products, grouped), (1.0, 1.0), "four bits and what groups shift by are one limb");
    assert!(group < channel, "{group} {channel}");
    let (_, products) = error("--weights int8x1 --granularity group:4");
    assert!(products > 1.0, "eight bits leave no room to shift: {products}");
    for wrong in ["group", "group:0", "group:x", "row"] {
        folder
            .refuses(&format!("quantize digits.onnx -o no.onnx --granularity {wrong}"), &["--granularity", "group:G"]);
    }
}
