//! Flags that ask for what there is not.

use crate::program::Folder;

#[test]
fn precisions_that_do_not_exist_are_refused() {
    let folder = Folder::new();
    let cases = [
        ("int9x1", "2 to 8 bits"),
        ("int1x4", "2 to 8 bits"),
        ("int4x0", "at least one term"),
        ("int8x5", "at most 32"),
        ("int2x17", "at most 32"),
        ("int4", "int4x2"),
        ("4x2", "int4x2"),
        ("int4x2x2", "int4x2"),
        ("int4x99999999999", "int4x2"),
        ("uint4x2", "int4x2"),
    ];
    for (precision, reason) in cases {
        for flag in ["--weights", "--activations"] {
            folder.refuses(&format!("quantize digits.onnx -o out.onnx {flag} {precision}"), &[flag, precision, reason]);
            folder.refuses(&format!("run digits.onnx -i input=x.npy {flag} {precision}"), &[flag, precision, reason]);
        }
    }
    folder.refuses("quantize digits.onnx -o out.onnx --weights fp32", &["--weights", "fp32"]);
}

#[test]
fn what_is_too_wide_to_run_is_refused() {
    let folder = Folder::with_artefact("int8x4", "int4x2");
    let words = ["`stem`", "weights", "int8x4", "32 bits", "24"];
    folder.refuses("run digits.onnx -i input=x.npy --weights int8x4", &[&words[..], &["digits.onnx"]].concat());
    folder.refuses("run terms.onnx -i input=x.npy", &[&words[..], &["terms.onnx"]].concat());
    folder.run("run terms.onnx -i input=x.npy --weight-terms 3").done();
    let words = ["`stem`", "activations", "int8x4", "24"];
    folder.refuses("run terms.onnx -i input=x.npy --weight-terms 3 --activations int8x4", &words);
    folder.refuses("bench digits.onnx --activations int8x4", &words);
}

#[test]
fn terms_that_there_are_not_are_refused() {
    let folder = Folder::with_artefact("int4x2", "int4x2");
    for model in ["terms.onnx", "digits.onnx --weights int4x2"] {
        let run = format!("run {model} -i input=x.npy");
        for terms in [0, 3, 9, u32::MAX] {
            folder.refuses(&format!("{run} --weight-terms {terms}"), &["stem", &terms.to_string(), "has 2"]);
        }
        for terms in [0, 9, u32::MAX] {
            folder.refuses(&format!("{run} --activation-terms {terms}"), &[&format!("int4x{terms}")]);
        }
        folder.refuses(&format!("{run} --weight-terms two"), &["--weight-terms", "two"]);
    }
}

#[test]
fn flags_that_contradict_each_other_are_refused() {
    let folder = Folder::with_artefact("int4x2", "int4x2");
    let refused = |flags: &str, words: &[&str]| folder.refuses(&format!("run {flags} -i input=x.npy"), words);
    refused("digits.onnx --weights fp32 --activations int4x2", &["weights and activations"]);
    refused("digits.onnx --weights int4x2 --activations fp32", &["weights and activations"]);
    for flags in ["", "--weights fp32", "--activations fp32", "--weights fp32 --activations fp32"] {
        refused(&format!("digits.onnx {flags} --weight-terms 1"), &["digits.onnx", "not expanded"]);
        refused(&format!("digits.onnx {flags} --activation-terms 1"), &["digits.onnx", "not expanded"]);
    }
    refused("terms.onnx --weights int4x2", &["terms.onnx", "expanded already", "--weight-terms"]);
    refused("terms.onnx --weights fp32", &["terms.onnx", "expanded already", "--weight-terms"]);
    refused("terms.onnx --activations fp32", &["terms.onnx", "integer activations"]);
    folder.refuses("compare digits.onnx terms.onnx -i input=x.npy --random 2", &["--input", "--random"]);
}

#[test]
fn numbers_out_of_range_are_refused() {
    let folder = Folder::new();
    folder.refuses("demo --threads 0", &["--threads", "0"]);
    folder.refuses("demo --threads 5000", &["--threads", "5000"]);
    folder.refuses("bench digits.onnx --runs 0", &["--runs", "0"]);
    folder.refuses("bench digits.onnx --batch 0", &["--batch", "0"]);
    folder.refuses("compare digits.onnx digits.onnx --random 0", &["--random 0"]);
    folder.refuses("compare digits.onnx digits.onnx --max-relative much", &["--max-relative", "much"]);
    folder.refuses("quantize digits.onnx -o out.onnx --granularity group", &["--granularity", "group"]);
}

#[test]
fn an_unknown_kernel_is_refused() {
    let folder = Folder::with_artefact("int4x2", "int4x2");
    for line in ["run terms.onnx -i input=x.npy", "demo", "bench digits.onnx --weights int4x2"] {
        let ended = folder.run_with(line, &[("FPXINT_KERNEL", "nonsense")]);
        ended.refused(&["FPXINT_KERNEL", "nonsense", "scalar"]);
    }
}
