//! Every kernel against the definition, for equality of bits.

use super::*;
use crate::available;

fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * 1.7).sin() * [1.0, 1e-3, 300.0, 0.0, -0.0][i * 7 % 5]).collect()
}

fn factors(block: usize) -> Vec<f32> {
    (0..block).map(|i| if i * i % 7 < 3 { 0.125 } else { -0.125 }).collect()
}

/// Value `j` of a block: pairs of values `half` apart are added or subtracted, the widest first.
fn definition(x: &[f32], half: usize, j: usize) -> f32 {
    if half == x.len() {
        return x[j];
    }
    let (a, b) = (definition(x, 2 * half, j & !half), definition(x, 2 * half, j | half));
    if j & half == 0 { a + b } else { a - b }
}

#[test]
fn rows_equal_the_definition_on_every_kernel() {
    for block in [16, 32, 64, 128] {
        for blocks in [1, 3] {
            let (rotation, k) = (Rotation::new(factors(block)).unwrap(), block * blocks);
            let x = values(5 * k);
            let turned = x.chunks(block).flat_map(|x| {
                let x: Vec<f32> = x.iter().zip(&rotation.factors).map(|(x, factor)| x * factor).collect();
                (0..block).map(move |j| definition(&x, 1, j)).collect::<Vec<_>>()
            });
            let want: Vec<u32> = turned.map(f32::to_bits).collect();
            for kernel in available() {
                for threads in [1, 2, 3] {
                    let (mut y, mut ranges) = (vec![f32::NAN; x.len()], vec![]);
                    rotation.run(kernel, (&x, k), &mut y, &mut ranges, threads);
                    let bits: Vec<u32> = y.iter().map(|y| y.to_bits()).collect();
                    assert_eq!(bits, want, "blocks of {block}, {threads} threads, {}", kernel.name());
                    let range = |y: &[f32]| y.iter().fold(Range::EMPTY, |all, &y| all.union(Range::of(y, y)));
                    assert_eq!(ranges, y.chunks(k).map(range).collect::<Vec<_>>());
                }
            }
        }
    }
}

#[test]
fn what_is_not_finite_shows_in_the_range_of_its_row() {
    let rotation = Rotation::new(factors(32)).unwrap();
    for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = values(3 * 96);
        x[96 + 95] = odd;
        for kernel in available() {
            let (mut y, mut ranges) = (vec![0.0; x.len()], vec![]);
            rotation.run(kernel, (&x, 96), &mut y, &mut ranges, 1);
            assert_eq!(ranges.iter().map(|range| range.is_finite()).collect::<Vec<_>>(), [true, false, true]);
        }
    }
}

#[test]
fn other_blocks_are_refused() {
    for block in [0, 1, 8, 24, 256] {
        assert_eq!(Rotation::new(vec![1.0; block]), None, "{block}");
    }
}
