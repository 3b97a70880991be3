//! Every kernel this CPU has against the three-loop oracle: equality of integers and of output bits.

use super::*;
use crate::kernel::{RowGrid, available};
use fpxint_reference::{
    Convolution, Pattern, adversarial_i8, adversarial_i16, adversarial_u8, convolution, gemm, sizes,
};

mod beyond;
mod coded;

/// A grid on which the value of code `u` is `u - zp`, so that any codes can be fed in as floats.
fn unit_grid(zero_point: i32, limbs: u32) -> RowGrid {
    RowGrid { scale: 1.0, inv: 1.0, inv_wide: 1.0, zero_point, code_max: (1i64 << (8 * limbs)) as i32 - 1 }
}

fn plain(channels: usize) -> Epilogue {
    let activation = Activation::NONE;
    Epilogue { scales: vec![1.0; channels], bias: vec![0.0; channels], means: vec![], shift: 0, activation }
}

fn values(codes: &[u8], zero_point: i32) -> Vec<f32> {
    codes.iter().map(|&u| (i32::from(u) - zero_point) as f32).collect()
}

fn integers(values: &[f32]) -> Vec<i64> {
    values.iter().map(|&v| v as i64).collect()
}

fn partial(kernel: &dyn Kernel, product: &Product, codes: &Codes, len: usize, threads: usize) -> Vec<i64> {
    let mut sums = vec![0; len];
    product.partial(kernel, codes, &mut sums, threads);
    sums
}

/// A residual whose largest magnitude is known, so that kernels may leave out what finds infinities.
fn added(values: &[f32]) -> Residual<'_> {
    Residual { values, largest: values.iter().fold(0.0, |largest, v| largest.max(v.abs())) }
}

#[test]
fn matrix_products_equal_the_oracle() {
    for kernel in available() {
        for pattern in Pattern::ALL {
            for m in sizes(MR) {
                for n in [1, NR - 1, NR, NR + 1, 2 * NR + 1] {
                    for k in [1, 3, 4, 5, 9, 131, 517] {
                        check_matmul(kernel, pattern, [m, n, k]);
                    }
                }
            }
        }
    }
}

fn check_matmul(kernel: &dyn Kernel, pattern: Pattern, [m, n, k]: [usize; 3]) {
    let (zero_point, shape) = (77, Shape::matmul(k, n));
    let x = values(&adversarial_u8(pattern, m * k), zero_point);
    let w = adversarial_i8(pattern, n * k);
    let want = gemm(m, n, k, &integers(&x), &w.iter().map(|&w| i64::from(w)).collect::<Vec<_>>());
    let product = Product::new(shape, Weights::OutputFirst(&[w]), &plain(n), 8).unwrap();
    let mut codes = Codes::default();
    codes.fill_rows(kernel, &x, k, &vec![unit_grid(zero_point, 1); m], 1);
    let context = format!("{} {pattern:?} {m}x{n}x{k}", kernel.name());
    assert_eq!(partial(kernel, &product, &codes, m * n, 1), want, "{context}");
    let mut y = vec![f32::NAN; m * n];
    let ranges = product.fused(kernel, &codes, None, &mut y, 1);
    assert_eq!(y, want.iter().map(|&v| v as f32).collect::<Vec<_>>(), "{context}");
    let low = y.iter().copied().fold(0.0, f32::min);
    let high = y.iter().copied().fold(0.0, f32::max);
    assert_eq!((ranges[0].low, ranges[0].high, ranges[0].is_finite()), (low, high, true), "{context}");
}

