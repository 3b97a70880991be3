//! Products of clipped activations and of weights with means against the oracle: the sums of the whole integers, on every kernel.

use super::*;
use crate::Clipping;

/// Clips every row and image to the codes of a grid of step 1, whatever lies beyond.
struct ToCodes {
    zero_point: i32,
    planes: u32,
}

impl Clipping for ToCodes {
    fn grid(&self, _: Range) -> RowGrid {
        unit_grid(self.zero_point, self.planes)
    }

    fn unit(&self, _: Range) -> f32 {
        1.0
    }

    fn clipped(&self, range: Range, _: u64, _: usize, _: u32) -> Option<RowGrid> {
        Some(self.grid(range))
    }

    fn most(&self, count: usize) -> usize {
        count
    }
}

/// Whole numbers, of which one in `rare` is beyond the codes of as many planes, on either side.
fn integers_beyond(pattern: Pattern, len: usize, rare: usize, clipping: &ToCodes) -> Vec<f32> {
    let bits = 8 * clipping.planes;
    let value = |(i, code): (usize, u8)| {
        let inner = (i32::from(code) << (bits - 8)) - clipping.zero_point;
        let far = [3 << bits, -(5 << bits), (1 << bits) + 1, -(1 << bits)][i / rare % 4];
        (if i % rare == rare / 2 && rare < len { inner + far } else { inner }) as f32
    };
    adversarial_u8(pattern, len).into_iter().enumerate().map(value).collect()
}

#[test]
fn matrix_products_include_what_lies_beyond() {
    for kernel in available() {
        for pattern in Pattern::ALL {
            for [m, n, k] in [[1, 1, 1], [MR + 1, NR + 1, 131], [5 * MR + 3, 2 * NR + 1, 9], [3, NR, 517]] {
                for (rare, planes) in [(2, 1), (40, 1), (3, 2)] {
                    let clipping = ToCodes { zero_point: 77 << (8 * (planes - 1)), planes };
                    let x = integers_beyond(pattern, m * k, rare, &clipping);
                    let w = adversarial_i8(pattern, n * k);
                    let want = gemm(m, n, k, &integers(&x), &w.iter().map(|&w| i64::from(w)).collect::<Vec<_>>());
                    let (shape, weights) = (Shape::matmul(k, n), [w]);
                    let product = Product::new(shape, Weights::OutputFirst(&weights), &plain(n), 8 * planes + 7);
                    let (product, mut codes) = (product.unwrap(), Codes::default());
                    codes.clip_rows(kernel, &x, k, None, &clipping, 1);
                    assert!(codes.beyond().len() >= m * k / rare, "something lies beyond");
                    check(kernel, &product, &codes, &want, &format!("{pattern:?} {m}x{n}x{k} {rare} {planes}"));
                }
            }
        }
    }
}

/// Sums, and outputs of both ways, against the sums that are wanted.
fn check(kernel: &dyn Kernel, product: &Product, codes: &Codes, want: &[i64], context: &str) {
    let context = format!("{} {context}", kernel.name());
    let sums = partial(kernel, product, codes, want.len(), 1);
    assert_eq!(sums, want, "{context}");
    for threads in [1, 3] {
        let mut fused = vec![f32::NAN; want.len()];
        product.fused(kernel, codes, None, &mut fused, threads);
        assert!(fused.iter().zip(want).all(|(&y, &w)| y.to_bits() == (w as f32).to_bits()), "{context}");
    }
    let mut finished = vec![f32::NAN; want.len()];
    product.finish(kernel, codes, &sums, None, &mut finished, 1);
    assert!(finished.iter().zip(want).all(|(&y, &w)| y.to_bits() == (w as f32).to_bits()), "{context}");
}

#[test]
fn convolutions_include_what_lies_beyond() {
    for kernel in available() {
        for g in geometries() {
            for (pattern, count, planes, rare) in [
                (Pattern::Random(1), 1, 1, 60),
                (Pattern::Max, 1, 1, 7),
                (Pattern::Random(2), 2, 1, 60),
                (Pattern::Alternating, 1, 2, 60),
                (Pattern::Random(3), 3, 2, 200),
            ] {
                check_images(kernel, &g, pattern, (count, planes), rare);
            }
        }
    }
}

