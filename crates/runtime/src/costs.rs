//! What products cost on this machine: measured, so that members are shared out by what they take.

use std::time::Instant;

use fpxint::Costs;
use fpxint_kernels::{Activation, Codes, Epilogue, Product, Room, RowGrid, Shape, Share, Weights};

use crate::Error;

/// Rows, depth and columns of the product that is measured.
const SIZE: [usize; 3] = [128, 512, 128];
/// Runs, of which the fastest counts.
const RUNS: usize = 8;

/// Measures a product of bytes and one of four-bit digits of either side, whose weights are unpacked and whose codes are masked
/// first; in units of the former.
///
/// # Errors
/// [`Error::Kernel`] where the kernel asked for is not there.
pub fn member_costs() -> Result<Costs, Error> {
    let kernel = fpxint_kernels::select()?;
    let [m, k, n] = SIZE;
    let grid = RowGrid { scale: 1.0, inv: 1.0, inv_wide: 1.0, zero_point: 100, code_max: 255 };
    let x: Vec<f32> = (0..m * k).map(|i| (i * 31 % 256) as f32 - 100.0).collect();
    let mut codes = Codes::default();
    codes.fill_rows(kernel, &x, k, &vec![grid; m], 1);
    let epilogue = Epilogue {
        scales: vec![1.0; n],
        bias: vec![0.0; n],
        means: Vec::new(),
        shift: 0,
        activation: Activation::NONE,
    };
    let product = |span: i32| {
        let digits: Vec<i8> = (0..n * k).map(|i| (i as i32 * 7919 % (2 * span) - span) as i8).collect();
        let product = Product::new(Shape::matmul(k, n), Weights::OutputFirst(&[digits]), &epilogue, 8);
        product.map_err(|source| Error::Layer { layer: "measured".to_owned(), source })
    };
    let (plain, mut pair) = (product(127)?, [product(8)?, product(8)?]);
    pair.iter_mut().for_each(Product::condense);
    let (mut sums, mut room) = (vec![0i64; m * n], Room::default());
    let mut time = |product: &Product, share: Share| {
        let start = Instant::now();
        product.partial_of(kernel, &codes, share, (0, &mut sums), 1, &mut room);
        start.elapsed().as_secs_f64()
    };
    let part = Share { mask: 0xf0, ..Share::WHOLE };
    let (mut whole, mut started) = (f64::INFINITY, f64::INFINITY);
    for run in 0..RUNS {
        whole = whole.min(time(&plain, Share::WHOLE));
        // Two in turn, so that each has to be unpacked again.
        started = started.min(time(&pair[run % 2], part));
    }
    let start = if whole > 0.0 { (started / whole - 1.0).clamp(0.01, 1.0) } else { Costs::default().start };
    Ok(Costs { product: 1.0, start })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_measured_within_reason() {
        let costs = member_costs().unwrap();
        assert!(costs.product == 1.0 && costs.start >= 0.01 && costs.start <= 1.0, "{costs:?}");
    }
}
