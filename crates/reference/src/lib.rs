//! Slow, obvious oracles for the tests of the other crates. Imports nothing, shares nothing with what it checks.

#![forbid(unsafe_code)]

mod data;
mod pools;
mod products;

pub use data::{Pattern, adversarial_i8, adversarial_i16, adversarial_u8, sizes};
pub use pools::{Pooled, average_pool, max_pool};
pub use products::{Convolution, convolution, gemm};

/// `round_half_even(x / scale)` for every value, in f64, by comparing distances rather than by a rounding mode.
pub fn quantise_symmetric(x: &[f32], scale: f32) -> Vec<i32> {
    let nearest = |&x: &f32| {
        let exact = f64::from(x) / f64::from(scale);
        let (below, above) = (exact.floor(), exact.floor() + 1.0);
        match (exact - below).partial_cmp(&(above - exact)).expect("finite") {
            std::cmp::Ordering::Less => below as i32,
            std::cmp::Ordering::Greater => above as i32,
            std::cmp::Ordering::Equal if below as i64 % 2 == 0 => below as i32,
            std::cmp::Ordering::Equal => above as i32,
        }
    };
    x.iter().map(nearest).collect()
}

/// Largest magnitude of some values, in f64.
pub fn spread(x: &[f32]) -> f64 {
    x.iter().map(|&v| f64::from(v).abs()).fold(0.0, f64::max)
}
