//! Every kernel this CPU has against the definition: equality of bits.

use fpxint_reference::{Pooled, average_pool, max_pool};

use super::*;
use crate::available;

/// Values of many magnitudes and both signs, with zeros of both among them.
fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * 1.7).sin() * [1.0, 1e-3, 300.0, 0.0][i * 7 % 4]).collect()
}

fn geometries() -> Vec<Pooled> {
    let base = Pooled {
        input: [8, 5],
        channels: 6,
        kernel: [3, 3],
        strides: [2, 2],
        dilations: [1, 1],
        pads: [1; 4],
        output: [4, 3],
    };
    vec![
        base.clone(),
        Pooled { strides: [1, 1], output: [8, 5], ..base.clone() },
        Pooled { pads: [0; 4], output: [3, 2], ..base.clone() },
        // Windows that reach past the padding.
        Pooled { kernel: [2, 2], pads: [0, 0, 0, 0], output: [4, 3], ..base.clone() },
        Pooled { kernel: [4, 4], strides: [3, 3], pads: [2, 1, 0, 1], output: [4, 3], ..base.clone() },
        Pooled { dilations: [2, 1], pads: [2, 0, 2, 0], output: [4, 2], ..base.clone() },
        // Windows without values.
        Pooled { input: [1, 5], kernel: [2, 2], dilations: [4, 1], pads: [2, 0, 1, 0], output: [1, 2], ..base.clone() },
        Pooled { kernel: [1, 2], strides: [1, 3], pads: [0; 4], output: [8, 2], ..base.clone() },
        Pooled { input: [1, 40], kernel: [1, 5], strides: [1, 2], pads: [0, 2, 0, 2], output: [1, 20], ..base.clone() },
        Pooled { kernel: [8, 5], pads: [0; 4], output: [1, 1], ..base },
    ]
}

fn pool_of(g: &Pooled, pooling: Pooling) -> Pool {
    let Pooled { kernel, strides, dilations, pads, output, .. } = *g;
    Pool { pooling, kernel, strides, dilations, pads, output }
}

/// Equal bits, of NaN only that it is one.
fn assert_same(got: &[f32], want: &[f32], context: &str) {
    assert_eq!(got.len(), want.len(), "{context}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!(
            got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()),
            "{got} for {want} at {i}, {context}"
        );
    }
}

/// The ranges of `y`, image by image, by comparison.
fn assert_ranges(ranges: &[Range], y: &[f32], context: &str) {
    for (range, y) in ranges.iter().zip(y.chunks(y.len() / ranges.len())) {
        let (low, high) = y.iter().fold((0f32, 0f32), |(low, high), &v| (low.min(v), high.max(v)));
        let finite = y.iter().all(|v| v.is_finite());
        assert_eq!((range.low, range.high, range.is_finite()), (low, high, finite), "{context}");
    }
}

#[test]
fn pools_equal_the_definition() {
    for kernel in available() {
        for base in geometries() {
            for channels in [1, 6, 8, 15, 32, 35, 77] {
                let g = Pooled { channels, ..base.clone() };
                let (image, made) = (g.input[0] * g.input[1] * channels, g.output[0] * g.output[1] * channels);
                let mut x = values(2 * image);
                for finite in [true, false] {
                    if !finite {
                        (x[image / 2], x[image - 1]) = (f32::NAN, f32::INFINITY);
                    }
                    for pooling in [
                        Pooling::Max,
                        Pooling::Average { count_padding: false },
                        Pooling::Average { count_padding: true },
                    ] {
                        let of = |x: &[f32]| match pooling {
                            Pooling::Max => max_pool(&g, x),
                            Pooling::Average { count_padding } => average_pool(&g, count_padding, x),
                        };
                        let want: Vec<f32> = x.chunks(image).flat_map(of).collect();
                        for threads in [1, 3] {
                            let mut y = vec![f32::NAN; 2 * made];
                            let shape = [2, g.input[0], g.input[1], channels];
                            let ranges = pool_of(&g, pooling).run(kernel, &x, shape, finite, &mut y, threads);
                            let context = format!("{} {pooling:?} {g:?}, {threads} threads", kernel.name());
                            assert_same(&y, &want, &context);
                            assert_ranges(&ranges, &y, &context);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_global_average_is_the_average_of_one_window() {
    for kernel in available() {
        for pixels in [1, 2, 3, 4, 5, 49, 64] {
            for channels in [1, 9, 32, 70] {
                let x = values(3 * pixels * channels);
                let g = Pooled {
                    input: [1, pixels],
                    channels,
                    kernel: [1, pixels],
                    strides: [1, 1],
                    dilations: [1, 1],
                    pads: [0; 4],
                    output: [1, 1],
                };
                let want: Vec<f32> = x.chunks(pixels * channels).flat_map(|x| average_pool(&g, false, x)).collect();
                for threads in [1, 2] {
                    let mut y = vec![f32::NAN; 3 * channels];
                    let ranges = global_average(kernel, &x, [3, pixels, channels], &mut y, threads);
                    let context = format!("{} {pixels} x {channels}", kernel.name());
                    assert_same(&y, &want, &context);
                    assert_ranges(&ranges, &y, &context);
                }
            }
        }
    }
}

#[test]
fn extreme_geometry_neither_overflows_nor_reads_outside() {
    let far = usize::MAX / 2;
    let pool = Pool {
        pooling: Pooling::Average { count_padding: true },
        kernel: [far, 2],
        strides: [far, far],
        dilations: [far, usize::MAX],
        pads: [1, 0, far, usize::MAX],
        output: [2, 3],
    };
    for pooling in [Pooling::Max, pool.pooling] {
        let mut y = vec![f32::NAN; 2 * 3 * 5];
        let pool = Pool { pooling, ..pool.clone() };
        pool.run(available()[0], &values(4 * 5), [1, 2, 2, 5], true, &mut y, 1);
        assert!(y.iter().all(|v| !v.is_nan()));
    }
    let mut none: [f32; 0] = [];
    assert_eq!(pool.run(available()[0], &[], [0, 2, 2, 5], true, &mut none, 1), []);
}