fn check_images(kernel: &dyn Kernel, g: &Convolution, pattern: Pattern, (count, planes): (usize, u32), rare: usize) {
    let shape = shape_of(g);
    let (packed, w) = digits(&shape, pattern, if shape.is_depthwise() { count.min(2) } else { count });
    let weights = match &packed {
        Ok(limbs) => Weights::OutputFirst(limbs),
        Err(words) => Weights::Depthwise(words),
    };
    let product = Product::new(shape.clone(), weights, &plain(g.channels_out), 8 * planes + 7).unwrap();
    let (images, len) = (2, g.input[0] * g.input[1] * g.channels_in);
    let clipping = ToCodes { zero_point: 91 << (8 * (planes - 1)), planes };
    let x = integers_beyond(pattern, images * len, rare, &clipping);
    let (mut codes, ranges) = (Codes::default(), Codes::ranges(kernel, &x, len, 1));
    let size = [images, g.input[0], g.input[1], g.channels_in];
    codes.clip_images(kernel, &x, size, g.pads, &ranges, &clipping, 1);
    assert!(codes.beyond().len() >= images * len / rare, "something lies beyond");
    let want: Vec<i64> = x.chunks(len).flat_map(|x| convolution(g, &integers(x), &w)).collect();
    check(kernel, &product, &codes, &want, &format!("{pattern:?} {count} x {planes}, {g:?}"));
}

/// Means of weights, as asymmetric ones and prefixes have.
fn means(channels: usize) -> Vec<i64> {
    (0..channels as i64).map(|c| c * 37 % 401 - 200).collect()
}

#[test]
fn means_are_added_by_the_sums_of_windows() {
    for kernel in available() {
        for g in geometries().into_iter().filter(|g| !shape_of(g).is_depthwise()) {
            for (shift, count, planes) in [(0, 1, 1), (6, 1, 1), (0, 2, 1), (0, 1, 2), (3, 2, 2)] {
                let shape = shape_of(&g);
                let (packed, w) = digits(&shape, Pattern::Random(3), count);
                let means = means(g.channels_out);
                let epilogue = Epilogue { means: means.clone(), shift, ..plain(g.channels_out) };
                let limbs = packed.unwrap();
                let product = Product::new(shape.clone(), Weights::OutputFirst(&limbs), &epilogue, 8 * planes + 7);
                let (product, mean) = (product.unwrap(), |i: usize| means[i / shape.depth()]);
                let (images, len) = (2, g.input[0] * g.input[1] * g.channels_in);
                let clipping = ToCodes { zero_point: 100 << (8 * (planes - 1)), planes };
                let whole: Vec<i64> = w.iter().enumerate().map(|(i, w)| (w << shift) + mean(i)).collect();
                for rare in [30, usize::MAX] {
                    let x = integers_beyond(Pattern::Random(9), images * len, rare, &clipping);
                    let (mut codes, ranges) = (Codes::default(), Codes::ranges(kernel, &x, len, 1));
                    let size = [images, g.input[0], g.input[1], g.channels_in];
                    codes.clip_images(kernel, &x, size, g.pads, &ranges, &clipping, 1);
                    assert_eq!(codes.beyond().is_empty(), rare == usize::MAX);
                    let want: Vec<i64> = x.chunks(len).flat_map(|x| convolution(&g, &integers(x), &whole)).collect();
                    check(kernel, &product, &codes, &want, &format!("{shift} {count} {planes} {rare} {g:?}"));
                }
            }
        }
    }
}

#[test]
fn means_of_matrix_products_are_exact_at_the_ends() {
    for kernel in available() {
        for [m, n, k] in [[1, 1, 1], [5 * MR + 3, NR + 1, 131], [2, NR, 8200], [MR, 3, 33_200]] {
            for zero_point in [0, 255] {
                let means = vec![127; n];
                let weights = [vec![127i8; n * k]];
                let epilogue = Epilogue { means, ..plain(n) };
                let product = Product::new(Shape::matmul(k, n), Weights::OutputFirst(&weights), &epilogue, 8).unwrap();
                let x = vec![(255 - 2 * zero_point) as f32; m * k];
                let mut codes = Codes::default();
                codes.fill_rows(kernel, &x, k, &vec![unit_grid(zero_point, 1); m], 1);
                let want = vec![254 * k as i64 * i64::from(255 - 2 * zero_point); m * n];
                check(kernel, &product, &codes, &want, &format!("{m}x{n}x{k}"));
                // The sums of 33,200 leave 32 bits, and are made in 64.
                assert_eq!(product.makes_codes(kernel, &codes), k < 33_200);
            }
        }
    }
}