/// Geometries that between them cover merged and separate taps, groups, dilation, stride, odd widths and borders.
fn geometries() -> Vec<Convolution> {
    let base = Convolution {
        input: [9, 17],
        channels_in: 5,
        channels_out: 35,
        groups: 1,
        kernel: [3, 3],
        strides: [1, 1],
        dilations: [1, 1],
        pads: [1; 4],
    };
    vec![
        base.clone(),
        Convolution { kernel: [1, 1], pads: [0; 4], input: [4, 7], ..base.clone() },
        Convolution { kernel: [1, 1], pads: [0; 4], strides: [2, 2], ..base.clone() },
        Convolution { kernel: [7, 7], strides: [2, 2], pads: [3; 4], channels_in: 3, ..base.clone() },
        Convolution { kernel: [1, 7], pads: [0, 3, 0, 3], ..base.clone() },
        Convolution { kernel: [5, 1], pads: [2, 0, 1, 0], strides: [3, 1], ..base.clone() },
        Convolution { dilations: [2, 3], pads: [2, 3, 2, 3], ..base.clone() },
        Convolution { channels_in: 35, ..base.clone() },
        Convolution { groups: 5, channels_out: 10, ..base.clone() },
        Convolution { groups: 3, channels_in: 18, channels_out: 105, dilations: [1, 2], ..base.clone() },
        Convolution { groups: 37, channels_in: 37, channels_out: 37, ..base.clone() },
        Convolution { groups: 64, channels_in: 64, channels_out: 64, strides: [2, 2], ..base.clone() },
        Convolution { groups: 6, channels_in: 6, channels_out: 12, kernel: [2, 3], ..base.clone() },
        Convolution {
            groups: 2,
            channels_in: 2,
            channels_out: 2,
            kernel: [1, 300],
            pads: [0, 150, 0, 149],
            ..base.clone()
        },
        Convolution { input: [1, 40], kernel: [1, 5], pads: [0, 2, 0, 2], ..base },
    ]
}

fn shape_of(g: &Convolution) -> Shape {
    let Convolution { channels_in, channels_out, groups, kernel, strides, dilations, .. } = *g;
    Shape { channels_in, channels_out, groups, kernel, strides, dilations }
}

/// Limbs, or the words of a depthwise shape.
type Digits = Result<Vec<Vec<i8>>, Vec<Vec<i16>>>;

/// Digits of a shape's weights, and the integers they stand for.
fn digits(shape: &Shape, pattern: Pattern, count: usize) -> (Digits, Vec<i64>) {
    let len = shape.channels_out * shape.depth();
    let salted =
        |limb: usize| if let Pattern::Random(seed) = pattern { Pattern::Random(seed + limb as u64) } else { pattern };
    if shape.is_depthwise() {
        let words: Vec<_> = (0..count).map(|l| adversarial_i16(salted(l), len)).collect();
        let whole = (0..len).map(|i| (0..count).map(|l| i64::from(words[l][i]) << (16 * l)).sum()).collect();
        return (Err(words), whole);
    }
    let limbs: Vec<_> = (0..count).map(|l| adversarial_i8(salted(l), len)).collect();
    let whole = (0..len).map(|i| (0..count).map(|l| i64::from(limbs[l][i]) << (8 * l)).sum()).collect();
    (Ok(limbs), whole)
}

#[test]
fn convolutions_equal_the_oracle() {
    for kernel in available() {
        for g in geometries() {
            for pattern in Pattern::ALL {
                for (count, planes) in [(1, 1), (2, 1), (1, 2), (2, 2), (3, 3)] {
                    check_convolution(kernel, &g, pattern, count, planes);
                }
            }
        }
    }
}

