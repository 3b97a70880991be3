//! Memory in steady state: a run allocates nothing whose size follows the data.

use crate::build::{int, ints, model, node, tensor, wave};
use crate::{array, feed, load, options};

/// An image network of which every part that grows with the image is ours, for images of `size` pixels a side.
pub(crate) fn source(size: i64) -> fpxint_onnx::Model {
    let weights =
        |name: &str, dims: &[i64]| tensor(name, dims, &wave(dims.iter().product::<i64>() as usize, 0.71, 0.4));
    let (pads, three, two) = (ints("pads", &[1, 1, 1, 1]), ints("kernel_shape", &[3, 3]), ints("strides", &[2, 2]));
    model(
        &[-1, 3, size, size],
        vec![
            node("Conv", &["x", "w1"], "a", vec![pads.clone()]),
            node("Relu", &["a"], "r", vec![]),
            node("Conv", &["r", "w2"], "d", vec![pads.clone(), int("group", 32)]),
            node("Conv", &["d", "w3"], "p", vec![]),
            node("Add", &["p", "r"], "s", vec![]),
            node("Relu", &["s"], "t", vec![]),
            node("MaxPool", &["t"], "m", vec![three.clone(), two.clone(), pads.clone()]),
            node("AveragePool", &["t"], "v", vec![three, two, pads]),
            node("Concat", &["m", "v"], "c", vec![int("axis", 1)]),
            node("GlobalAveragePool", &["c"], "g", vec![]),
            node("Flatten", &["g"], "f", vec![]),
            node("Gemm", &["f", "w4"], "y", vec![]),
        ],
        vec![
            weights("w1", &[32, 3, 3, 3]),
            weights("w2", &[32, 1, 3, 3]),
            weights("w3", &[32, 32, 1, 1]),
            weights("w4", &[64, 10]),
        ],
    )
}

/// Bytes that a run on a batch allocates once the model has run a few times.
fn steady(batch: usize, size: usize, activations: &str) -> u64 {
    let model = load(&source(size as i64), &options("int4x2", activations));
    let x = feed("x", array(&[batch, 3, size, size], 0.37));
    for _ in 0..4 {
        model.run(&x).unwrap();
    }
    allocation_counter::measure(|| drop(model.run(&x).unwrap())).bytes_total
}

#[test]
fn a_run_allocates_nothing_of_the_size_of_its_data() {
    for activations in ["int4x2", "int4x3"] {
        let (small, large) = (steady(1, 32, activations), steady(1, 128, activations));
        // A value of the larger images has up to 2 MB.
        assert!(small < 64 << 10, "{activations}: {small} bytes");
        assert!(large < small + (8 << 10), "{activations}: {large} bytes, and {small} for a sixteenth of the pixels");
        let batch = steady(5, 128, activations);
        assert!(batch < 5 * (small + (8 << 10)), "{activations}: {batch} bytes in five parts");
    }
}
