//! Models that are split: over workers within the process, and into files of basis models.

use fpxint::{Clip, Granularity, Rounding, Settings, Weight, expand_layer};
use fpxint_onnx::{Limits, read};
use serde_json::Value;

use crate::program::{DONE, Folder, keys, number};

fn digests(report: &Value) -> &Value {
    &report["outputs"]
}

#[test]
fn any_number_of_workers_gives_the_same_outputs() {
    let folder = Folder::with_artefact("int4x3", "int4x4");
    for model in ["terms.onnx", "digits.onnx --weights int4x3 --activations int4x4"] {
        let line = format!("run {model} -i input=x.npy --json --quiet");
        let alone = folder.run(&line).done().json();
        assert!(alone.get("group").is_none());
        for workers in [1, 2, 3, 4, 8, 16] {
            for threads in [1, 2] {
                let shared = folder.run(&format!("{line} --workers {workers} --threads {threads}")).done().json();
                assert_eq!(digests(&shared), digests(&alone), "{workers} workers");
                let group = &shared["group"];
                assert_eq!((&group["parallel"], &group["workers"]), (&"crew".into(), &workers.into()));
                assert_eq!(group["idle"], u32::saturating_sub(workers, 12));
                assert!(group.get("missing").is_none());
            }
        }
    }
    let idle = folder.run("bench terms.onnx --runs 1 --workers 14");
    assert!(idle.code == DONE && idle.stderr.contains("2 of the workers are idle"), "{idle:?}");
    assert!(idle.stdout.contains("crew: 14 workers, 2 of them idle"), "{idle:?}");
}

#[test]
fn a_lost_worker_is_missed_by_name() {
    let folder = Folder::with_artefact("int4x4", "int4x2");
    let line = "run terms.onnx -i input=x.npy --json --quiet";
    let missing = folder.run(&format!("{line} --workers 4 --allow-missing --lose 3 --lose 2")).done().json();
    let prefix = folder.run(&format!("{line} --weight-terms 2")).done().json();
    assert_eq!(digests(&missing), digests(&prefix), "without the last terms it is the prefix");
    let group = &missing["group"]["missing"];
    assert_eq!(group["workers"], serde_json::json!([2, 3]));
    let layers = group["layers"].as_array().unwrap();
    let series = read(&folder.path("terms.onnx"), &Limits::default()).unwrap();
    assert_eq!(layers.len(), series.layers().len());
    for (index, layer) in layers.iter().enumerate() {
        assert_eq!(keys(layer), ["lost", "name", "output_bound", "weight_bound"]);
        assert_eq!(layer["lost"], serde_json::json!(["W_3 A_1..2", "W_4 A_1..2"]));
        let Weight::Series(series) = series.layer(index).unwrap().weight else { panic!("an artefact has series") };
        let bound = series.worst_bound(2);
        assert!((number(layer, "weight_bound") / bound - 1.0).abs() < 1e-9, "{layer} and {bound}");
        assert!(number(layer, "output_bound") > 0.0);
    }
    let table = folder.run("run terms.onnx -i input=x.npy --workers 4 --allow-missing --lose 3").done().stdout;
    assert!(table.contains("without worker 3") && table.contains("W_4 A_1..2"), "{table}");
    let first = "--workers 4 --allow-missing --lose 0";
    folder.refuses(&format!("run terms.onnx -i input=x.npy {first}"), &["worker 0", "first term of layer"]);
    folder.refuses("run terms.onnx -i input=x.npy --workers 4 --lose 3", &["worker 3", "not allowed"]);
    folder.refuses("run terms.onnx -i input=x.npy --workers 4 --allow-missing --lose 4", &["worker 4", "there are 4"]);
    folder.refuses("run terms.onnx -i input=x.npy --allow-missing", &["--workers"]);
    folder.refuses("run digits.onnx -i input=x.npy --workers 2", &["digits.onnx", "not expanded"]);
}

