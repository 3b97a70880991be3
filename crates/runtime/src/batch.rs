//! A batch in parts: where every sample has its own outputs, the plan runs over a few samples after others, so that what a step
//! makes is still in the cache when the next reads it.
//!
//! ```text
//! parts = max(samples largest / MOST, threads), a multiple of the threads      largest: bytes of a sample's largest value
//! ```
//!
//! At least one sample a part, and no part so small that starting it counts. With several threads every part has one thread,
//! and what is left over when all threads had as many parts is run by all of them together.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use tract_onnx::prelude::*;

use crate::held::Scratch;
use crate::value::View;
use crate::{Error, Model, ValueView, graph};

/// Bytes that the largest value of a part has at most, if it has more than one sample: half of a second-level cache or all of it.
const MOST: u64 = 1 << 20;
/// Bytes that the largest value of a part has at least: a part reads all weights.
const LEAST: u64 = 64 << 10;

/// What is called behind every step.
pub(crate) type After<'a> = &'a mut (dyn FnMut(usize) + Send);

/// How the samples of a batch are run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Parts for one thread each.
    pub apart: Vec<Range<usize>>,
    /// The samples behind them, for all threads.
    pub together: Range<usize>,
}

/// Cuts a batch of samples whose largest value has `largest` bytes.
pub(crate) fn cut(samples: usize, largest: u64, threads: usize) -> Cut {
    let of = |bytes: u64| usize::try_from(bytes / largest.max(1)).unwrap_or(usize::MAX);
    let (most, least) = (of(MOST).max(1), of(LEAST.saturating_add(largest.max(1) - 1)).max(1));
    let parts = samples.div_ceil(most).next_multiple_of(threads).min(samples / least);
    let apart = if threads == 1 { parts.max(1) } else { parts - parts % threads };
    let bound = |part: usize| (part as u128 * samples as u128 / parts.max(1) as u128) as usize;
    Cut { apart: (0..apart).map(|part| bound(part)..bound(part + 1)).collect(), together: bound(apart)..samples }
}

