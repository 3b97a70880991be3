//! `fpxint study` and `inspect --html`: what the pages hold, and that their numbers are those of the other commands.

use std::fs;

use serde_json::Value;

use crate::eval::cifar;
use crate::models::colour;
use crate::program::{Folder, keys, number};

const STUDY: &str = "study model.onnx --task cifar10 --data set.npz -o out --json";
const EVAL: &str = "eval model.onnx --task cifar10 --data set.npz --reference model.onnx --json --quiet";

fn folder() -> Folder {
    let folder = Folder::empty();
    folder.model("model.onnx", &colour(-1, 32, 10));
    cifar(&folder, "set.npz", 12);
    folder
}

fn section(report: &Value, letter: &str) -> Value {
    let sections = report["sections"].as_array().unwrap();
    sections.iter().find(|s| s["letter"] == letter).unwrap_or_else(|| panic!("no ({letter}) in {report}")).clone()
}

/// The rows of a figure as objects.
fn rows(section: &Value, figure: usize) -> Vec<Value> {
    let figure = &section["figures"][figure];
    let keys: Vec<&str> = figure["columns"].as_array().unwrap().iter().map(|c| c["key"].as_str().unwrap()).collect();
    let row = |row: &Value| {
        let cells = keys.iter().zip(row.as_array().unwrap());
        cells.map(|(key, cell)| ((*key).to_owned(), cell.clone())).collect::<serde_json::Map<_, _>>().into()
    };
    figure["rows"].as_array().unwrap().iter().map(row).collect()
}

fn find<'a>(rows: &'a [Value], wanted: &[(&str, Value)]) -> &'a Value {
    let is = |row: &&Value| {
        wanted.iter().all(|(key, value)| match (row[key].as_f64(), value.as_f64()) {
            (Some(a), Some(b)) => a == b,
            _ => row[key] == *value,
        })
    };
    rows.iter().find(is).unwrap_or_else(|| panic!("no {wanted:?}"))
}

/// Checks that a row's scores are those that `eval` reports with these flags.
fn same_as_eval(folder: &Folder, row: &Value, flags: &str) {
    let report = folder.run(&format!("{EVAL} {flags}")).done().json();
    assert_eq!(row["agreement"], report["reference"]["agreement"], "{flags}: {row} {report}");
    assert_eq!(row["sqnr_db"], report["reference"]["outputs"]["sqnr_db"], "{flags}: {row} {report}");
    if !row["metric"].is_null() {
        assert_eq!(row["metric"], report["metrics"]["top1"], "{flags}: {row} {report}");
    }
    if !row["relative"].is_null() {
        assert_eq!(row["relative"], report["reference"]["outputs"]["relative"], "{flags}: {row} {report}");
    }
}

#[test]
fn a_page_holds_every_section_and_asks_for_nothing() {
    let folder = folder();
    let report = folder.run(STUDY).done().json();
    let wanted =
        ["data", "kernel", "layers", "limit", "model", "sections", "sha256", "task", "threads", "version", "weights"];
    assert_eq!(keys(&report), wanted);
    let letters: String =
        report["sections"].as_array().unwrap().iter().map(|s| s["letter"].as_str().unwrap()).collect();
    assert_eq!(letters, "abcdefghij");
    let kept: Value = serde_json::from_slice(&folder.read("out/study.json")).unwrap();
    assert_eq!(kept, report);
    let page = String::from_utf8(folder.read("out/study.html")).unwrap();
    for part in ["http:", "https:", "<script", " src=", "@import", "url(", "NaN"] {
        assert!(!page.contains(part), "{part}");
    }
    let figures = report["sections"].as_array().unwrap().iter().map(|s| s["figures"].as_array().unwrap().len());
    assert_eq!(page.matches("<figure").count(), figures.clone().sum::<usize>());
    assert_eq!(page.matches("data:text/csv").count(), figures.sum::<usize>());
    assert!(
        page.matches("plot wide").count() >= 15
            && page.matches("plot wide").count() == page.matches("plot narrow").count()
    );

    tensors_stay_within_their_bounds(&folder, &report);
    ensembles_stay_where_they_are(&report);
    numbers_are_those_of_the_commands(&folder, &report);
}

fn tensors_stay_within_their_bounds(folder: &Folder, report: &Value) {
    let section = section(report, "a");
    let matrix = rows(&section, 0);
    assert_eq!(matrix.len(), 8);
    for pair in matrix.windows(2) {
        let factor = number(&pair[0], "relative_error") / number(&pair[1], "relative_error");
        assert!((factor.log2() - 4.0).abs() < 0.1, "{factor}");
    }
    let layers = rows(&section, 1);
    for row in matrix.iter().chain(&layers) {
        assert!(number(row, "max_error") <= number(row, "bound"), "{row}");
    }
    let inspected = folder.run("inspect model.onnx --weights int4x8 --json").done().json();
    for layer in inspected["layers"].as_array().unwrap() {
        for (terms, (error, bound)) in
            layer["max_errors"].as_array().unwrap().iter().zip(layer["bounds"].as_array().unwrap()).enumerate()
        {
            let row = find(&layers, &[("layer", layer["name"].clone()), ("terms", (terms + 1).into())]);
            assert_eq!((&row["max_error"], &row["bound"]), (error, bound));
        }
    }
}

