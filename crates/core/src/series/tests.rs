//! Prefixes, means and the round trip through terms.

use super::*;
use crate::{Granularity, expand_tensor};

fn series(bits: u32, order: u32, x: &[f32], shape: &[usize], axis: usize) -> Series {
    let p = Precision::new(bits, order).unwrap();
    expand_tensor("w", x, shape, axis, p, Granularity::Channel).unwrap()
}

fn wave(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 37 + 11) as f32).sin() * (1.0 + i as f32 / 7.0)).collect()
}

#[test]
fn terms_read_back_to_the_same_series() {
    for (bits, order) in [(2, 4), (4, 3), (8, 2), (3, 5), (8, 4)] {
        let s = series(bits, order, &wave(60), &[3, 4, 5], 1);
        let terms: Vec<Vec<i8>> = (1..=order).map(|t| s.term(t)).collect();
        let read = |means| {
            Series::from_terms(
                "w",
                s.precision,
                s.shape.clone(),
                1,
                Scales { first: s.scales.clone(), block: None },
                &terms,
                means,
            )
        };
        assert_eq!(read(s.means.clone()).unwrap(), s);
        assert_eq!(read(Vec::new()).unwrap(), s);
    }
}

#[test]
fn packed_terms_of_many_pieces_read_back() {
    for (bits, order, storage) in [(2, 3, 2), (3, 2, 4), (4, 2, 4), (8, 4, 8)] {
        let s = series(bits, order, &wave(3 * PIECE + 9), &[3, PIECE + 3], 0);
        let packed: Vec<Vec<u8>> = (1..=order).map(|t| pack(&s.term(t), storage)).collect();
        let read = |packed: &[Vec<u8>]| {
            let terms: Vec<_> = packed.iter().map(|bytes| Packed { bytes, bits: storage }).collect();
            let scales = Scales { first: s.scales.clone(), block: None };
            Series::from_packed("w", s.precision, s.shape.clone(), 0, scales, &terms, Vec::new())
        };
        assert_eq!(read(&packed).unwrap(), s);
        assert!(matches!(read(&packed[1..]), Err(Error::NotASeries { .. })));
        let mut short = packed;
        short[0].pop();
        assert!(matches!(read(&short), Err(Error::NotASeries { .. })));
    }
}

#[test]
fn altered_terms_are_refused() {
    let s = series(4, 2, &wave(6), &[2, 3], 0);
    let terms = vec![s.term(1), s.term(2)];
    let read = |scales: Vec<f32>, terms: &[Vec<i8>], means| {
        Series::from_terms("w", s.precision, vec![2, 3], 0, Scales { first: scales, block: None }, terms, means)
    };
    let refused = |r: Result<Series, Error>| matches!(r, Err(Error::NotASeries { .. }));
    assert!(refused(read(s.scales.clone(), &terms[..1], vec![])));
    assert!(refused(read(s.scales.clone(), &[vec![9; 6], terms[1].clone()], vec![])));
    assert!(refused(read(s.scales.clone(), &[vec![-8; 6], vec![-8; 6]], vec![])));
    assert!(refused(read(vec![1.0; 3], &terms, vec![])));
    assert!(refused(read(vec![f32::NAN, 1.0], &terms, vec![])));
    assert!(refused(read(vec![-1.0, 1.0], &terms, vec![])));
    assert!(refused(read(s.scales.clone(), &terms, vec![vec![99, 99]])));
}

#[test]
fn a_prefix_is_the_first_terms_and_the_mean_of_the_rest() {
    let x = wave(40);
    let s = series(2, 4, &x, &[4, 10], 0);
    for t in 1..=4u32 {
        let prefix = s.prefix("w", t).unwrap();
        for (i, &q) in prefix.q.iter().enumerate() {
            let digits = (1..=t).fold(0, |sum, k| sum * 4 + i32::from(s.term(k)[i]));
            assert_eq!(q, digits);
        }
        assert_eq!(prefix.means.is_empty(), t == 4);
        // What a prefix drops averages to its mean, to half of the mean's own unit.
        for c in 0..4usize {
            let values: Vec<f64> = s.values("w", t).unwrap().collect();
            let whole: Vec<f64> = s.values("w", 4).unwrap().collect();
            let gap: f64 = (0..10).map(|k| whole[c * 10 + k] - values[c * 10 + k]).sum::<f64>() / 10.0;
            let unit = f64::from(s.scales[c]) * 2f64.powi(-8);
            assert!(gap.abs() <= unit / 2.0 + 1e-12, "{t} {c} {gap}");
        }
    }
    assert!(matches!(s.prefix("w", 0), Err(Error::Order { .. })));
    assert!(matches!(s.prefix("w", 5), Err(Error::Order { asked: 5, order: 4, .. })));
}

#[test]
fn division_rounds_half_to_even() {
    for (n, d, want) in [(7, 2, 4), (5, 2, 2), (-5, 2, -2), (-7, 2, -4), (1, 3, 0), (-2, 3, -1), (0, 5, 0)] {
        assert_eq!(divide_half_even(n, d), want, "{n}/{d}");
    }
}