#[test]
fn sums_that_leave_32_bits_are_exact() {
    for kernel in available() {
        for (k, far) in [(8000, 1 << 14), (65_000, 1 << 14), (100, 1 << 21)] {
            let clipping = ToCodes { zero_point: 0, planes: 1 };
            let x: Vec<f32> = (0..k).map(|i| (if i % 3 == 0 { far } else { 255 }) as f32).collect();
            let want = -128 * integers(&x).iter().sum::<i64>();
            let weights = [vec![-128i8; k]];
            let product = Product::new(Shape::matmul(k, 1), Weights::OutputFirst(&weights), &plain(1), 22).unwrap();
            let mut codes = Codes::default();
            codes.clip_rows(kernel, &x, k, None, &clipping, 1);
            check(kernel, &product, &codes, &[want], &format!("{k} {far}"));
        }
    }
}

/// Outputs that become codes at once, and endings of every kind, have the bits of sums that are finished.
#[test]
fn every_ending_includes_what_lies_beyond() {
    let activations = [Activation::NONE, Activation::RELU, Activation::Gelu, Activation::Silu];
    for kernel in available() {
        for (n, activation) in [NR, 2 * NR, NR + 5].into_iter().flat_map(|n| activations.map(|a| (n, a))) {
            let (m, k, clipping) = (4 * MR + 9, 40, ToCodes { zero_point: 30, planes: 1 });
            let x = integers_beyond(Pattern::Random(4), m * k, 25, &clipping);
            let weights = [adversarial_i8(Pattern::Random(5), n * k)];
            let means = means(n);
            let epilogue = Epilogue { scales: vec![1e-4; n], bias: vec![0.3; n], activation, means, ..plain(n) };
            let product = Product::new(Shape::matmul(k, n), Weights::OutputFirst(&weights), &epilogue, 15).unwrap();
            let mut codes = Codes::default();
            codes.clip_rows(kernel, &x, k, None, &clipping, 1);
            let residual: Vec<f32> = (0..m * n).map(|i| (i as f32 * 0.3).sin()).collect();
            for residual in [None, Some(added(&residual))] {
                let sums = partial(kernel, &product, &codes, m * n, 1);
                let (mut want, mut got) = (vec![f32::NAN; m * n], vec![f32::NAN; m * n]);
                let range = product.finish(kernel, &codes, &sums, residual, &mut want, 1);
                assert_eq!(product.fused(kernel, &codes, residual, &mut got, 1), range);
                assert!(got.iter().zip(&want).all(|(a, b)| a.to_bits() == b.to_bits()), "{} {n}", kernel.name());
            }
        }
    }
}

#[test]
fn codes_of_outputs_include_what_lies_beyond() {
    for (g, activation) in geometries().iter().flat_map(|g| [0.0, -1.0].map(|low| (g, low))) {
        let activation = Activation::Clamp { low: activation, high: 6.0 };
        let (shape, n) = (shape_of(g), g.channels_out);
        let (packed, _) = digits(&shape, Pattern::Random(5), 1);
        let weights = match &packed {
            Ok(limbs) => Weights::OutputFirst(limbs),
            Err(words) => Weights::Depthwise(words),
        };
        let scale = if shape.is_depthwise() { 1e-6 } else { 1e-4 };
        let means = if shape.is_depthwise() { Vec::new() } else { means(n) };
        let epilogue = Epilogue { scales: vec![scale; n], bias: vec![1.0; n], activation, means, ..plain(n) };
        let product = Product::new(shape, weights, &epilogue, 15).unwrap();
        let (len, clipping) = (g.input[0] * g.input[1] * g.channels_in, ToCodes { zero_point: 60, planes: 1 });
        let x = integers_beyond(Pattern::Random(6), 2 * len, 50, &clipping);
        let [h, w] = g.output();
        for kernel in available() {
            let (mut codes, ranges) = (Codes::default(), Codes::ranges(kernel, &x, len, 1));
            codes.clip_images(kernel, &x, [2, g.input[0], g.input[1], g.channels_in], g.pads, &ranges, &clipping, 1);
            let mut y = vec![f32::NAN; 2 * h * w * n];
            let ranges = product.fused(kernel, &codes, None, &mut y, 1);
            let (scale, inv) = (6.0 / 200.0, 200.0 / 6.0);
            let grid = RowGrid { scale, inv, inv_wide: f64::from(inv), zero_point: 0, code_max: 255 };
            let (mut want, mut made, pads) = (Codes::default(), Codes::default(), [1; 4]);
            want.fill_images(kernel, &y, [2, h, w, n], pads, &[grid; 2], 1);
            made.prepare_images([2, h, w, n], pads, &[grid; 2]);
            assert!(product.makes_codes(kernel, &codes));
            assert_eq!(product.coded(kernel, &codes, (&mut made, pads), 1), ranges, "{} {g:?}", kernel.name());
            let len = 2 * want.image_len();
            assert!(made.plane(0)[..len] == want.plane(0)[..len], "{} {g:?}", kernel.name());
        }
    }
}
