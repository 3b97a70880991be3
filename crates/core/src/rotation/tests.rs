//! The rotation against its matrix, its inverse, and what it is for.

use super::*;

fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn blocks_are_the_largest_power_of_two_that_divides_the_depth() {
    let block = |depth| Rotation::of(depth).map(Rotation::block);
    assert_eq!([384, 1536, 768, 48, 80].map(block), [Some(128), Some(128), Some(128), Some(16), Some(16)]);
    assert_eq!([96, 64].map(block), [Some(32), Some(64)]);
    assert_eq!([0, 1, 8, 24, 10, 1001].map(block), [None; 6]);
    for block in [0, 1, 8, 24, 256] {
        assert_eq!(Rotation::with_block(block), None, "{block}");
    }
}

#[test]
fn a_turned_row_is_its_product_with_the_matrix() {
    for b in [16, 32, 64, 128] {
        let rotation = Rotation::with_block(b).unwrap();
        let (x, matrix) = (values(3 * b, 5), rotation.matrix());
        let mut turned = x.clone();
        rotation.turn(&mut turned);
        for (x, turned) in x.chunks(b).zip(turned.chunks(b)) {
            for j in 0..b {
                let want: f64 = (0..b).map(|i| f64::from(x[i]) * f64::from(matrix[i * b + j])).sum();
                assert!((want - f64::from(turned[j])).abs() < 1e-6, "{b}, {j}: {want} and {}", turned[j]);
            }
        }
    }
}

#[test]
fn the_matrix_is_orthogonal_up_to_its_power_of_two() {
    for b in [16, 32, 64, 128] {
        let matrix = Rotation::with_block(b).unwrap().matrix();
        let scale = matrix[0].abs();
        assert_eq!(scale.to_bits() & 0x007f_ffff, 0, "a power of two");
        assert!(matrix.iter().all(|entry| entry.abs() == scale));
        for i in 0..b {
            for j in 0..=i {
                let dot: f32 = (0..b).map(|k| matrix[i * b + k] * matrix[j * b + k]).sum();
                assert_eq!(dot, if i == j { b as f32 * scale * scale } else { 0.0 });
            }
        }
    }
}

#[test]
fn turned_rows_by_turned_weights_are_the_product() {
    for (k, n, transposed) in [(128, 3, false), (384, 5, true), (48, 2, false), (160, 1, true)] {
        let geometry = MatMulGeometry { k, n, transposed };
        let rotation = Rotation::of(k).unwrap();
        let (x, w) = (values(k, 1), values(k * n, 2));
        let (turned, mut y) = (rotation.weights(&geometry, &w), x.clone());
        rotation.turn(&mut y);
        let product = |x: &[f32], w: &[f32], j: usize| -> f64 {
            let weight = |i: usize| f64::from(if transposed { w[j * k + i] } else { w[i * n + j] });
            (0..k).map(|i| f64::from(x[i]) * weight(i)).sum()
        };
        for j in 0..n {
            let (want, got) = (product(&x, &w, j), product(&y, &turned, j));
            assert!((want - got).abs() < 1e-5, "{k} x {n}: {want} and {got}");
        }
        for (w, back) in w.iter().zip(rotation.restored(&geometry, &turned)) {
            assert!((w - back).abs() < 1e-6, "{w} and {back}");
        }
    }
}

#[test]
fn one_large_value_no_longer_decides_the_range() {
    let rotation = Rotation::of(128).unwrap();
    let mut x = values(128, 9);
    x[77] = 40.0;
    rotation.turn(&mut x);
    let largest = x.iter().fold(0f32, |a, x| a.max(x.abs()));
    assert!(largest < 40.0 / 8.0, "{largest}");
    // Nor do values of one sign become one.
    let mut x = vec![1.0; 128];
    rotation.turn(&mut x);
    assert!(x.iter().all(|x| x.abs() <= 3.0), "{x:?}");
}

#[test]
fn weights_that_are_not_finite_stay_where_they_are() {
    let geometry = MatMulGeometry { k: 16, n: 2, transposed: false };
    let mut w = values(32, 3);
    w[7] = f32::INFINITY;
    assert_eq!(Rotation::of(16).unwrap().weights(&geometry, &w), w);
}
