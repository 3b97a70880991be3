//! `fpxint eval` on small data sets, and the data sets.

use std::fs::{self, File};

use ndarray::{Array1, Array4};
use ndarray_npy::{NpzWriter, WritableElement};

use crate::models::{colour, noise};
use crate::program::{Folder, keys, number};

/// Random CIFAR-10 images.
fn pixels(count: usize) -> Vec<u8> {
    noise(count * 3072).map(|v| (v * 256.0) as u8).collect()
}

/// Label of random image `i`.
fn label(i: usize) -> u8 {
    9 - (i % 10) as u8
}

/// Writes images and labels as .npz.
pub fn archive<T: WritableElement>(folder: &Folder, name: &str, pixels: &Array4<u8>, labels: &Array1<T>) {
    let mut archive = NpzWriter::new(File::create(folder.path(name)).unwrap());
    archive.add_array("x", pixels).unwrap();
    archive.add_array("y", labels).unwrap();
    archive.finish().unwrap();
}

/// Writes `count` random CIFAR-10 images as .npz.
pub fn cifar(folder: &Folder, name: &str, count: usize) {
    let pixels = Array4::from_shape_vec((count, 32, 32, 3), pixels(count)).unwrap();
    archive(folder, name, &pixels, &(0..count).map(|i| i64::from(label(i))).collect());
}

/// Writes `count` square images with the labels 0, 1, .. as an ImageNet folder.
pub fn imagenet(folder: &Folder, name: &str, count: u32, size: u32) {
    fs::create_dir_all(folder.path(name).join("val")).unwrap();
    let mut labels = "file,class_index\n".to_owned();
    for i in 0..count {
        let pixel = |x: u32, y: u32| image::Rgb([(x * 7 + i * 40) as u8, (y * 5) as u8, (x * y + 3 * i) as u8]);
        image::RgbImage::from_fn(size, size, pixel).save(folder.path(&format!("{name}/val/{i}.png"))).unwrap();
        labels += &format!("{i}.png,{i}\n");
    }
    folder.write(&format!("{name}/labels.csv"), labels);
}

fn folder() -> Folder {
    let folder = Folder::empty();
    folder.model("model.onnx", &colour(-1, 32, 10));
    cifar(&folder, "set.npz", 20);
    folder
}

const EVAL: &str = "eval model.onnx --task cifar10 --data set.npz --json";

#[test]
fn accuracy_and_agreement_are_reported() {
    let folder = folder();
    let fp32 = folder.run(EVAL).done().json();
    assert_eq!(keys(&fp32), ["activations", "count", "metrics", "task", "weights"]);
    assert_eq!((fp32["task"].as_str(), fp32["count"].as_u64()), (Some("cifar10"), Some(20)));
    assert_eq!((fp32["weights"].as_str(), fp32["activations"].as_str()), (Some("fp32"), Some("fp32")));
    assert_eq!(keys(&fp32["metrics"]), ["top1", "top5"]);

    let line = format!("{EVAL} --weights int8x3 --activations int8x2 --reference model.onnx");
    let report = folder.run(&line).done().json();
    assert_eq!(keys(&report["reference"]), ["agreement", "metrics", "outputs"]);
    assert_eq!(report["reference"]["metrics"], fp32["metrics"]);
    // So precise that nothing changes.
    assert_eq!((&report["metrics"], number(&report["reference"], "agreement")), (&fp32["metrics"], 1.0));
    assert_eq!((report["weights"].as_str(), report["activations"].as_str()), (Some("int8x3"), Some("int8x2")));

    let table = folder.run(&line.replace(" --json", "")).done();
    assert!(table.stdout.contains("20 images") && table.stdout.contains("100.00 %"), "{table:?}");
}

#[test]
fn the_labels_decide_the_accuracy() {
    let folder = folder();
    let pixels = Array4::from_shape_vec((20, 32, 32, 3), pixels(20)).unwrap();
    let top1 = |label: u8| {
        archive(&folder, "same.npz", &pixels, &Array1::from_elem(20, label));
        let report = folder.run(&EVAL.replace("set.npz", "same.npz")).done().json();
        number(&report["metrics"], "top1")
    };
    let all: f64 = (0..10).map(top1).sum();
    assert!((all - 1.0).abs() < 1e-9, "every image is of one class, but the accuracies sum to {all}");
}

