//! Layers that end in a clamp: their outputs may leave them as codes, and no bit depends on whether they do.

use ndarray::{ArrayD, Axis, concatenate};

use crate::build::{int, ints, model, node, tensor, wave};
use crate::{array, bits, feed, load, options};

/// Layers that end in clamps to `[0, 6]`, read once, twice alike, and twice with different borders, of images of `size` pixels a
/// side.
fn source(size: i64) -> fpxint_onnx::Model {
    let weights =
        |name: &str, dims: &[i64]| tensor(name, dims, &wave(dims.iter().product::<i64>() as usize, 0.71, 0.6));
    let (pads, clip) = (ints("pads", &[1, 1, 1, 1]), |x: &str, y: &str| node("Clip", &[x, "low", "high"], y, vec![]));
    model(
        &[-1, 3, size, size],
        vec![
            node("Conv", &["x", "w1"], "a", vec![pads.clone()]),
            clip("a", "once"),
            node("Conv", &["once", "w2"], "b", vec![pads.clone(), int("group", 40), ints("strides", &[2, 2])]),
            clip("b", "alike"),
            node("Conv", &["alike", "w3"], "c", vec![]),
            node("Conv", &["alike", "w3"], "d", vec![]),
            node("Add", &["c", "d"], "sum", vec![]),
            clip("sum", "residual"),
            node("Conv", &["residual", "w4"], "e", vec![]),
            clip("e", "unlike"),
            node("Conv", &["unlike", "w5"], "f", vec![]),
            node("Conv", &["unlike", "w6"], "g", vec![pads]),
            node("Add", &["f", "g"], "y", vec![]),
        ],
        vec![
            weights("w1", &[40, 3, 3, 3]),
            weights("w2", &[40, 1, 3, 3]),
            weights("w3", &[35, 40, 1, 1]),
            weights("w4", &[16, 35, 1, 1]),
            weights("w5", &[5, 16, 1, 1]),
            weights("w6", &[5, 16, 3, 3]),
            tensor("low", &[], &[0.0]),
            tensor("high", &[], &[6.0]),
        ],
    )
}

/// An image whose values in the first layers meet both bounds, and one whose values stay small.
fn images(size: usize) -> [ArrayD<f32>; 2] {
    let shape = [1, 3, size, size];
    [array(&shape, 0.37) * 4.0, array(&shape, 0.53) * 0.01]
}

#[test]
fn outputs_do_not_depend_on_how_values_pass() {
    let [large, small] = images(21);
    let both = concatenate(Axis(0), &[large.view(), small.view(), large.view()]).unwrap();
    let mut exposed = source(21);
    let names = ["once", "alike", "residual", "unlike"].map(str::to_owned);
    exposed.expose(&names).unwrap();
    for (weights, activations) in [("int4x2", "int4x2"), ("int4x3", "int4x1"), ("int4x2", "int4x3")] {
        for kernel in fpxint_kernels::available() {
            for threads in [1, 2] {
                let kernel = Some(kernel.name().to_owned());
                let options = fpxint_runtime::Options { kernel, threads, ..options(weights, activations) };
                let (model, whole) = (load(&source(21), &options), load(&exposed, &options));
                // Met, missed, not tried, met in vain, tried again.
                for x in [&large, &large, &small, &small, &large, &both, &large] {
                    let x = feed("x", x.clone());
                    let want = whole.run(&x).unwrap()[..1].to_vec();
                    assert_eq!(bits(&model.run(&x).unwrap()), bits(&want), "{weights} by {activations}");
                }
            }
        }
    }
    let met = load(&exposed, &options("int4x2", "int4x2")).run(&feed("x", large)).unwrap();
    let largest = |i: usize| met[i].1.to_f32().iter().fold(0f32, |most, &v| most.max(v));
    assert_eq!([largest(1), largest(2)], [6.0, 6.0], "the large image meets its bounds");
}

#[test]
fn values_that_leave_as_codes_are_not_kept_in_floats() {
    let most = |x: &ArrayD<f32>| {
        let (model, x) = (load(&source(128), &options("int4x2", "int4x2")), feed("x", x.clone()));
        allocation_counter::measure(|| drop(model.run(&x).unwrap())).bytes_max
    };
    let ([large, small], value) = (images(128), 4 * 40 * 128 * 128);
    assert!(most(&large) + value / 2 < most(&small), "{} and {}", most(&large), most(&small));
}

#[test]
fn a_border_beyond_all_memory_is_an_error_of_the_layer_that_asks_for_it() {
    let constants = || {
        let ones = |name: &str, dims: &[i64]| tensor(name, dims, &vec![1.0; dims.iter().product::<i64>() as usize]);
        vec![
            ones("w1", &[4, 3, 1, 1]),
            ones("w2", &[4, 4, 1, 1]),
            tensor("low", &[], &[0.0]),
            tensor("high", &[], &[1.0]),
        ]
    };
    let nodes = vec![
        node("Conv", &["x", "w1"], "a", vec![]),
        node("Clip", &["a", "low", "high"], "c", vec![]),
        node("Conv", &["c", "w2"], "y", vec![ints("pads", &[65_535; 4])]),
    ];
    let source = model(&[-1, 3, 5, 5], nodes, constants());
    let loaded = fpxint_runtime::Model::load(&source, &options("int4x2", "int4x2"), &|_, _| {});
    let error = loaded.and_then(|model| model.run(&feed("x", array(&[1, 3, 5, 5], 0.4)))).unwrap_err().to_string();
    // By the memory there is, or where nothing says how much, by what it allocates.
    assert!(error.contains("y_node") && (error.contains(" GB at a time") || error.contains("elements")), "{error}");
}
