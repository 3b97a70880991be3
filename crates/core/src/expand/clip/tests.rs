//! Nothing is lost beyond a clip, bounds hold, integers stay within their limbs, sums stay exact in f32.

use crate::{
    Clip, Granularity, Method, Precision, Rounding, Scales, Series, basis_weight, expand_tensor_by, limb_count,
};

/// Mostly small values with a tail: eight channels of 200 that differ in size.
fn values() -> Vec<f32> {
    let value = |i: usize| {
        let v = (i as f32 * 0.613).sin() * 0.3 + (i as f32 * 1.71).cos() * 0.2;
        let tail = if i % 151 == 7 { 5.0 } else { 1.0 };
        v * tail * 2f32.powi((i / 200) as i32 % 5)
    };
    (0..1600).map(value).collect()
}

fn expand(precision: Precision, granularity: Granularity, rounding: Rounding, clip: Clip) -> Series {
    let method = Method { precision, granularity, rounding, clip, asymmetric: false };
    expand_tensor_by("w", &values(), &[8, 50, 2, 2], 0, &method).unwrap()
}

fn methods() -> impl Iterator<Item = (Rounding, Clip)> {
    let clips = [Clip::None, Clip::Laplace, Clip::Mse];
    clips.into_iter().flat_map(|clip| [Rounding::Nearest, Rounding::Sum].map(|rounding| (rounding, clip)))
}

fn precisions() -> impl Iterator<Item = Precision> {
    (2..=8).flat_map(|bits| (1..=32 / bits).map(move |order| Precision::new(bits, order).unwrap()))
}

#[test]
fn every_prefix_stays_within_its_bound_and_its_limbs() {
    for p in precisions() {
        for (rounding, clip) in methods() {
            for granularity in [Granularity::Tensor, Granularity::Channel, Granularity::Group(16)] {
                let s = expand(p, granularity, rounding, clip);
                for t in 1..=p.order() {
                    let (_, ratio) = s.measured_error("w", &values(), t).unwrap();
                    assert!(ratio <= 1.0, "{p} {rounding} {clip:?} {granularity:?}: {t} terms at {ratio}");
                    if granularity == Granularity::Channel {
                        assert_eq!(limb_count(s.width(t)), limb_count(p.bits() * t), "{p} {clip:?} at {t}");
                    }
                }
                assert!(s.saturation().len() <= 16, "{p} {clip:?}: {} beyond", s.saturation().len());
            }
        }
    }
}

#[test]
fn a_clip_lowers_the_error_where_there_is_room() {
    let p = "int4x1".parse().unwrap();
    let error = |clip| {
        let s = expand(p, Granularity::Channel, Rounding::Nearest, clip);
        let squares = s.values("w", 1).unwrap().zip(values()).map(|(v, x)| (v - f64::from(x)).powi(2));
        (squares.sum::<f64>(), s.saturation().len())
    };
    let (plain, none) = error(Clip::None);
    assert_eq!(none, 0);
    for (clip, share) in [(Clip::Laplace, 0.9), (Clip::Mse, 0.9)] {
        let (clipped, beyond) = error(clip);
        assert!(beyond > 0 && clipped < plain * share, "{clip:?}: {clipped} of {plain} with {beyond}");
    }
    for full in ["int8x1", "int8x2"] {
        let full = full.parse().unwrap();
        assert!(Clip::Mse.obstacle(full, Granularity::Channel).is_some());
        assert!(expand(full, Granularity::Channel, Rounding::Nearest, Clip::Mse).saturation().is_empty());
    }
}

