//! Every kernel this CPU has against plain code: magnitudes, what lies beyond, and which windows read it.

use super::*;
use crate::kernel::available;

/// Codes from 0 to `code_max` on a grid of step 1, tried at twice the step after every attempt; nothing is clipped after three.
struct Doubling {
    code_max: i32,
    most: usize,
}

fn unit_grid(step: f32, zero_point: i32, code_max: i32) -> RowGrid {
    RowGrid { scale: step, inv: 1.0 / step, inv_wide: 1.0 / f64::from(step), zero_point, code_max }
}

impl Clipping for Doubling {
    fn grid(&self, range: Range) -> RowGrid {
        unit_grid(if range.is_finite() { 1000.0 } else { f32::NAN }, 0, self.code_max)
    }

    fn unit(&self, _: Range) -> f32 {
        1.0
    }

    fn clipped(&self, _: Range, sum: u64, count: usize, attempt: u32) -> Option<RowGrid> {
        assert!(sum >= count as u64, "magnitudes of at least 1");
        (attempt < 3).then(|| unit_grid((1 << attempt) as f32, self.code_max / 3, self.code_max))
    }

    fn most(&self, _: usize) -> usize {
        self.most
    }
}

/// Values around zero of magnitude at least 1, ties among them, and one in 50 far out.
fn values(len: usize) -> Vec<f32> {
    let value = |i: usize| {
        let v = (i * 37 % 83) as f32 * 0.5 - 22.0;
        let v = if v.abs() < 1.0 { 1.5 } else { v };
        if i % 50 == 11 { v * 31.0 } else { v }
    };
    (0..len).map(value).collect()
}

#[test]
fn magnitudes_are_the_sums_of_rounded_ones() {
    for kernel in available() {
        for len in [0, 1, 31, 32, 33, 1000, 70_000] {
            let x = values(len);
            for unit in [1.0, 0.3, 17.7] {
                let want: f64 = x.iter().map(|v| f64::from((v.abs() * unit).round_ties_even())).sum();
                assert_eq!(kernel.magnitudes(&x, unit) as f64, want, "{} {len}", kernel.name());
            }
        }
        let most = vec![-4_194_303.0f32; 3 * (NR << 9) + 5];
        assert_eq!(kernel.magnitudes(&most, 1.0), 4_194_303 * most.len() as u64, "{}", kernel.name());
    }
}

#[test]
fn codes_and_what_lies_beyond_them_are_the_integers() {
    for kernel in available() {
        for code_max in [15, 255, 4095, 65_535] {
            for len in [1, 32, 95, 400] {
                let (x, grid) = (values(len), unit_grid(0.25, code_max / 3, code_max));
                let mut found = vec![Beyond { at: 1, delta: 1 }];
                kernel.beyond(&x, &grid, (500, usize::MAX), &mut found);
                let want = x.iter().enumerate().filter_map(|(i, x)| {
                    let integer = (x * 4.0).round_ties_even() as i32 + code_max / 3;
                    let delta = integer - integer.clamp(0, code_max);
                    (delta != 0).then_some(Beyond { at: 500 + i, delta })
                });
                assert_eq!(found[1..], want.collect::<Vec<_>>(), "{} {code_max}", kernel.name());
            }
        }
    }
}

#[test]
fn a_clip_that_leaves_too_much_beyond_is_widened() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    let (x, k) = (values(7 * 150), 150);
    for (most, scale) in [(150, 1.0), (2, 2.0), (0, 1000.0)] {
        let mut known: Option<(Vec<RowGrid>, Vec<Beyond>)> = None;
        for kernel in available() {
            for threads in [1, 3] {
                for ranges in [None, Some(Codes::ranges(kernel, &x, k, 1))] {
                    let mut codes = Codes::default();
                    let clipping = Doubling { code_max: 127, most };
                    pool.install(|| codes.clip_rows(kernel, &x, k, ranges.as_deref(), &clipping, threads));
                    let grids: Vec<RowGrid> = (0..7).map(|r| *codes.grids(0, r, 1).row(0)).collect();
                    let made = (grids, codes.beyond().to_vec());
                    let known = known.get_or_insert_with(|| made.clone());
                    assert_eq!(*known, made, "{} {threads} {most}", kernel.name());
                }
            }
        }
        let (grids, beyond) = known.unwrap();
        assert!(grids.iter().any(|grid| grid.scale == scale), "{most}: {grids:?}");
        assert!(beyond.is_sorted_by(|a, b| a.at < b.at) && beyond.len() <= 7 * most);
        assert_eq!(beyond.is_empty(), most == 0);
    }
}

