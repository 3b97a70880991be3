//! Outputs that become codes at once: the codes of the outputs as floats, with any border, and the same ranges.

use super::*;

/// Borders of whatever reads the codes.
const BORDERS: [[usize; 4]; 3] = [[0; 4], [1; 4], [2, 0, 1, 3]];

/// The grid of a range by its definition, of `code_max + 1` steps.
fn grid(range: Range, code_max: i32) -> RowGrid {
    let scale = (range.high - range.low) / code_max as f32;
    let inv = 1.0 / scale;
    RowGrid { scale, inv, inv_wide: f64::from(inv), zero_point: (-range.low * inv).round_ties_even() as i32, code_max }
}

/// A layer's outputs on three images: their ranges, the layer and its codes.
fn floats(kernel: &dyn Kernel, g: &Convolution, activation: Activation) -> (Vec<f32>, Vec<Range>, Product, Codes) {
    let (mut product, x, _) = full_layer(g);
    product.set_activation(activation);
    let len = g.input[0] * g.input[1] * g.channels_in;
    let grids: Vec<_> = Codes::ranges(kernel, &x, len, 1).into_iter().map(|range| grid(range, 255)).collect();
    let mut codes = Codes::default();
    codes.fill_images(kernel, &x, [3, g.input[0], g.input[1], g.channels_in], g.pads, &grids, 1);
    let mut y = vec![f32::NAN; 3 * g.output()[0] * g.output()[1] * g.channels_out];
    let ranges = product.fused(kernel, &codes, None, &mut y, 1);
    (y, ranges, product, codes)
}

#[test]
fn codes_are_those_of_the_outputs() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    let clamps = [
        Activation::RELU,
        Activation::Clamp { low: 0.0, high: 6.0 },
        Activation::Clamp { low: -3.0, high: 6.0 },
        Activation::Clamp { low: 1.0, high: 6.0 },
        Activation::HardSwish,
    ];
    for (g, activation) in geometries().iter().flat_map(|g| clamps.map(|activation| (g, activation))) {
        for kernel in available() {
            let (y, ranges, product, codes) = floats(kernel, g, activation);
            let [h, w] = g.output();
            let shape = [3, h, w, g.channels_out];
            for (pads, code_max) in BORDERS.into_iter().zip([255, 15, 255]) {
                let grids: Vec<_> = ranges.iter().map(|&range| grid(range, code_max)).collect();
                let (mut want, mut made) = (Codes::default(), Codes::default());
                want.fill_images(kernel, &y, shape, pads, &grids, 1);
                for threads in [1, 3] {
                    // What another image left must not matter.
                    made.prepare_images(shape, pads, &grids);
                    (0..3).for_each(|image| made.image_mut(image).0.fill(77));
                    made.prepare_images(shape, pads, &grids);
                    let seen = pool.install(|| product.coded(kernel, &codes, (&mut made, pads), threads));
                    assert_eq!(seen, ranges, "{} {g:?}", kernel.name());
                    let len = 3 * want.image_len();
                    assert!(made.plane(0)[..len] == want.plane(0)[..len], "{} {g:?} {pads:?}", kernel.name());
                }
            }
        }
    }
}

#[test]
fn sums_of_several_limbs_become_codes_too() {
    let g = &geometries()[0];
    let (limbs, _) = digits(&shape_of(g), Pattern::Random(5), 2);
    let epilogue =
        Epilogue { scales: vec![1e-6; g.channels_out], activation: Activation::RELU, ..plain(g.channels_out) };
    let product = Product::new(shape_of(g), Weights::OutputFirst(&limbs.unwrap()), &epilogue, 8).unwrap();
    let x: Vec<f32> = (0..g.input[0] * g.input[1] * g.channels_in).map(|i| (i % 201) as f32).collect();
    let [h, w] = g.output();
    for kernel in available() {
        let mut codes = Codes::default();
        codes.fill_images(kernel, &x, [1, g.input[0], g.input[1], g.channels_in], g.pads, &[unit_grid(7, 1)], 1);
        assert!(product.makes_codes(kernel, &codes));
        let mut y = vec![0.0; h * w * g.channels_out];
        let ranges = product.fused(kernel, &codes, None, &mut y, 1);
        let (mut want, mut made, grid) = (Codes::default(), Codes::default(), grid(ranges[0], 255));
        want.fill_images(kernel, &y, [1, h, w, g.channels_out], [1; 4], &[grid], 1);
        made.prepare_images([1, h, w, g.channels_out], [1; 4], &[grid]);
        assert_eq!(product.coded(kernel, &codes, (&mut made, [1; 4]), 1), ranges);
        assert!(made.plane(0)[..made.image_len()] == want.plane(0)[..want.image_len()], "{}", kernel.name());
    }
}