#[test]
fn the_files_of_all_terms_add_up_to_the_series() {
    for (weights, clip, terms) in [("int4x2", "none", 2), ("int2x3", "mse", 3), ("int8x2", "none", 2)] {
        let folder = Folder::new();
        for term in 1..=terms {
            let line = format!(
                "basis digits.onnx --weight-term {term} -o w{term}.onnx --weights {weights} --clip {clip} --json"
            );
            let report = folder.run(&line).done().json();
            assert_eq!(keys(&report), ["bytes", "empty", "layers", "weight_term", "weight_terms"]);
            assert_eq!((&report["weight_terms"], &report["empty"]), (&terms.into(), &0.into()));
            assert_eq!(report["bytes"], folder.read(&format!("w{term}.onnx")).len());
        }
        let open = |name: &str| read(&folder.path(name), &Limits::default()).unwrap();
        let source = open("digits.onnx");
        let settings = Settings {
            weights: weights.parse().unwrap(),
            activations: weights.parse().unwrap(),
            granularity: Granularity::Channel,
            rounding: Rounding::Nearest,
            clip: Clip::named(clip).unwrap(),
            asymmetric: false,
            activation_clip: fpxint::ActivationClip::None,
        };
        let files: Vec<_> = (1..=terms).map(|term| open(&format!("w{term}.onnx"))).collect();
        for index in 0..source.layers().len() {
            let series = expand_layer(&source.layer(index).unwrap(), &settings).unwrap();
            let want: Vec<f64> = series.weight.values("w", terms).unwrap().collect();
            let (mut sum, mut bias) = (vec![0f64; want.len()], vec![0f32; series.geometry.channels_out()]);
            for file in &files {
                let layer = file.layer(index).unwrap();
                assert_eq!((&layer.name, &layer.geometry), (&series.name, &series.geometry));
                let Weight::Float(values) = layer.weight else { panic!("the weights are FP32") };
                assert!(values.iter().any(|&v| v != 0.0));
                sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += f64::from(value));
                bias.iter_mut().zip(layer.bias.into_iter().flatten()).for_each(|(bias, value)| *bias += value);
            }
            assert_eq!(sum, want, "{weights}");
            assert_eq!(bias, series.bias.unwrap_or_else(|| vec![0.0; bias.len()]));
        }
        // It runs like any model.
        folder.run("run w1.onnx -i input=x.npy").done();
        folder.refuses(
            &format!("basis digits.onnx --weight-term {} -o no.onnx --weights {weights}", terms + 1),
            &["weight term"],
        );
    }
    let folder = Folder::with_artefact("int4x2", "int4x2");
    folder.run("basis terms.onnx --weight-term 2 -o w.onnx").done();
    folder.refuses("basis terms.onnx --weight-term 2 -o no.onnx --weights int4x2", &["expanded already"]);
}

#[test]
fn splits_are_predicted_from_what_is_measured() {
    let folder = Folder::with_artefact("int4x3", "int4x4");
    let line = "plan terms.onnx --workers 6 --batch 8 --runs 2 --latency-us 3 --bandwidth-gbs 2 --plot p.svg";
    let report = folder.run(&format!("{line} --json")).done().json();
    let splits = report["splits"].as_array().unwrap();
    assert_eq!(splits.len(), 12);
    for (i, split) in splits.iter().enumerate() {
        assert_eq!(split["split"], ["terms", "channels", "batch"][i / 4]);
        assert_eq!(split["workers"], [1, 2, 4, 6][i % 4]);
        let total = number(split, "compute_ms") + number(split, "communication_ms");
        assert!((number(split, "total_ms") - total).abs() < 1e-9 && number(split, "compute_ms") > 0.0);
        assert_eq!(i % 4 == 0, number(split, "communication_ms") == 0.0);
    }
    let of = |name: &str, workers: u32| splits.iter().find(|s| s["split"] == name && s["workers"] == workers).unwrap();
    let layers = read(&folder.path("terms.onnx"), &Limits::default()).unwrap().layers().len();
    assert_eq!(of("terms", 2)["exchanges"], layers);
    // Sums of 64 bits against floats.
    assert!(number(of("terms", 2), "traffic_mb") > 1.5 * number(of("channels", 2), "traffic_mb"));
    assert_eq!(of("batch", 2)["exchanges"], 1);
    let plot = String::from_utf8(folder.read("p.svg")).unwrap();
    assert!(plot.starts_with("<svg") && plot.matches("<polyline").count() == 3, "{plot}");
    let table = folder.run(line).done().stdout;
    assert!(table.contains("speed-up") && table.lines().count() == 15, "{table}");
    folder.refuses("plan terms.onnx --workers 2 --bandwidth-gbs 0", &["bandwidth"]);
    folder.refuses("plan terms.onnx --workers 2 --weights int4x2", &["expanded already"]);
}
