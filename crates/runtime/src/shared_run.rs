//! Running a layer of a model that is shared over workers.
//!
//! ```text
//! terms     the sums of this worker's members, tile by tile; each tile is reduced while the next is computed; then the epilogue
//! channels  this worker's output channels, epilogue included; then those of all workers
//! ```

use std::sync::Arc;
use std::sync::mpsc;

use fpxint::{Gather, GroupError, Reduce};
use fpxint_kernels::{Codes, Range, Residual};
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::*;

use crate::Model;
use crate::held::Scratch;
use crate::shared::{ChannelShare, Shared, TermShare};
use crate::sharing::Sharing;

/// What a layer is made of: its codes and the values that are added.
pub(crate) struct Feed<'a> {
    pub codes: &'a Codes,
    pub residual: Option<Residual<'a>>,
    /// Images of the output; 1 for a matrix.
    pub images: usize,
}

impl Model {
    /// The outputs `y` of a layer of which this process has a share; returns their ranges as [`fpxint_kernels::Product::fused`] does.
    pub(crate) fn shared_layer(
        &self,
        index: usize,
        shared: &Shared,
        feed: Feed<'_>,
        y: &mut [f32],
        scratch: &mut Scratch,
    ) -> TractResult<Vec<Range>> {
        match (shared, &self.sharing) {
            (Shared::Terms(share), Sharing::Terms { reduce, .. }) => {
                let mut sums = std::mem::take(&mut scratch.sums);
                sums.clear();
                sums.resize(y.len(), 0);
                self.reduced_sums(index, share, reduce, &feed, (&mut sums, &mut *scratch))?;
                let product = &self.layers[index].product;
                let ranges = product.finish(self.kernel, feed.codes, &sums, feed.residual, y, scratch.threads);
                scratch.sums = sums;
                Ok(ranges)
            }
            (Shared::Terms(share), _) => {
                let working = self.working.as_ref().context("a crew without workers")?;
                let mut sums = std::mem::take(&mut scratch.sums);
                sums.clear();
                sums.resize(y.len(), 0);
                let finish = self.crew_sums(index, working, share, feed.codes, (&mut sums, &mut *scratch))?;
                let product = finish.product(&self.layers[index].product);
                let ranges = product.finish(self.kernel, feed.codes, &sums, feed.residual, y, scratch.threads);
                scratch.sums = sums;
                Ok(ranges)
            }
            (Shared::Channels(share), Sharing::Channels { gather, .. }) => {
                self.gathered(index, share, gather, feed, y, scratch)
            }
            (Shared::Channels(_), _) => bail!("channels of a model that is not shared by channels"),
        }
    }

    /// Adds the sums of this worker's members and those of all others.
    fn reduced_sums(
        &self,
        index: usize,
        share: &TermShare,
        reduce: &Arc<dyn Reduce>,
        feed: &Feed<'_>,
        (sums, scratch): (&mut [i64], &mut Scratch),
    ) -> Result<(), GroupError> {
        let own = share.workers.first().map_or(&[][..], Vec::as_slice);
        let threads = scratch.threads;
        let room = scratch.room();
        let mut fill = |first: usize, sums: &mut [i64]| {
            for part in own {
                part.product.partial_of(self.kernel, feed.codes, part.share, (first, &mut *sums), threads, room);
            }
        };
        let tiles = reduce.tiles(sums.len());
        if tiles <= 1 {
            fill(0, sums);
            return reduce.all_reduce(index, sums, share.width);
        }
        let channels = self.layers[index].geometry.channels_out();
        let rows = (sums.len() / channels.max(1)).div_ceil(tiles).max(1);
        std::thread::scope(|scope| {
            let (done, made) = mpsc::channel::<&mut [i64]>();
            let reducing = scope.spawn(move || {
                for tile in made {
                    reduce.all_reduce(index, tile, share.width)?;
                }
                Ok(())
            });
            for (i, tile) in sums.chunks_mut(rows * channels).enumerate() {
                fill(i * rows, &mut *tile);
                // Where the other end is gone it has an error to tell.
                if done.send(tile).is_err() {
                    break;
                }
            }
            drop(done);
            reducing.join().unwrap_or_else(|_| Err(GroupError("the reduce ended".to_owned())))
        })
    }

    /// This worker's output channels, and those of all others.
    fn gathered(
        &self,
        index: usize,
        share: &ChannelShare,
        gather: &Arc<dyn Gather>,
        feed: Feed<'_>,
        y: &mut [f32],
        scratch: &mut Scratch,
    ) -> TractResult<Vec<Range>> {
        let all = share.bounds[share.bounds.len() - 1];
        let rows = y.len() / all.max(1);
        let [mut own, mut residual, mut gathered] = std::mem::take(&mut scratch.channels);
        let (first, end) = (share.bounds[share.worker], share.bounds[share.worker + 1]);
        own.clear();
        own.resize(rows * (end - first), 0.0);
        if let Some(product) = &share.own {
            residual.clear();
            if let Some(whole) = &feed.residual {
                residual.extend(whole.values.chunks_exact(all).flat_map(|row| &row[first..end]));
            }
            let values = feed.residual.map(|r| Residual { values: &residual, largest: r.largest });
            product.fused(self.kernel, feed.codes, values, &mut own, scratch.threads);
        }
        let counts: Vec<usize> = share.bounds.windows(2).map(|b| rows * (b[1] - b[0])).collect();
        gathered.clear();
        gathered.resize(y.len(), 0.0);
        gather.all_gather(index, &own, &counts, &mut gathered)?;
        let mut from = &gathered[..];
        for (bounds, &count) in share.bounds.windows(2).zip(&counts) {
            let (part, rest) = from.split_at(count);
            let width = bounds[1] - bounds[0];
            for (row, part) in y.chunks_exact_mut(all).zip(part.chunks_exact(width.max(1))) {
                row[bounds[0]..bounds[1]].copy_from_slice(part);
            }
            from = rest;
        }
        scratch.channels = [own, residual, gathered];
        Ok(Codes::ranges(self.kernel, y, y.len() / feed.images.max(1), scratch.threads))
    }
}