fn ensembles_stay_where_they_are(report: &Value) {
    let section = section(report, "i");
    let fall = |figure: usize, kind: &str, last: usize, key: &str| {
        let rows = rows(&section, figure);
        let of = |count: usize| number(find(&rows, &[("kind", kind.into()), ("models", count.into())]), key);
        of(1) / of(last)
    };
    assert!(fall(0, "series", 8, "relative_error") > 1e8);
    assert!(fall(1, "series", 6, "relative") > 1e4);
    for kind in ["ensemble, stochastic rounding", "ensemble, clips of their own"] {
        assert!(fall(0, kind, 8, "relative_error") < 3.0, "{kind}");
        assert!(fall(1, kind, 8, "relative") < 8.0, "{kind}");
    }
}

fn numbers_are_those_of_the_commands(folder: &Folder, report: &Value) {
    let of = |letter: &str| rows(&section(report, letter), 0);
    let terms = find(&of("c"), &[("weights", "int4x2".into()), ("terms", 3.into())]).clone();
    same_as_eval(folder, &terms, "--weights int4x2 --activations int4x3");
    let clipped =
        [("setting", "W int4x1, A int4x2".into()), ("clip", "laplace".into()), ("activations", "asymmetric".into())];
    same_as_eval(folder, find(&of("d"), &clipped), "--weights int4x1 --activations int4x2 --clip laplace");
    let only = find(&of("e"), &[("expanded", "weights only".into()), ("terms", 2.into())]).clone();
    same_as_eval(folder, &only, "--weights int4x2 --activations int4x1");
    let alone = "--target-products 2 --rounding nearest --clip none --bias-correction none";
    for (kind, flags) in [("plan as made by default", "--target-products 2"), ("plan, nearest rounding", alone)] {
        let planned = find(&of("j"), &[("kind", kind.into()), ("setting", "--target-products 2".into())]).clone();
        same_as_eval(folder, &planned, flags);
    }
    let alone = find(&of("b"), &[("index", 1.into()), ("part", "weights".into())]).clone();
    same_as_eval(folder, &alone, "--plan out/plans/b-1-weights.toml");
    let bits = find(&of("f"), &[("setting", "W3A3".into()), ("way", "series".into())]).clone();
    same_as_eval(folder, &bits, "--plan out/plans/f-int3x2-int3x4.toml");
}

#[test]
fn a_study_goes_on_where_it_stopped() {
    let folder = folder();
    let line = format!("{STUDY} --limit 4 --sections a,h");
    let first = folder.run(&line).done().json();
    assert_eq!(first["sections"].as_array().unwrap().len(), 2);
    // A section that is there is taken as it is; one that was cut off is made again.
    let file = folder.path("out/sections/a.json");
    let kept = fs::read_to_string(&file).unwrap();
    fs::write(&file, kept.replace("Theorem 1", "THEOREM ONE")).unwrap();
    fs::write(folder.path("out/sections/h.json"), "{").unwrap();
    let again = folder.run(&line).done().json();
    assert!(section(&again, "a")["text"].to_string().contains("THEOREM ONE"), "{again}");
    assert_eq!(section(&again, "h")["figures"], section(&first, "h")["figures"]);
    let html = String::from_utf8(folder.read("out/study.html")).unwrap();
    assert!(html.contains("THEOREM ONE"));
    // Another number of samples is another study.
    let other = folder.run(&line.replace("--limit 4", "--limit 5")).done().json();
    assert!(!section(&other, "a")["text"].to_string().contains("THEOREM ONE"));
}

#[test]
fn what_cannot_be_studied_is_refused() {
    let folder = Folder::with_artefact("int4x2", "int4x2");
    cifar(&folder, "set.npz", 2);
    folder.refuses("study terms.onnx --task cifar10 --data set.npz -o out", &["terms.onnx", "FP32"]);
    folder.refuses("study digits.onnx --task cifar10 --data none.npz -o out", &["none.npz"]);
    folder.refuses("study digits.onnx --task cifar10 --data set.npz -o out --tokenizer t.json", &["--tokenizer"]);
    let wrong = folder.run("study digits.onnx --task cifar10 --data set.npz -o out --sections a,k");
    assert!(wrong.code == Some(2) && wrong.stderr.contains("a letter from a to j"), "{wrong:?}");
}

#[test]
fn a_model_that_is_inspected_has_a_page() {
    let folder = Folder::with_artefact("int4x2", "int4x2");
    for (model, flags, histograms) in [
        ("digits.onnx", "", true),
        ("digits.onnx", "--weights int4x1 --activations int2x2 --rounding sum", true),
        ("digits.onnx", "--target-products 2", true),
        ("terms.onnx", "", false),
    ] {
        let plain = folder.run(&format!("inspect {model} {flags} --json")).done().json();
        let report = folder.run(&format!("inspect {model} {flags} --json --html page.html")).done().json();
        assert_eq!(report, plain);
        let page = String::from_utf8(folder.read("page.html")).unwrap();
        for layer in report["layers"].as_array().unwrap() {
            assert!(page.contains(&format!("<td class=\"text\">{}</td>", layer["name"].as_str().unwrap())), "{layer}");
        }
        assert_eq!(page.contains("Errors of the weights against their bounds"), histograms, "{model} {flags}");
        assert!(page.contains("share of time") && page.contains("layers.csv") && !page.contains("NaN"), "{model}");
        for warning in report["warnings"].as_array().unwrap() {
            let cause = warning.as_str().unwrap().split(": ").next().unwrap();
            assert!(page.contains(cause) && page.contains("Remedy:"), "{cause}");
        }
    }
    folder.refuses("inspect digits.onnx --html no/such/folder/page.html", &["cannot write", "page.html"]);
}
