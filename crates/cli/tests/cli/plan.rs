//! Precisions layer by layer: plans that are made, written, read and run.

use serde_json::Value;

use crate::program::{Folder, keys, number};

/// Weights and activations of every layer, by name.
fn precisions(report: &Value) -> Vec<(String, String, String)> {
    let text = |layer: &Value, key: &str| layer[key].as_str().unwrap().to_owned();
    let layers = report["layers"].as_array().unwrap().iter();
    layers.map(|layer| (text(layer, "name"), text(layer, "weights"), text(layer, "activations"))).collect()
}

#[test]
fn without_a_precision_the_planner_chooses() {
    let folder = Folder::new();
    let report = folder.run("quantize digits.onnx -o out.onnx --json").done().json();
    let again = folder.run("quantize digits.onnx -o again.onnx --target-products 1.1 --threads 3 --json").done().json();
    assert_eq!(report["layers"], again["layers"], "the same plan from any number of threads");
    assert_eq!(folder.read("out.onnx"), folder.read("again.onnx"));
    let products = number(&report, "products");
    assert!((1.0..=1.1).contains(&products), "{products}");
    assert!(number(&report, "expected_error") > 0.0);
    for layer in report["layers"].as_array().unwrap() {
        // The former is relative to the outputs there are, the latter to the largest there can be.
        assert!(number(layer, "expected_error") > 0.0 && number(layer, "certified_error") > 0.0, "{layer}");
        // Twelve bits cost depthwise layers nothing.
        if layer["name"].as_str().unwrap().ends_with("_dw") {
            assert_eq!(layer["weights"], "int4x3");
        }
    }
    let table = folder.run("quantize digits.onnx --dry-run").done().stdout;
    assert!(
        ["expected error", "at most", "expected relative error"].iter().all(|word| table.contains(word)),
        "{table}"
    );
    let uniform = folder.run("quantize digits.onnx -o out.onnx --weights int4x2 --json").done().json();
    assert!(!keys(&uniform).contains(&"expected_error"), "{uniform}");
}

#[test]
fn goals_are_kept_and_more_costs_err_less() {
    let folder = Folder::new();
    let report = |flag: &str| folder.run(&format!("quantize digits.onnx --dry-run --json {flag}")).done().json();
    for (flag, key, values) in [
        ("--target-products", "products", [1.0, 1.5, 2.2, 4.0]),
        ("--target-bits", "mean_weight_bits", [2.0, 3.0, 5.5, 8.0]),
    ] {
        let reports = values.map(|value| report(&format!("{flag} {value}")));
        for (report, limit) in reports.iter().zip(values) {
            assert!(number(report, key) <= limit + 1e-9, "{flag} {limit}: {report}");
        }
        for pair in reports.windows(2) {
            assert!(number(&pair[1], "expected_error") <= number(&pair[0], "expected_error"), "{flag}: {pair:#?}");
        }
    }
    for tolerance in [0.1, 1e-2, 1e-3] {
        let report = report(&format!("--tolerance {tolerance}"));
        let layers = report["layers"].as_array().unwrap();
        assert!(layers.iter().all(|layer| number(layer, "expected_error") <= tolerance), "{report}");
    }
    assert_eq!(number(&report("--tolerance 0.02"), "products"), 1.0);
    folder.refuses("quantize digits.onnx --dry-run --target-products 0.9", &["too few", "1.00"]);
    folder.refuses("quantize digits.onnx --dry-run --tolerance 1e-9", &["cannot be within", "layer `"]);
    folder.refuses("quantize digits.onnx --dry-run --target-bits nan", &["positive"]);
    folder.refuses("quantize digits.onnx --dry-run --tolerance 1e-2 --target-bits 4", &["cannot be used with"]);
    folder.refuses("quantize digits.onnx --dry-run --tolerance 1e-2 --weights int4x2", &["cannot be used with"]);
}

