//! Products of clipped activations against the oracle: the sums of the whole integers, on every kernel.

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
        (if i % rare == rare / 2 { inner + far } else { inner }) as f32
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

#[test]
fn prefixes_include_what_lies_beyond_in_their_means() {
    for kernel in available() {
        for g in geometries().into_iter().filter(|g| !shape_of(g).is_depthwise()) {
            let shape = shape_of(&g);
            let (packed, w) = digits(&shape, Pattern::Random(3), 1);
            let means: Vec<i64> = (0..g.channels_out as i64).map(|c| c * 37 - 400).collect();
            let epilogue = Epilogue { means: means.clone(), shift: 6, ..plain(g.channels_out) };
            let product = Product::new(shape.clone(), Weights::OutputFirst(&packed.unwrap()), &epilogue, 15).unwrap();
            let (len, clipping) = (g.input[0] * g.input[1] * g.channels_in, ToCodes { zero_point: 100, planes: 1 });
            let x = integers_beyond(Pattern::Random(9), len, 30, &clipping);
            let (mut codes, ranges) = (Codes::default(), Codes::ranges(kernel, &x, len, 1));
            codes.clip_images(kernel, &x, [1, g.input[0], g.input[1], g.channels_in], g.pads, &ranges, &clipping, 1);
            let whole: Vec<i64> = w.iter().enumerate().map(|(i, w)| (w << 6) + means[i / shape.depth()]).collect();
            let want = convolution(&g, &integers(&x), &whole);
            assert_eq!(partial(kernel, &product, &codes, want.len(), 1), want, "{} {g:?}", kernel.name());
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
            let epilogue = Epilogue { scales: vec![1e-4; n], bias: vec![0.3; n], activation, ..plain(n) };
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
        let epilogue = Epilogue { scales: vec![scale; n], bias: vec![1.0; n], activation, ..plain(n) };
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