#[test]
fn sums_with_the_saturation_part_are_exact_in_f32() {
    for p in precisions().filter(|p| p.total_bits() <= 16) {
        for (rounding, clip) in methods() {
            let s = expand(p, Granularity::Channel, rounding, clip);
            let mut beyond = vec![0i32; values().len()];
            s.saturation().iter().for_each(|&(i, part)| beyond[i] = part);
            let terms: Vec<_> = (1..=p.order()).map(|t| (s.term(t), s.term_scales(t))).collect();
            for (i, exact) in s.values("w", p.order()).unwrap().enumerate() {
                let saturation = beyond[i] as f32 * terms[0].1[i / 200];
                let dequantised = |(digits, scales): &(Vec<i8>, Vec<f32>)| f32::from(digits[i]) * scales[i / 200];
                let sum = terms.iter().fold(saturation, |sum, term| sum + dequantised(term));
                assert_eq!(f64::from(sum), exact, "{p} {rounding} {clip:?} at {i}");
            }
        }
    }
}

#[test]
fn terms_and_saturation_part_read_back() {
    for p in precisions() {
        for (rounding, clip) in methods() {
            let s = expand(p, Granularity::Channel, rounding, clip);
            let terms: Vec<_> = (1..=p.order()).map(|t| s.term(t)).collect();
            let scales = Scales { first: s.term_scales(1), block: None };
            let read = Series::from_terms("w", p, s.shape().to_vec(), 0, scales, &terms, s.means().to_vec()).unwrap();
            let again = read.with_saturation("w", &s.saturation()).unwrap().with_rounding(rounding);
            assert_eq!(again, s, "{p} {rounding} {clip:?}");
            let mut sum = vec![0i32; s.q().len()];
            let terms: Vec<_> = (1..=p.order()).map(|t| t..=t).collect();
            for index in 0..terms.len() {
                let part = basis_weight("w", &s, &terms, index).unwrap();
                sum.iter_mut().zip(part.q).for_each(|(sum, q)| *sum += q << part.shift);
            }
            assert_eq!(sum, s.q(), "{p} {clip:?}");
        }
    }
}

#[test]
fn saturation_parts_that_no_expansion_makes_are_refused() {
    let s = expand("int4x1".parse().unwrap(), Granularity::Channel, Rounding::Nearest, Clip::Mse);
    let part = s.saturation();
    assert!(part.len() > 2);
    let terms = [s.term(1)];
    let scales = Scales { first: s.term_scales(1), block: None };
    let read = |part: &[(usize, i32)]| {
        let read = Series::from_terms("w", s.precision(), s.shape().to_vec(), 0, scales.clone(), &terms, vec![]);
        read.unwrap().with_saturation("w", part)
    };
    assert!(read(&part).is_ok());
    let (i, one) = part[0];
    let inside = terms[0].iter().position(|&digit| digit == 1).unwrap();
    let bad = [vec![part[1], part[0]], vec![part[0], part[0]], vec![(1600, 1)], vec![(i, 0)], vec![(i, -one)]];
    for bad in bad.into_iter().chain([vec![(i, one.signum() * 200)], vec![(inside, 1)]]) {
        let error = read(&bad).unwrap_err().to_string();
        assert!(error.contains("saturation part"), "{bad:?}: {error}");
    }
}

#[test]
fn sums_of_errors_cancel_in_every_channel_and_kernel() {
    let p = "int4x1".parse().unwrap();
    for clip in [Clip::None, Clip::Mse] {
        let [nearest, sum] = [Rounding::Nearest, Rounding::Sum].map(|r| expand(p, Granularity::Channel, r, clip));
        let largest = |s: &Series, group: usize| {
            let scales = s.term_scales(1);
            let errors: Vec<f64> = values()
                .iter()
                .zip(s.q())
                .enumerate()
                .map(|(i, (&x, &q))| f64::from(x) / f64::from(scales[i / 200]) - f64::from(q))
                .collect();
            errors.chunks(group).map(|group| group.iter().sum::<f64>().abs()).fold(0.0, f64::max)
        };
        assert!(largest(&nearest, 200) > 1.0, "{}", largest(&nearest, 200));
        assert!(largest(&sum, 200) <= 0.5 + 1e-9, "{clip:?}: {}", largest(&sum, 200));
        assert!(largest(&nearest, 4) > 1.2 && largest(&sum, 4) <= 1.5 + 1e-9, "{clip:?}: {}", largest(&sum, 4));
    }
}