fn check_convolution(kernel: &dyn Kernel, g: &Convolution, pattern: Pattern, count: usize, planes: u32) {
    let shape = shape_of(g);
    let (packed, w) = digits(&shape, pattern, if shape.is_depthwise() { count.min(2) } else { count });
    let weights = match &packed {
        Ok(limbs) => Weights::OutputFirst(limbs),
        Err(words) => Weights::Depthwise(words),
    };
    let bits = 8 * planes;
    let product = Product::new(shape.clone(), weights, &plain(g.channels_out), bits).unwrap();
    let (images, len) = (2, g.input[0] * g.input[1] * g.channels_in);
    let grids: Vec<_> = (0..images).map(|i| unit_grid((91 + 40 * i as i32) << (bits - 8), planes)).collect();
    let raw = adversarial_u8(pattern, images * len * planes as usize);
    let value = |i: usize| {
        let code = (0..planes as usize).fold(0i32, |code, p| code << 8 | i32::from(raw[i * planes as usize + p]));
        (code - grids[i / len].zero_point) as f32
    };
    let x: Vec<f32> = (0..images * len).map(value).collect();
    let mut codes = Codes::default();
    codes.fill_images(kernel, &x, [images, g.input[0], g.input[1], g.channels_in], g.pads, &grids, 1);
    assert_eq!(codes.output(&shape), g.output());
    let want: Vec<i64> = x.chunks(len).flat_map(|x| convolution(g, &integers(x), &w)).collect();
    let context = format!("{} {pattern:?} {count} x {planes} limbs, {g:?}", kernel.name());
    let sums = partial(kernel, &product, &codes, want.len(), 1);
    assert_eq!(sums, want, "{context}");
    let mut fused = vec![f32::NAN; want.len()];
    product.fused(kernel, &codes, None, &mut fused, 1);
    assert!(fused.iter().zip(&want).all(|(&y, &w)| y.to_bits() == (w as f32).to_bits()), "{context}");
    let mut finished = vec![f32::NAN; want.len()];
    product.finish(kernel, &codes, &sums, None, &mut finished, 1);
    assert_eq!(finished, fused, "{context}");
}

#[test]
fn deep_products_are_split_before_they_overflow() {
    for kernel in available() {
        for k in [65_792, 65_793, 140_001] {
            for pattern in [Pattern::Min, Pattern::Max] {
                // Codes all 255 against weights all -128 or 127: the largest sums there are.
                let w = adversarial_i8(pattern, k);
                let want = 255 * w.iter().map(|&w| i64::from(w)).sum::<i64>();
                let product = Product::new(Shape::matmul(k, 1), Weights::OutputFirst(&[w]), &plain(1), 8).unwrap();
                let mut codes = Codes::default();
                codes.fill_rows(kernel, &vec![255.0; k], k, &[unit_grid(0, 1)], 1);
                assert_eq!(partial(kernel, &product, &codes, 1, 1), [want], "{} {k}", kernel.name());
                let mut y = [0.0];
                product.fused(kernel, &codes, None, &mut y, 1);
                assert_eq!(y, [want as f32], "{} {k}", kernel.name());
            }
        }
    }
}

#[test]
fn sums_beyond_63_bits_are_refused() {
    let limbs = vec![vec![0i8; 1 << 20]; 3];
    let shape = Shape::matmul(1 << 20, 1);
    assert_eq!(
        Product::new(shape.clone(), Weights::OutputFirst(&limbs), &plain(1), 24).unwrap_err(),
        Error { bits: 69 }
    );
    assert!(Product::new(shape, Weights::OutputFirst(&limbs[..1]), &plain(1), 24).is_ok());
}

/// A layer with every part of the epilogue, on data that is not symmetric in anything.
fn full_layer(g: &Convolution) -> (Product, Vec<f32>, Vec<f32>) {
    let shape = shape_of(g);
    let (packed, _) = digits(&shape, Pattern::Random(5), 1);
    let weights = match &packed {
        Ok(limbs) => Weights::OutputFirst(limbs),
        Err(words) => Weights::Depthwise(words),
    };
    let channel = |c: usize| (c * 7 % 13) as f32 - 5.0;
    let epilogue = Epilogue {
        scales: (0..g.channels_out).map(|c| 1e-3 * (1.0 + channel(c).abs())).collect(),
        bias: (0..g.channels_out).map(channel).collect(),
        activation: Activation::Clamp { low: -3.0, high: 6.0 },
        ..plain(g.channels_out)
    };
    let product = Product::new(shape, weights, &epilogue, 8).unwrap();
    let [h, w] = g.output();
    let wave = |len: usize, step: f32| (0..len).map(|i| (i as f32 * step).sin() * 3.0).collect::<Vec<_>>();
    (product, wave(3 * g.input[0] * g.input[1] * g.channels_in, 0.73), wave(3 * h * w * g.channels_out, 0.31))
}

