//! `--rounding`, `--clip` and `--symmetry`: what they change, what they report, and where they are refused.

use crate::program::{Folder, number};

#[test]
fn a_clip_reports_its_share_or_why_there_is_none() {
    let folder = Folder::new();
    let report = |flags: &str| folder.run(&format!("quantize digits.onnx -o out.onnx --json {flags}")).done().json();
    let layers = |flags: &str| report(flags)["layers"].as_array().unwrap().clone();
    let clipped = layers("--weights int4x1 --rounding sum --clip mse");
    let plain = layers("--weights int4x1");
    assert!(clipped.iter().all(|layer| (0.0..=0.01).contains(&number(layer, "sparse_fraction"))), "{clipped:?}");
    assert!(clipped.iter().any(|layer| number(layer, "sparse_fraction") > 0.0), "{clipped:?}");
    assert!(plain.iter().all(|layer| number(layer, "sparse_fraction") == 0.0 && layer.get("unclipped").is_none()));
    for (clipped, plain) in clipped.iter().zip(&plain) {
        assert_eq!(clipped["products"], plain["products"]);
        assert!(number(clipped, "max_error") <= number(clipped, "bound"), "{clipped}");
        let beyond = number(clipped, "sparse_fraction") > 0.0;
        assert_eq!(clipped.get("unclipped").is_none(), beyond, "{clipped}");
        // A bound of one step where it was half a one, which the clip hardly makes wider.
        assert!(number(clipped, "bound") <= 2.2 * number(plain, "bound"), "{clipped}");
    }
    for layer in layers("--weights int8x1 --clip laplace --dry-run") {
        assert!(layer["unclipped"].as_str().unwrap().contains("another product"), "{layer}");
    }
}

#[test]
fn the_model_and_its_artefact_give_the_same_bits() {
    let folder = Folder::new();
    let method = "--rounding sum --clip mse";
    folder.run(&format!("quantize digits.onnx -o out.onnx --weights int4x1 {method} --quiet")).done();
    let outputs = |line: &str| folder.run(&format!("{line} -i input=x.npy --json")).done().json()["outputs"].clone();
    let direct = outputs(&format!("run digits.onnx --weights int4x1 --activations int4x2 {method}"));
    assert_eq!(outputs("run out.onnx"), direct);
    assert_ne!(outputs("run digits.onnx --weights int4x1 --activations int4x2"), direct);
    let inspected = folder.run("inspect out.onnx --json").done().json();
    let sparse = |layer: &serde_json::Value| number(layer, "sparse_fraction") > 0.0;
    assert!(inspected["layers"].as_array().unwrap().iter().any(sparse), "{inspected}");
}

#[test]
fn asymmetric_weights_err_less_and_run_alike_from_the_model_its_artefact_and_its_terms() {
    let folder = Folder::new();
    let layers = |report: &serde_json::Value| report["layers"].as_array().unwrap().clone();
    let quantize = |flags: &str| folder.run(&format!("quantize digits.onnx -o out.onnx {flags} --json")).done().json();
    let plain = layers(&quantize("--weights int4x2"));
    let biased = layers(&quantize("--weights int4x2 --symmetry asymmetric"));
    assert!(plain.iter().all(|layer| layer["asymmetric"] == false));
    assert!(biased.iter().filter(|layer| layer["asymmetric"] == true).count() > 4, "{biased:?}");
    for (biased, plain) in biased.iter().zip(&plain) {
        assert_eq!(biased["products"], plain["products"]);
        assert!(number(biased, "max_error") <= number(biased, "bound"), "{biased}");
        assert!(number(biased, "bound") <= number(plain, "bound"), "{biased} {plain}");
    }
    let outputs = |line: &str| folder.run(&format!("{line} -i input=x.npy --json")).done().json()["outputs"].clone();
    let direct = outputs("run digits.onnx --weights int4x2 --activations int4x2 --symmetry asymmetric");
    assert_eq!(outputs("run out.onnx"), direct);
    for workers in 2..=4 {
        assert_eq!(outputs(&format!("run out.onnx --workers {workers}")), direct, "{workers} workers");
    }
    assert!(folder.run("inspect out.onnx").done().stdout.contains("weights are asymmetric in"));
}

