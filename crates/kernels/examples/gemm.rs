//! Throughput of one matrix product of bytes, with its epilogue, on one thread: `gemm M K N RUNS`.
//!
//! `y (M, N) = scale_a u (M, K) w (K, N) scale_w + bias`, `u` unsigned bytes that are quantised already, `w` signed bytes that are
//! packed already. Prints one JSON object: the kernel, which `FPXINT_KERNEL` chooses, 1e9 multiply-accumulates a second, the median
//! over the runs, and what the kernel reaches on operands in the first-level cache.

use std::process::ExitCode;
use std::time::Instant;

use fpxint_kernels::{Activation, Buffer, Codes, Epilogue, Kernel, Product, RowGrid, Shape, Weights, select};

const GRID: RowGrid = RowGrid { scale: 0.1, inv: 100.0, inv_wide: 100.0, zero_point: 128, code_max: 255 };

fn main() -> ExitCode {
    let sizes: Vec<usize> =
        std::env::args().skip(1).map_while(|size| size.parse().ok()).filter(|&size| size > 0).collect();
    let (&[m, k, n, runs], Ok(kernel)) = (&sizes[..], select()) else {
        eprintln!("usage: gemm M K N RUNS, with FPXINT_KERNEL the name of a kernel that this CPU has, if set");
        return ExitCode::from(2);
    };
    match seconds(kernel, [m, k, n], runs) {
        Ok(seconds) => {
            let speed = (m * k * n) as f64 / seconds / 1e9;
            let (name, peak) = (kernel.name(), fpxint_kernels::peak(kernel) / 1e9);
            println!(
                "{{\"kernel\": \"{name}\", \"gmacs_per_second\": {speed:.1}, \"peak_gmacs_per_second\": {peak:.1}}}"
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The median time of a product.
fn seconds(kernel: &'static dyn Kernel, [m, k, n]: [usize; 3], runs: usize) -> Result<f64, fpxint_kernels::Error> {
    let epilogue =
        Epilogue { scales: vec![1e-3; n], bias: vec![0.1; n], means: vec![], shift: 0, activation: Activation::NONE };
    let limbs = [(0..k * n).map(|i| (i * 37) as i8).collect()];
    let product = Product::new(Shape::matmul(k, n), Weights::OutputFirst(&limbs), &epilogue, 8)?;
    let x: Vec<f32> = (0..m * k).map(|i| (i as f32 * 0.7).sin()).collect();
    let mut codes = Codes::default();
    codes.fill_rows(kernel, &x, k, &vec![GRID; m], 1);
    let mut y = Buffer::default();
    y.reserve(size_of::<f32>() * m * n);
    let y = y.floats_mut(m * n);
    let mut times: Vec<f64> = (0..runs.saturating_add(WARM_UP))
        .map(|_| {
            let start = Instant::now();
            std::hint::black_box(product.fused(kernel, &codes, None, y, 1));
            start.elapsed().as_secs_f64()
        })
        .skip(WARM_UP)
        .collect();
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Products before the timed ones.
const WARM_UP: usize = 3;