impl Model {
    /// Runs the plan on checked inputs: what it makes of every part of them in turn. With `after` no two parts run at once.
    pub(crate) fn execute_parts(
        &self,
        inputs: &[ValueView<'_>],
        after: Option<After<'_>>,
    ) -> Result<Vec<Vec<TValue>>, Error> {
        let shapes: Vec<_> = inputs.iter().map(|value| value.shape()).collect();
        let Some(Cut { apart, together }) = self.cut(&shapes)? else {
            self.check_memory(&shapes, 1)?;
            let views: Vec<_> = inputs.iter().map(View::whole).collect();
            let whole = |after: After<'_>| self.with_scratch(&shapes, self.threads, |s| self.execute(&views, s, after));
            return Ok(vec![whole(after.unwrap_or(&mut |_| {}))?]);
        };
        let rest = (!together.is_empty()).then_some(together);
        let largest = apart.iter().chain(&rest).map(Range::len).max().unwrap_or(0);
        let of_part = |shape: &[usize]| [&[largest], shape.get(1..).unwrap_or(&[])].concat();
        let part_shapes: Vec<Vec<usize>> = shapes.iter().map(|shape| of_part(shape)).collect();
        let at_once = if apart.is_empty() { 1 } else { self.threads };
        self.check_memory(&part_shapes.iter().map(Vec::as_slice).collect::<Vec<_>>(), at_once)?;
        let side_by_side = after.is_none() && self.threads > 1 && !apart.is_empty();
        let mut made = if side_by_side { self.side_by_side(inputs, &shapes, &apart)? } else { Vec::new() };
        let in_turn = if side_by_side { [].iter() } else { apart.iter() };
        let mut nothing = |_| {};
        let after = after.unwrap_or(&mut nothing);
        self.with_scratch(&shapes, self.threads, |scratch| {
            for samples in in_turn.chain(&rest) {
                made.push(self.execute(&part(inputs, samples), scratch, after)?);
            }
            Ok(made)
        })
    }

    /// Runs parts with one thread each; the thread that is free first takes the next.
    fn side_by_side(
        &self,
        inputs: &[ValueView<'_>],
        shapes: &[&[usize]],
        parts: &[Range<usize>],
    ) -> Result<Vec<Vec<TValue>>, Error> {
        let next = AtomicUsize::new(0);
        let thread = |_| {
            self.with_scratch(shapes, 1, |scratch| {
                let mut made = Vec::new();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(samples) = parts.get(index) else { return made };
                    made.push((index, self.execute(&part(inputs, samples), scratch, &mut |_| {})));
                }
            })
        };
        let mut made: Vec<_> = (0..self.threads).into_par_iter().with_max_len(1).flat_map_iter(thread).collect();
        made.sort_unstable_by_key(|(index, _)| *index);
        made.into_iter().map(|(_, outputs)| outputs).collect()
    }

    /// How inputs of these shapes are cut; `None` where nothing is known of samples.
    pub(crate) fn cut(&self, shapes: &[&[usize]]) -> Result<Option<Cut>, Error> {
        let Some(samples) = &self.samples else { return Ok(None) };
        let symbols = graph::bind(&self.sources, shapes)?;
        let count = symbols.get(&samples.count).and_then(|count| usize::try_from(count).ok());
        Ok(count.map(|count| cut(count, samples.largest(&symbols), self.threads)))
    }

    /// Runs something with buffers that an earlier call left.
    fn with_scratch<T>(&self, shapes: &[&[usize]], threads: usize, run: impl FnOnce(&mut Scratch) -> T) -> T {
        let mut scratch = self.scratch.lock().map(|mut all| all.pop()).ok().flatten().unwrap_or_default();
        scratch.prepare(shapes);
        scratch.threads = threads;
        let made = run(&mut scratch);
        if let Ok(mut all) = self.scratch.lock() {
            all.push(scratch);
        }
        made
    }
}

/// Some samples of every input.
fn part<'a>(inputs: &'a [ValueView<'_>], samples: &Range<usize>) -> Vec<View<'a>> {
    inputs.iter().map(|value| View::part(value, samples.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_is_in_one_part_that_fits_the_cache() {
        for threads in [1, 2, 3, 16] {
            for samples in (1..40).chain([1000, 1 << 20]) {
                for largest in [0, 1, 7, 64 << 10, 300_000, 1 << 20, 5 << 20, u64::MAX] {
                    let Cut { apart, together } = cut(samples, largest, threads);
                    let mut end = 0;
                    for part in apart.iter().chain([&together]) {
                        assert_eq!(part.start, end);
                        end = part.end;
                    }
                    assert_eq!(end, samples);
                    assert_eq!(apart.len() % threads, 0, "every thread has as many parts");
                    let bytes = |part: &Range<usize>| part.len() as u64 * largest.clamp(1, u64::MAX >> 30);
                    assert!(apart.iter().all(|part| part.len() == 1 || bytes(part) <= MOST));
                    let small = |part: &Range<usize>| bytes(part) < LEAST;
                    assert!(apart.len() <= 1 || !apart.iter().any(small), "{samples} {largest} {threads}");
                }
            }
        }
    }

    #[test]
    fn threads_share_the_samples_evenly() {
        let image = 3 << 20;
        assert_eq!(cut(3, image, 1), Cut { apart: vec![0..1, 1..2, 2..3], together: 3..3 });
        assert_eq!(cut(3, image, 2), Cut { apart: vec![0..1, 1..2], together: 2..3 });
        assert_eq!(cut(3, image, 4), Cut { apart: vec![], together: 0..3 });
        assert_eq!(cut(7, 300_000, 1), Cut { apart: vec![0..2, 2..4, 4..7].into_iter().collect(), together: 7..7 });
        assert_eq!(cut(8, 1 << 10, 2), Cut { apart: vec![], together: 0..8 });
    }
}