fn run_full(
    kernel: &dyn Kernel,
    g: &Convolution,
    images: std::ops::Range<usize>,
    threads: usize,
) -> (Vec<f32>, Vec<Range>) {
    let (product, x, residual) = full_layer(g);
    let len = g.input[0] * g.input[1] * g.channels_in;
    let out = g.output()[0] * g.output()[1] * g.channels_out;
    let x = &x[images.start * len..images.end * len];
    let residual = &residual[images.start * out..images.end * out];
    let grid = |r: Range| {
        let scale = (r.high - r.low) / 255.0;
        let inv = 1.0 / scale;
        let zero_point = (-r.low * inv).round_ties_even() as i32;
        RowGrid { scale, inv, inv_wide: f64::from(inv), zero_point, code_max: 255 }
    };
    let grids: Vec<_> = Codes::ranges(kernel, x, len, threads).into_iter().map(grid).collect();
    let mut codes = Codes::default();
    codes.fill_images(kernel, x, [images.len(), g.input[0], g.input[1], g.channels_in], g.pads, &grids, threads);
    let mut y = vec![f32::NAN; images.len() * out];
    let ranges = product.fused(kernel, &codes, Some(added(residual)), &mut y, threads);
    (y, ranges)
}

#[test]
fn kernels_threads_and_batches_agree_to_the_bit() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    for g in geometries() {
        let (want, want_ranges) = run_full(available()[available().len() - 1], &g, 0..3, 1);
        assert!(want.contains(&6.0) && want.contains(&-3.0), "the clamp is exercised");
        for kernel in available() {
            for threads in [1, 2, 3] {
                let (y, ranges) = pool.install(|| run_full(kernel, &g, 0..3, threads));
                assert!(y.iter().zip(&want).all(|(a, b)| a.to_bits() == b.to_bits()), "{} {g:?}", kernel.name());
                assert_eq!(ranges, want_ranges);
            }
            let split: Vec<f32> = (0..3).flat_map(|i| run_full(kernel, &g, i..i + 1, 1).0).collect();
            assert_eq!(split, want, "{} {g:?}", kernel.name());
        }
    }
}

#[test]
fn an_activation_in_the_epilogue_has_the_bits_of_one_behind_it() {
    let activations = [
        Activation::RELU,
        Activation::LeakyRelu { slope: 0.1 },
        Activation::HardSigmoid { slope: 0.2, offset: 0.5 },
        Activation::HardSwish,
        Activation::Sigmoid,
        Activation::Silu,
        Activation::Gelu,
        Activation::GeluTanh,
    ];
    for kernel in available() {
        let (m, n, k) = (MR + 1, 2 * NR + 13, 9);
        let wave = |len: usize, step: f32| (0..len).map(|i| (i as f32 * step).sin() * 2.0).collect::<Vec<_>>();
        let (x, residual) = (wave(m * k, 0.7), wave(m * n, 0.3));
        let weights = [adversarial_i8(Pattern::Random(3), n * k)];
        let epilogue = Epilogue { scales: vec![0.01; n], bias: wave(n, 0.9), ..plain(n) };
        let mut product = Product::new(Shape::matmul(k, n), Weights::OutputFirst(&weights), &epilogue, 8).unwrap();
        let grid = RowGrid { scale: 1.0 / 60.0, inv: 60.0, inv_wide: 60.0, zero_point: 128, code_max: 255 };
        let mut codes = Codes::default();
        codes.fill_rows(kernel, &x, k, &vec![grid; m], 1);
        let sums = partial(kernel, &product, &codes, m * n, 1);
        for residual in [None, Some(added(&residual))] {
            let mut none = vec![f32::NAN; m * n];
            product.set_activation(Activation::NONE);
            product.fused(kernel, &codes, residual, &mut none, 1);
            assert!(none.iter().any(|&y| y < -1.0) && none.iter().any(|&y| y > 1.0));
            for activation in activations {
                product.set_activation(activation);
                let want: Vec<f32> = none.iter().map(|&y| activation.apply(y)).collect();
                let [mut fused, mut finished] = [vec![f32::NAN; m * n], vec![f32::NAN; m * n]];
                let ranges = [
                    product.fused(kernel, &codes, residual, &mut fused, 1),
                    product.finish(kernel, &codes, &sums, residual, &mut finished, 1),
                ];
                for (y, ranges) in [fused, finished].iter().zip(ranges) {
                    let same = y.iter().zip(&want).all(|(y, w)| y.to_bits() == w.to_bits());
                    assert!(same, "{activation:?} on {}", kernel.name());
                    assert_eq!(ranges, [kernel.range(&want)]);
                }
            }
        }
    }
}

