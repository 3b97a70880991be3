//! Spreading work over threads. How it is cut never changes a bit of the result.

use rayon::prelude::*;

use crate::{Buffer, Range};

/// `f(0) .. f(count - 1)` in order, on up to `threads` threads of the current pool.
pub(crate) fn map<R: Send>(count: usize, threads: usize, f: impl Fn(usize) -> R + Sync + Send) -> Vec<R> {
    if threads <= 1 || count <= 1 {
        return (0..count).map(f).collect();
    }
    (0..count).into_par_iter().map(f).collect()
}

/// Calls `f(i, line i of every plane)` for some lines, counted from the first of them; there are one to three planes.
pub(crate) fn for_lines(
    planes: &mut [Buffer],
    lines: std::ops::Range<usize>,
    len: usize,
    threads: usize,
    f: impl Fn(usize, &mut [&mut [u8]]) + Sync,
) {
    let (skipped, total) = (lines.start * len, lines.end * len);
    let some = lines.len().div_ceil(4 * threads.max(1)).max(1);
    // Lines of one, two and three planes, in order or in parallel.
    macro_rules! run {
        ($chunks:ident, |$lines:ident| $each:expr) => {
            match planes {
                [a] => {
                    let $lines = a.bytes_mut(total)[skipped..].$chunks(len);
                    $each.for_each(|(i, a)| f(i, &mut [a]))
                }
                [a, b] => {
                    let $lines =
                        a.bytes_mut(total)[skipped..].$chunks(len).zip(b.bytes_mut(total)[skipped..].$chunks(len));
                    $each.for_each(|(i, (a, b))| f(i, &mut [a, b]))
                }
                [a, b, c] => {
                    let $lines = a.bytes_mut(total)[skipped..]
                        .$chunks(len)
                        .zip(b.bytes_mut(total)[skipped..].$chunks(len))
                        .zip(c.bytes_mut(total)[skipped..].$chunks(len));
                    $each.for_each(|(i, ((a, b), c))| f(i, &mut [a, b, c]))
                }
                _ => unreachable!("codes have one to three limbs"),
            }
        };
    }
    if threads <= 1 {
        run!(chunks_exact_mut, |lines| lines.enumerate())
    } else {
        run!(par_chunks_exact_mut, |lines| lines.with_min_len(some).enumerate())
    }
}

/// Splits `out`, a sequence of images of `image_len` values, into blocks of at most `block_len` values that never cross an
/// image; returns `f(image, first value of the block within it, block)` with its image, in order.
pub(crate) fn map_blocks<T: Send, R: Send>(
    out: &mut [T],
    image_len: usize,
    block_len: usize,
    threads: usize,
    f: impl Fn(usize, usize, &mut [T]) -> R + Sync,
) -> Vec<(usize, R)> {
    if out.is_empty() {
        return Vec::new();
    }
    if threads <= 1 {
        let blocks = |(image, out): (usize, &mut [T])| {
            let block = |(i, block): (usize, &mut [T])| (image, f(image, i * block_len, block));
            out.chunks_mut(block_len).enumerate().map(block).collect::<Vec<_>>()
        };
        return out.chunks_exact_mut(image_len).enumerate().flat_map(blocks).collect();
    }
    let images = out.par_chunks_exact_mut(image_len).enumerate();
    let blocks = images.flat_map(|(image, out)| {
        let f = &f;
        out.par_chunks_mut(block_len).enumerate().map(move |(i, block)| (image, f(image, i * block_len, block)))
    });
    blocks.collect()
}

/// Makes the rows of `k` values of `y` from those of `x` by `f`, and `ranges` what it returns for each.
///
/// # Panics
/// If `x` and `y` differ in length or are not made of rows.
pub(crate) fn rows(
    (x, y): (&[f32], &mut [f32]),
    k: usize,
    ranges: &mut Vec<Range>,
    threads: usize,
    f: impl Fn(&[f32], &mut [f32]) -> Range + Sync,
) {
    let rows = x.len() / k.max(1);
    assert!(x.len() == y.len() && rows * k == x.len(), "rows of {k} values");
    ranges.clear();
    ranges.resize(rows, Range::EMPTY);
    if rows == 0 {
        return;
    }
    let some = rows.div_ceil(4 * threads.max(1));
    let block = |((y, x), ranges): ((&mut [f32], &[f32]), &mut [Range])| {
        for ((y, x), range) in y.chunks_exact_mut(k).zip(x.chunks_exact(k)).zip(ranges) {
            *range = f(x, y);
        }
    };
    if threads <= 1 {
        block(((y, x), ranges));
    } else {
        let blocks = y.par_chunks_mut(some * k).zip(x.par_chunks(some * k)).zip(ranges.par_chunks_mut(some));
        blocks.for_each(block);
    }
}

/// Ranges of `n` images from those of their parts.
pub(crate) fn united(n: usize, parts: Vec<(usize, Range)>) -> Vec<Range> {
    let mut ranges = vec![Range::EMPTY; n];
    for (image, range) in parts {
        ranges[image] = ranges[image].union(range);
    }
    ranges
}
