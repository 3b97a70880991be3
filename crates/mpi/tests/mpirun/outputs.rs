//! Digests of outputs, and what the processes hold.

use crate::{alone, asset, digits, json, npy, ranks};

const PARALLEL: [&str; 3] = ["terms", "channels", "batch"];

#[test]
fn any_number_of_processes_gives_the_outputs_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("x.npy");
    npy(&input, &[5, 1, 8, 8], |i| (i as f32 * 0.37).sin() * 8.0 + 8.0);
    let model = digits();
    for precisions in ["--weights int4x3 --activations int4x4", "--weights int4x2 --activations int4x2"] {
        let line = format!("run {} -i input={} {precisions} --json --quiet", model.display(), input.display());
        let want = &json(&alone(&line))["outputs"];
        for count in [1, 2, 3, 4, 8] {
            for parallel in PARALLEL {
                let got = json(&ranks(count, &format!("{line} --parallel {parallel}")));
                assert_eq!(&got["outputs"], want, "{parallel} over {count}, {precisions}");
                assert_eq!(got["group"]["workers"], count);
            }
        }
        for tiles in [2, 5] {
            let got = json(&ranks(2, &format!("{line} --overlap {tiles}")));
            assert_eq!(&got["outputs"], want, "{tiles} tiles");
        }
    }
}

#[test]
fn a_trained_network_gives_the_same_and_every_rank_holds_its_share() {
    let Some(model) = asset("imagenet/mobilenet_v1_0.75.onnx") else { return };
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("x.npy");
    npy(&input, &[2, 3, 224, 224], |i| (i as f32 * 0.0137).sin());
    let line = format!(
        "run {} -i input={} --weights int4x4 --activations int4x2 --json --quiet",
        model.display(),
        input.display()
    );
    let want = &json(&alone(&line))["outputs"];
    for parallel in PARALLEL {
        let got = json(&ranks(4, &format!("{line} --parallel {parallel} --overlap 2")));
        assert_eq!(&got["outputs"], want, "{parallel}");
        if parallel == "terms" {
            let held = got["group"]["held"].as_array().unwrap();
            assert_eq!(held.len(), 4);
            for held in held {
                let share = held["terms"].as_f64().unwrap() / held["all_terms"].as_f64().unwrap();
                assert!(share > 0.2 && share <= 0.275, "{share} of the terms: {held}");
            }
        }
    }
}

#[test]
fn processes_evaluate_together() {
    let (Some(model), Some(data)) = (asset("cifar10/resnet20.onnx"), asset("cifar10/test1000.npz")) else { return };
    let line = format!(
        "eval {} --task cifar10 --data {} --limit 40 --weights int4x2 --activations int4x2 --json --quiet",
        model.display(),
        data.display()
    );
    let want = json(&alone(&line));
    for parallel in PARALLEL {
        assert_eq!(json(&ranks(2, &format!("{line} --parallel {parallel}"))), want, "{parallel}");
    }
}

#[test]
fn bench_tells_who_is_idle() {
    let line = format!("bench {} --weights int4x1 --activations int4x1 --runs 2 --json", digits().display());
    let output = ranks(3, &line);
    let report = json(&output);
    assert_eq!((&report["group"]["idle"], &report["group"]["parallel"]), (&2.into(), &"terms".into()));
    assert!(report["latency_ms"]["median"].as_f64().unwrap() > 0.0);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("2 of the workers are idle"), "{stderr}");
}