#[test]
fn a_limit_takes_the_first_images() {
    let folder = folder();
    let report = folder.run(&format!("{EVAL} --limit 5")).done().json();
    assert_eq!(report["count"].as_u64(), Some(5));
    cifar(&folder, "five.npz", 5);
    let five = folder.run(&EVAL.replace("set.npz", "five.npz")).done().json();
    assert_eq!(report, five);
}

#[test]
fn a_model_of_one_image_at_a_time_gives_the_same() {
    let folder = folder();
    folder.model("single.onnx", &colour(1, 32, 10));
    for precisions in ["", "--weights int4x2 --activations int4x2"] {
        let batches = folder.run(&format!("{EVAL} {precisions}")).done().json();
        let single = format!("{} {precisions}", EVAL.replace("model.onnx", "single.onnx"));
        assert_eq!(folder.run(&single).done().json(), batches);
    }
}

#[test]
fn a_model_of_fixed_batches_gives_the_same() {
    let folder = folder();
    // Neither divides the 20 images, and one is more than they are.
    for batch in [7, 32] {
        folder.model("fixed.onnx", &colour(batch, 32, 10));
        for precisions in ["", "--weights int4x2 --activations int4x2"] {
            let line = format!("{EVAL} {precisions} --reference model.onnx");
            // The host's sums in FP32 depend on the batch in their last bits.
            let report = |line: &str| {
                let mut report = folder.run(line).done().json();
                report["reference"].as_object_mut().unwrap().remove("outputs").unwrap();
                report
            };
            let open = report(&line);
            let fixed = report(&line.replace("eval model", "eval fixed"));
            let by_fixed = report(&line.replace("--reference model", "--reference fixed"));
            assert_eq!((&fixed, &by_fixed), (&open, &open), "batches of {batch}, {precisions}");
        }
    }
}

#[test]
fn binary_batches_are_the_same_as_archives() {
    let folder = folder();
    let mut bytes = Vec::new();
    for (i, image) in pixels(20).chunks(3072).enumerate() {
        bytes.push(label(i));
        bytes.extend((0..3).flat_map(|channel| image.iter().skip(channel).step_by(3)));
    }
    fs::create_dir(folder.path("cifar")).unwrap();
    folder.write("cifar/test_batch.bin", bytes);
    let binary = folder.run(&EVAL.replace("set.npz", "cifar")).done().json();
    assert_eq!(binary, folder.run(EVAL).done().json());
}

#[test]
fn images_are_resized_and_cropped() {
    let folder = folder();
    imagenet(&folder, "set", 4, 50);
    for flags in ["", "--resize 40", "--crop 32 --preset tf", "--resize 32 --limit 3"] {
        let line = format!("eval model.onnx --task imagenet --data set --json {flags} --reference model.onnx");
        let report = folder.run(&line).done().json();
        let count = if flags.contains("--limit") { 3 } else { 4 };
        assert_eq!((report["task"].as_str(), report["count"].as_u64()), (Some("imagenet"), Some(count)));
        assert_eq!(number(&report["reference"], "agreement"), 1.0);
    }
}

#[test]
fn a_folder_a_class_is_the_same_as_a_list() {
    let folder = folder();
    imagenet(&folder, "set", 4, 32);
    let line = "eval model.onnx --task imagenet --json --data set";
    let listed = folder.run(line).done().json();
    let synsets: String = (0..10).map(|i| format!("n{i:08} class {i}, or so\n")).collect();
    folder.write("set/synsets.txt", synsets);
    assert_eq!(folder.run(line).done().json(), listed, "labels.csv decides");
    fs::remove_file(folder.path("set/labels.csv")).unwrap();
    for i in 0..4 {
        fs::create_dir(folder.path(&format!("set/val/n{i:08}"))).unwrap();
        fs::rename(folder.path(&format!("set/val/{i}.png")), folder.path(&format!("set/val/n{i:08}/{i}.png"))).unwrap();
    }
    assert_eq!(folder.run(line).done().json(), listed);
    fs::rename(folder.path("set/synsets.txt"), folder.path("set/val/synsets.txt")).unwrap();
    folder.refuses(line, &["set/val", "4 folders, not 1000", "synsets.txt"]);
    assert_eq!(folder.run(&line.replace("set", "set/val")).done().json(), listed);
}