#[test]
fn images_have_what_lies_beyond_at_the_places_of_their_codes() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    let ([n, h, w, c], pads) = ([3, 5, 4, 7], [2, 1, 0, 3]);
    let x = values(n * h * w * c);
    for kernel in available() {
        let ranges = Codes::ranges(kernel, &x, h * w * c, 1);
        for threads in [1, 3] {
            let (mut codes, clipping) = (Codes::default(), Doubling { code_max: 127, most: 20 });
            pool.install(|| codes.clip_images(kernel, &x, [n, h, w, c], pads, &ranges, &clipping, threads));
            let mut beyond = codes.beyond().to_vec();
            assert!(!beyond.is_empty(), "something lies beyond");
            for (i, &x) in x.iter().enumerate() {
                let (image, y, rest) = (i / (h * w * c), i / (w * c) % h, i % (w * c));
                let at = image * codes.image_len() + ((y + pads[0]) * (w + 4) + pads[1]) * c + rest;
                let grid = *codes.grids(image, 0, 1).row(0);
                let delta = beyond.iter().position(|one| one.at == at).map_or(0, |i| beyond.remove(i).delta);
                let got = i32::from(codes.plane(0)[at]) + delta - grid.zero_point;
                assert_eq!(got, (x / grid.scale).round_ties_even() as i32, "{} value {i}", kernel.name());
            }
            assert!(beyond.is_empty(), "nothing lies elsewhere");
        }
    }
}

#[test]
fn non_finite_rows_are_not_clipped() {
    for kernel in available() {
        let mut x = values(200);
        x[150] = f32::NAN;
        let mut codes = Codes::default();
        codes.clip_rows(kernel, &x, 100, None, &Doubling { code_max: 127, most: 100 }, 1);
        assert!(codes.grids(0, 1, 1).row(0).scale.is_nan() && codes.grids(0, 0, 1).row(0).scale == 1.0);
        assert!(codes.beyond().iter().all(|one| one.at < 100));
    }
}

#[test]
fn windows_find_what_they_read() {
    let beyond: Vec<Beyond> = (0..400).filter(|at| at % 7 < 2).map(|at| Beyond { at, delta: at as i32 + 1 }).collect();
    let taps = [0, 3, 40];
    for (rows, row_stride, lines, line_stride, len) in
        [(1, 5, 1, 0, 1), (4, 3, 3, 50, 8), (3, 10, 2, 33, 4), (5, 1, 1, 0, 32), (2, 64, 2, 128, 2)]
    {
        for base in [0, 5, 111, 390] {
            let windows = Windows { base, rows, row_stride, lines, line_stride, taps: &taps, len, depth: 36 };
            let mut hits = Vec::new();
            windows.hits(&beyond, &mut hits);
            let mut want = Vec::new();
            for (line, row, tap) in
                (0..lines).flat_map(|l| (0..rows).flat_map(move |r| (0..taps.len()).map(move |t| (l, r, t))))
            {
                for k in 0..len {
                    let at = base + line * line_stride + row * row_stride + taps[tap] + k;
                    let found = beyond.iter().find(|one| one.at == at);
                    want.extend(found.map(|one| (line * rows + row, tap * 36 + k, one.delta)));
                }
            }
            let mut got: Vec<_> = hits.iter().map(|hit| (hit.row, hit.at, hit.delta)).collect();
            got.sort_unstable();
            want.sort_unstable();
            assert_eq!(got, want, "{base}, {rows} rows of {lines} lines");
        }
    }
}