#[test]
fn a_non_finite_row_becomes_nan_alone() {
    for kernel in available() {
        let (k, n) = (6, 3);
        let weights = [vec![1i8; k * n]];
        let product = Product::new(Shape::matmul(k, n), Weights::InputFirst(&weights), &plain(n), 8).unwrap();
        let mut x = vec![1.0f32; 2 * k];
        x[1] = f32::INFINITY;
        let ranges = Codes::ranges(kernel, &x, k, 1);
        assert_eq!((ranges[0].is_finite(), ranges[1].is_finite()), (false, true));
        let grids = [RowGrid { scale: f32::NAN, inv: 0.0, ..unit_grid(0, 1) }, unit_grid(0, 1)];
        let mut codes = Codes::default();
        codes.fill_rows(kernel, &x, k, &grids, 1);
        let mut y = vec![0.0; 2 * n];
        product.fused(kernel, &codes, None, &mut y, 1);
        assert!(y[..n].iter().all(|y| y.is_nan()) && y[n..] == [6.0; 3], "{}: {y:?}", kernel.name());
    }
}

#[test]
fn rows_measured_some_at_a_time_have_the_codes_of_their_grids() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    for kernel in available() {
        for (m, k) in [(0, 5), (1, 1), (7, 20_000), (300, 517)] {
            let x: Vec<f32> = (0..m * k).map(|i| (i as f32 * 0.73).sin() * (i % 97) as f32).collect();
            let grid =
                |range: Range| RowGrid { scale: range.high, inv: 255.0 / range.high.max(1.0), ..unit_grid(9, 1) };
            let grids: Vec<_> = Codes::ranges(kernel, &x, k, 1).into_iter().map(grid).collect();
            for threads in [1, 3] {
                let (mut want, mut made) = (Codes::default(), Codes::default());
                want.fill_rows(kernel, &x, k, &grids, 1);
                pool.install(|| made.measure_rows(kernel, &x, k, grid, threads));
                assert!(made.plane(0)[..m * k] == want.plane(0)[..m * k], "{} {m} {k}", kernel.name());
                assert!((0..m).all(|row| made.grids(0, row, 1).row(0) == want.grids(0, row, 1).row(0)));
            }
        }
    }
}

#[test]
fn codes_follow_the_scalar_rounding() {
    for kernel in available() {
        for bits in [2u32, 8, 10, 12, 13, 16, 24] {
            let limbs = bits.div_ceil(8);
            let code_max = (1i32 << bits) - 1;
            let scale = 9.4f32 / code_max as f32;
            let grid = RowGrid {
                scale,
                inv: 1.0 / scale,
                inv_wide: 1.0 / f64::from(scale),
                zero_point: code_max / 3,
                code_max,
            };
            let x: Vec<f32> =
                (0..517).map(|i| (i as f32 * 0.61).cos() * 7.0).chain([0.0185, 0.0555, -0.0185]).collect();
            let mut planes: Vec<Vec<u8>> = vec![vec![0; x.len()]; limbs as usize];
            kernel.quantise(&x, &grid, &mut planes.iter_mut().map(|p| &mut p[..]).collect::<Vec<_>>());
            for (i, &x) in x.iter().enumerate() {
                let rounded = if bits <= 12 {
                    (x * grid.inv).round_ties_even() as i32
                } else {
                    (f64::from(x) * grid.inv_wide).round_ties_even() as i32
                };
                let want = (rounded + grid.zero_point).clamp(0, code_max);
                let got = planes.iter().rev().fold(0, |code, plane| code << 8 | i32::from(plane[i]));
                assert_eq!(got, want, "{} {bits} bits, {x}", kernel.name());
            }
        }
    }
}
