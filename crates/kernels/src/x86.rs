//! What the kernels for x86-64 share: one macro that makes a kernel of its name, its features and its tiles, one that cuts a
//! tile into blocks of rows, and the depthwise tiles.

use crate::kernel::MR;

/// Makes the type `$kernel` named `$name`, for CPUs that have every `$feature`.
///
/// The invoking module holds `tile`, `depthwise`, `fused`, `fused_depthwise`, `float_product`, `transpose`, `turn`, `code_queries`,
/// `code_values` and `weigh`, safe functions that enable no feature beyond these: the compiler checks it. The loops of [`crate::bodies`] and of the float operators are compiled
/// for the same features.
macro_rules! x86_kernel {
    ($(#[$doc:meta])* $kernel:ident, $name:literal, $columns:literal columns, [$($feature:tt),* $(,)?]) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $kernel(());

        impl $kernel {
            /// The kernel, where this CPU has its features.
            pub(crate) fn get() -> Option<&'static Self> {
                static KERNEL: $kernel = $kernel(());
                let has = $(is_x86_feature_detected!($feature))&&*;
                has.then_some(&KERNEL)
            }
        }

        impl $crate::Kernel for $kernel {
            fn name(&self) -> &'static str {
                $name
            }
        }

        impl $crate::kernel::sealed::Routines for $kernel {
            $crate::x86::x86_routine!(tile(window: &$crate::window::Window<'_>, panel: &[i8], tile: &mut $crate::kernel::Tile), self::tile, [$($feature),*]);
            $crate::x86::x86_routine!(
                depthwise(strip: &$crate::window::Strip<'_>, weights: &[$crate::kernel::Pairs], tile: &mut $crate::kernel::Tile), self::depthwise, [$($feature),*]
            );
            $crate::x86::x86_routine!(
                fused(partials: &[$crate::kernel::Partial<'_, i8>], ending: $crate::kernel::Ending<'_>), self::fused, [$($feature),*]
            );
            $crate::x86::x86_routine!(
                fused_depthwise(partials: &[$crate::kernel::Partial<'_, $crate::kernel::Pairs>], ending: $crate::kernel::Ending<'_>),
                self::fused_depthwise, [$($feature),*]
            );
            $crate::x86::x86_routine!(
                finish_wide(tile: &$crate::kernel::WideTile, grids: $crate::kernel::Grids<'_>, columns: &$crate::kernel::Columns<'_>, place: $crate::kernel::Place<'_>, lanes: &mut $crate::range::Lanes),
                $crate::bodies::finish_wide::<$columns>, [$($feature),*]
            );
            $crate::x86::x86_routine!(
                quantise(x: &[f32], grid: &$crate::kernel::RowGrid, planes: &mut [&mut [u8]]), $crate::bodies::quantise, [$($feature),*]
            );
            $crate::x86::x86_routine!(
                beyond(x: &[f32], grid: &$crate::kernel::RowGrid, places: (usize, usize), beyond: &mut Vec<$crate::Beyond>), $crate::bodies::sparse::beyond, [$($feature),*]
            );
            $crate::x86::x86_routine!(magnitudes(x: &[f32], unit: f32) -> u64, $crate::bodies::sparse::magnitudes, [$($feature),*]);
            $crate::x86::x86_routine!(
                scatter(hits: &[$crate::beyond::Hit], panel: &[i8], bits: u32, tile: &mut [[i32; $crate::NR]]), $crate::bodies::sparse::scatter, [$($feature),*]
            );
            $crate::x86::x86_routine!(
                totals(windows: &$crate::beyond::Windows<'_>, plane: &[u8], bits: u32, totals: &mut [i64]), $crate::bodies::sparse::totals, [$($feature),*]
            );
            $crate::x86::x86_routine!(range(x: &[f32]) -> $crate::Range, $crate::bodies::range, [$($feature),*]);
            $crate::x86::x86_routine!(
                max_pool(line: &$crate::pool::Line<'_>, finite: bool, y: &mut [f32]), $crate::pool::max::<32>, [$($feature),*]
            );
            $crate::x86::x86_routine!(
                average_pool(line: &$crate::pool::Line<'_>, y: &mut [f32]), $crate::pool::average::<32>, [$($feature),*]
            );
            $crate::x86::x86_routine!(mean(x: &[f32], y: &mut [f32]), $crate::pool::mean, [$($feature),*]);
            $crate::x86::x86_routine!(
                activate(activation: $crate::Activation, x: &[f32], y: &mut [f32]), $crate::activation::activate, [$($feature),*]
            );
            $crate::x86::x86_routine!(
                normalise(norm: &$crate::Norm, x: &[f32], y: &mut [f32]) -> $crate::Range, $crate::normalise::normalise, [$($feature),*]
            );
            $crate::x86::x86_routine!(turn(factors: &[f32], x: &[f32], y: &mut [f32]), self::turn, [$($feature),*]);
            $crate::x86::x86_routine!(
                exponentials(x: &mut [f32], scores: Option<$crate::softmax::Scores<'_>>) -> f32, $crate::softmax::exponentials, [$($feature),*]
            );
            $crate::x86::x86_routine!(scale(x: &mut [f32], by: f32), $crate::softmax::scale, [$($feature),*]);
            $crate::x86::x86_routine!(sum(x: &[f32], y: &mut [f32]), $crate::softmax::sum_rows::<64>, [$($feature),*]);
            $crate::x86::x86_routine!(
                float_product(lhs: &$crate::attention::Factor<'_>, panel: &[f32], target: $crate::attention::Target<'_>), self::float_product, [$($feature),*]
            );
            $crate::x86::x86_routine!(
                code_queries(x: &$crate::attention::Factor<'_>, steps: u8, codes: &mut [u8], scales: &mut [f32]), self::code_queries, [$($feature),*]
            );
            $crate::x86::x86_routine!(
                code_keys(x: &[f32], steps: u8, panel: &mut [i8], of: (&mut [i32; $crate::kernel::NR], &mut [f32; $crate::kernel::NR])), $crate::attention::integers::bodies::code_keys, [$($feature),*]
            );
            $crate::x86::x86_routine!(
                code_values(x: &$crate::attention::Factor<'_>, steps: u8, packed: &mut [i8], scales: &mut [f32]), self::code_values, [$($feature),*]
            );
            $crate::x86::x86_routine!(
                weigh(block: $crate::attention::integers::Weighed<'_>, scales: &mut [f32]), self::weigh, [$($feature),*]
            );
            $crate::x86::x86_routine!(transpose(x: &$crate::attention::Factor<'_>, panel: &mut [f32]), self::transpose, [$($feature),*]);
        }
    };
}

/// Functions `fused` and `fused_depthwise` that do one after the other what the module's tiles and the common epilogue do.
macro_rules! x86_by_parts {
    ($columns:literal columns, $features:literal) => {
        #[target_feature(enable = $features)]
        fn fused(partials: &[$crate::kernel::Partial<'_, i8>], ending: $crate::kernel::Ending<'_>) {
            $crate::bodies::by_parts::<$columns, _>(partials, ending, |lines, [line, first, rows], panel, sums| {
                tile(&lines.window(line, first, rows), panel, sums);
            });
        }

        #[target_feature(enable = $features)]
        fn fused_depthwise(
            partials: &[$crate::kernel::Partial<'_, $crate::kernel::Pairs>],
            ending: $crate::kernel::Ending<'_>,
        ) {
            $crate::bodies::by_parts::<$columns, _>(partials, ending, |lines, [line, first, rows], weights, sums| {
                depthwise(&lines.strip(line, first, rows), weights, sums);
            });
        }
    };
}

/// A method that runs `$body`, compiled for these features.
macro_rules! x86_routine {
    ($name:ident($($arg:ident: $kind:ty),*) $(-> $out:ty)?, $body:path, [$($feature:tt),*]) => {
        fn $name(&self, $($arg: $kind),*) $(-> $out)? {
            #[target_feature($(enable = $feature),*)]
            fn compiled($($arg: $kind),*) $(-> $out)? {
                $body($($arg),*)
            }
            // SAFETY: `self` exists only where `get` found these features.
            unsafe { compiled($($arg),*) }
        }
    };
}

/// Runs `$block::<height>(..)` over `$total` rows, at most [`MR`], in blocks of nearly equal height up to `$most`; `$first` is
/// the first row of each.
macro_rules! by_rows {
    ($total:expr, $most:literal, $rows:tt, |$first:ident| $block:ident $args:tt) => {
        by_rows!(@ $total, $most, $rows, $first, $block, [], $args)
    };
    ($total:expr, $most:literal, $rows:tt, |$first:ident| $block:ident<$constant:tt> $args:tt) => {
        by_rows!(@ $total, $most, $rows, $first, $block, [$constant], $args)
    };
    (@ $total:expr, $most:literal, [$($rows:literal)*], $first:ident, $block:ident, $constants:tt, $args:tt) => {
        const HEIGHTS: [usize; $crate::kernel::MR + 1] = $crate::x86::heights($most);
        let (total, mut $first) = ($total, 0);
        while $first < total {
            let height = HEIGHTS[total - $first];
            match height {
                $($rows => $crate::x86::block!($block, $rows, $constants, $args),)*
                _ => unreachable!("blocks have up to {} rows", $most),
            }
            $first += height;
        }
    };
}

/// Runs `$block::<rows, constants>(..)`.
macro_rules! block {
    ($block:ident, $rows:literal, [$($constant:tt),*], $args:tt) => {
        $block::<$rows $(, $constant)*> $args
    };
}

/// By number of rows left, the height of the next block of at most `most`.
pub(crate) const fn heights(most: usize) -> [usize; MR + 1] {
    let mut heights = [0; MR + 1];
    let mut left = 1;
    while left <= MR {
        heights[left] = left.div_ceil(left.div_ceil(most));
        left += 1;
    }
    heights
}

pub(crate) use {block, by_rows, x86_by_parts, x86_kernel, x86_routine};

mod depthwise;
mod floats;
mod rotation;

pub(crate) use depthwise::{depthwise_256, store_256};
pub(crate) use floats::float_product_256;
pub(crate) use rotation::turn_256;
