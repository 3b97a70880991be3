//! Members of a group add up to the whole product, wherever their digits lie and however the outputs are cut.

use super::*;
use crate::kernel::{RowGrid, available};
use crate::{Activation, Epilogue, Shape, Weights};
use fpxint_reference::{Pattern, adversarial_u8};

const MASKS: [&[u32]; 5] =
    [&[0xffff], &[0xff00, 0x00ff], &[0xf000, 0x0fff], &[0xfff0, 0xf], &[0xc000, 0x3000, 0x0ff8, 7]];

/// Shares that add up to all codes of 16 bits: offsets of no particular value, the zero point at the first.
fn shares(masks: &[u32]) -> Vec<Share> {
    let mut shares: Vec<_> =
        masks.iter().enumerate().map(|(i, &mask)| Share { mask, offset: 7 * i as i64 + 3, owner: i == 0 }).collect();
    shares[0].offset -= shares.iter().map(|share| share.offset).sum::<i64>();
    shares
}

fn shapes() -> Vec<Shape> {
    let one = Shape { channels_in: 5, channels_out: 35, kernel: [3, 3], ..Shape::matmul(1, 1) };
    vec![
        one.clone(),
        Shape { channels_in: 8, channels_out: 70, kernel: [1, 1], ..one.clone() },
        Shape { channels_in: 6, channels_out: 12, groups: 3, strides: [2, 1], ..one.clone() },
        Shape { channels_in: 37, channels_out: 37, groups: 37, ..one },
    ]
}

/// A product of digits of `bits` bits.
fn product(shape: &Shape, bits: u32, salt: u64) -> Product {
    let len = shape.channels_out * shape.depth();
    let epilogue = Epilogue {
        scales: vec![1.0; shape.channels_out],
        bias: vec![0.0; shape.channels_out],
        means: if shape.is_depthwise() { vec![] } else { (0..shape.channels_out as i64).map(|c| c - 3).collect() },
        shift: 4,
        activation: Activation::NONE,
    };
    let digit = |&code: &u8| (code as i8) >> (8 - bits);
    let limbs: Vec<Vec<i8>> =
        (0..2).map(|l| adversarial_u8(Pattern::Random(salt + l), len).iter().map(digit).collect()).collect();
    let words: Vec<Vec<i16>> =
        limbs.iter().map(|l| l.iter().map(|&d| i16::from(d) * if bits > 4 { 250 } else { 1 }).collect()).collect();
    let weights = if shape.is_depthwise() { Weights::Depthwise(&words) } else { Weights::OutputFirst(&limbs) };
    Product::new(shape.clone(), weights, &epilogue, 16).unwrap()
}

#[test]
fn members_add_up_to_the_whole_wherever_their_digits_lie() {
    let mut room = Room::default();
    for (kernel, shape, bits) in available().into_iter().flat_map(|kernel| {
        shapes().into_iter().flat_map(move |shape| [2, 3, 4, 8].map(|bits| (kernel, shape.clone(), bits)))
    }) {
        let (images, size) = (2, [6, 7]);
        let len = size[0] * size[1] * shape.channels_in;
        let grid = |zero_point| RowGrid { scale: 1.0, inv: 1.0, inv_wide: 1.0, zero_point, code_max: 0xffff };
        let grids = [grid(20_000), grid(411)];
        let raw = adversarial_u8(Pattern::Random(5), 2 * images * len);
        let x: Vec<f32> =
            raw.as_chunks().0.iter().map(|&pair| f32::from(u16::from_le_bytes(pair)) - 20_000.0).collect();
        let mut codes = Codes::default();
        codes.fill_images(kernel, &x, [images, size[0], size[1], shape.channels_in], [1, 1, 0, 2], &grids, 1);
        let [height, width] = codes.output(&shape);
        let channels = shape.channels_out;
        let whole = product(&shape, bits, 11);
        let mut want = vec![0; images * height * width * channels];
        whole.partial(kernel, &codes, &mut want, 1);
        for condensed in [false, true] {
            let mut member = product(&shape, bits, 11);
            if condensed {
                member.condense();
                let rest =
                    whole.bytes() * bits.next_power_of_two() as usize / if shape.is_depthwise() { 16 } else { 8 };
                assert!(bits > 4 || member.bytes() <= rest + 4 * 64, "{} of {}", member.bytes(), whole.bytes());
            }
            for (masks, threads) in MASKS.into_iter().zip([1, 2, 3, 1, 2]) {
                // Cut within an image and across the two.
                for cuts in [vec![0, images * height * width], vec![0, 5, height * width + 3, images * height * width]]
                {
                    let mut sums = vec![0; want.len()];
                    for share in shares(masks) {
                        for cut in cuts.windows(2) {
                            let tile = &mut sums[cut[0] * channels..cut[1] * channels];
                            member.partial_of(kernel, &codes, share, (cut[0], tile), threads, &mut room);
                        }
                    }
                    assert_eq!(sums, want, "{} {shape:?} {bits} {condensed} {masks:x?}", kernel.name());
                }
            }
        }
    }
}

#[test]
fn a_product_without_digits_has_the_sums_of_its_means() {
    let shape = Shape::matmul(6, 3);
    let epilogue = Epilogue {
        scales: vec![1.0; 3],
        bias: vec![0.0; 3],
        means: vec![2, -1, 0],
        shift: 0,
        activation: Activation::NONE,
    };
    let product = Product::new(shape, Weights::OutputFirst(&[]), &epilogue, 8).unwrap();
    let grid = RowGrid { scale: 1.0, inv: 1.0, inv_wide: 1.0, zero_point: 10, code_max: 255 };
    for kernel in available() {
        let mut codes = Codes::default();
        codes.fill_rows(kernel, &[1.0, 2.0, 3.0, -4.0, 5.0, 0.0], 6, &[grid], 1);
        let mut sums = [0; 3];
        let share = Share { mask: 0xf0, offset: -2, owner: true };
        product.partial_of(kernel, &codes, share, (0, &mut sums), 1, &mut Room::default());
        // Codes 11 12 13 6 15 10 without their low four bits are 0; less 10 - 2 each.
        assert_eq!(sums, [-96, 48, 0]);
    }
}
