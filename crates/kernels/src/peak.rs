//! The ceiling of a kernel on this CPU, measured: its tile on operands that stay in the first-level cache.

use std::time::{Duration, Instant};

use crate::Kernel;
use crate::kernel::{MR, NR};
use crate::window::{Taps, Window};

/// Depth of the tile: codes and weights take 23 KB.
const DEPTH: usize = 512;
/// Tiles timed at once.
const TILES: u32 = 16;
/// How long the fastest is looked for.
const TIME: Duration = Duration::from_millis(10);

/// Multiply-accumulates a second of u8 by s8 on one thread, at the fastest found in a hundredth of a second.
pub fn peak(kernel: &dyn Kernel) -> f64 {
    let (codes, panel) = (vec![3u8; MR * DEPTH], vec![5i8; NR * DEPTH]);
    let taps = Taps::new(vec![0]);
    let window = Window::new(&codes, &taps, 0..1, DEPTH, MR, DEPTH).expect("rows of the codes");
    let (mut tile, mut best) = ([[0; NR]; MR], Duration::MAX);
    let begin = Instant::now();
    while begin.elapsed() < TIME {
        let start = Instant::now();
        for _ in 0..TILES {
            kernel.tile(&window, std::hint::black_box(&panel), &mut tile);
        }
        std::hint::black_box(&tile);
        best = best.min(start.elapsed());
    }
    f64::from(TILES) * (MR * NR * DEPTH) as f64 / best.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_has_a_ceiling() {
        for kernel in crate::available() {
            let peak = peak(kernel);
            assert!(peak.is_finite() && peak > 0.0, "{}: {peak}", kernel.name());
        }
    }
}