#[test]
fn a_plan_is_written_once_and_then_read() {
    let folder = Folder::new();
    let made = folder.run("quantize digits.onnx -o a.onnx --plan plan.toml --target-products 1.5 --json");
    assert!(made.stderr.contains("plan.toml: the plan is written"), "{made:?}");
    let text = folder.read("plan.toml");
    let read = folder.run("quantize digits.onnx -o b.onnx --plan plan.toml --json");
    assert!(read.stderr.contains("plan.toml: the plan is read"), "{read:?}");
    assert_eq!(precisions(&made.json()), precisions(&read.json()));
    assert_eq!((folder.read("a.onnx"), folder.read("plan.toml")), (folder.read("b.onnx"), text));

    // What runs in memory is what the artefact runs, and what inspecting either shows.
    let digest = |line: &str| folder.run(&format!("run {line} -i input=x.npy --json --quiet")).done().stdout;
    let artefact = digest("a.onnx");
    assert_eq!(digest("digits.onnx --plan plan.toml"), artefact);
    assert_eq!(digest("digits.onnx --target-products 1.5"), artefact);
    assert_ne!(digest("digits.onnx --weights int4x2 --activations int4x2"), artefact);
    let inspect = |line: &str| folder.run(&format!("inspect {line} --json --quiet")).done().json();
    assert_eq!(precisions(&inspect("digits.onnx --plan plan.toml")), precisions(&made.json()));
    assert_eq!(precisions(&inspect("a.onnx")), precisions(&made.json()));
    let compare =
        |line: &str| folder.run(&format!("compare digits.onnx {line} -i input=x.npy --json --quiet")).done().json();
    assert_eq!(compare("digits.onnx --plan plan.toml")["outputs"], compare("a.onnx")["outputs"]);
    assert_eq!(compare("digits.onnx --target-products 1.5 --layers")["outputs"], compare("a.onnx")["outputs"]);
    folder.run("bench digits.onnx --plan plan.toml --runs 1 --json --quiet").done();
}

#[test]
fn plans_that_are_none_are_refused() {
    let folder = Folder::with_artefact("int4x2", "int4x2");
    let head = "version = 1\ndefault = { weights = \"int4x2\", activations = \"int4x2\" }\n[layers]\n";
    folder.write("unknown.toml", format!("{head}nonsense = {{ weights = \"int4x2\", activations = \"int4x2\" }}"));
    folder.write("broken.toml", format!("{head}stem = {{ weights = \"int4\", activations = \"int4x2\" }}"));
    folder.write("wide.toml", format!("{head}stem = {{ weights = \"int8x4\", activations = \"int4x2\" }}"));
    folder.write("good.toml", head);
    folder.write("binary.toml", [0xff, 0xfe]);
    let run = |flags: &str| format!("run digits.onnx -i input=x.npy --quiet {flags}");
    folder.refuses(&run("--plan unknown.toml"), &["unknown.toml", "`nonsense`"]);
    folder.refuses(&run("--plan broken.toml"), &["broken.toml", "line 4", "`int4`"]);
    folder.refuses(&run("--plan wide.toml"), &["`stem`", "24"]);
    folder.refuses(&run("--plan binary.toml"), &["binary.toml"]);
    folder.refuses(&run("--plan ."), &["is no file"]);
    folder.refuses(&run("--plan absent.toml"), &["absent.toml", "no such plan"]);
    folder.refuses(&run("--plan good.toml --weights int4x2"), &["cannot be used with"]);
    folder.refuses("run terms.onnx -i input=x.npy --plan good.toml", &["terms.onnx", "expanded already"]);
    folder.refuses("inspect terms.onnx --target-products 2", &["terms.onnx", "expanded already"]);
    folder.run(&run("--plan good.toml")).done();
}

#[test]
fn excluded_layers_are_not_planned() {
    let folder = Folder::new();
    let line = "quantize digits.onnx -o out.onnx --exclude _dw$ --plan plan.toml --json --quiet";
    let report = folder.run(line).done().json();
    assert!(number(&report, "products") <= 1.1, "{report}");
    let text = String::from_utf8(folder.read("plan.toml")).unwrap();
    assert!(text.contains("\"stem\"") && !text.contains("_dw"), "{text}");
    folder.run("run out.onnx -i input=x.npy --quiet").done();
}