#[test]
fn a_plan_keeps_its_symmetry_in_its_file() {
    let folder = Folder::new();
    let quantize = |flags: &str| folder.run(&format!("quantize digits.onnx -o out.onnx {flags} --json")).done().json();
    let made = quantize("--target-bits 4 --plan plan.toml --quiet");
    let text = std::fs::read_to_string(folder.path("plan.toml")).unwrap();
    assert!(text.contains("symmetry = \"symmetric\"") && text.contains("symmetry = \"asymmetric\""), "{text}");
    let again = quantize("--plan plan.toml --quiet");
    let of = |report: &serde_json::Value| {
        let layers = report["layers"].as_array().unwrap().iter();
        layers.map(|l| (l["weights"].clone(), l["asymmetric"].clone(), l["max_error"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(of(&made), of(&again));
    std::fs::write(folder.path("bad.toml"), text.replace("\"asymmetric\"", "\"skewed\"")).unwrap();
    folder.refuses("quantize digits.onnx -o o.onnx --plan bad.toml", &["bad.toml", "line", "skewed", "symmetric"]);
}

#[test]
fn an_expanded_model_has_its_rounding_and_clip_already() {
    let folder = Folder::with_artefact("int4x1", "int4x2");
    for flag in ["--rounding sum", "--clip mse", "--symmetry asymmetric"] {
        let name = flag.split(' ').next().unwrap();
        folder.refuses(&format!("run terms.onnx -i input=x.npy {flag}"), &["terms.onnx", "expanded already", name]);
        folder.refuses(&format!("inspect terms.onnx {flag}"), &["terms.onnx", "expanded already", name]);
        folder.refuses(&format!("bench digits.onnx {flag}"), &["digits.onnx", "not expanded", name]);
    }
    folder.refuses("quantize digits.onnx -o o.onnx --rounding up", &["--rounding", "nearest or sum"]);
    folder.refuses("quantize digits.onnx -o o.onnx --clip kl", &["--clip", "none, laplace or mse"]);
    folder.refuses("quantize digits.onnx -o o.onnx --symmetry none", &["--symmetry", "symmetric or asymmetric"]);
}

#[test]
fn the_clip_of_activations_is_a_setting_of_a_file_and_of_a_run() {
    let folder = Folder::new();
    // Codes of few bits are clipped close by.
    let flags = "--weights int4x2 --activations int2x1";
    folder.run(&format!("quantize digits.onnx -o out.onnx {flags} --activation-clip laplace --quiet")).done();
    let outputs = |line: &str| folder.run(&format!("{line} -i input=x.npy --json")).done().json()["outputs"].clone();
    let clipped = outputs(&format!("run digits.onnx {flags} --activation-clip laplace"));
    let plain = outputs(&format!("run digits.onnx {flags}"));
    assert_ne!(clipped, plain);
    assert_eq!(outputs("run out.onnx"), clipped);
    assert_eq!(outputs("run out.onnx --activation-clip none"), plain);
    assert!(folder.run("inspect out.onnx").done().stdout.contains("activations are clipped in"));
    let inspected = folder.run("inspect out.onnx --json").done().json();
    assert!(inspected["layers"].as_array().unwrap().iter().all(|layer| layer["activation_clip"] == "laplace"));
    let line =
        format!("compare digits.onnx digits.onnx {flags} --activation-clip laplace --layers -i input=x.npy --json");
    let compared = folder.run(&line).done().json();
    let share = |layer: &serde_json::Value| number(layer, "activations_beyond");
    let shares: Vec<f64> = compared["layers"].as_array().unwrap().iter().map(share).collect();
    assert!(
        shares.iter().all(|share| (0.0..=0.01).contains(share)) && shares.iter().any(|&share| share > 0.0),
        "{shares:?}"
    );
    folder.refuses("run digits.onnx -i input=x.npy --activation-clip laplace", &["not expanded", "--activation-clip"]);
    folder.refuses("quantize digits.onnx -o o.onnx --activation-clip mse", &["--activation-clip", "none or laplace"]);
}
