//! The bias of an asymmetric tensor: an integer number of `scale_n` for every scale, beside the terms.
//!
//! ```text
//! M = bias M_nsy + sum_i scale_i M_i + error        M_nsy all ones;   bias = offset scale_n
//! ```
//!
//! So `Q + offset` is on the grid of the terms. Where it fits the limbs that the terms take anyway, as it does with few bits, a
//! product with it costs what one with the terms costs; elsewhere `offset * sum_k a_k` is added to the sums.

use crate::limbs::{limb_count, limb_max, span};
use crate::series::Channels;
use crate::{Error, Series};

/// What no offset exceeds.
const MOST_OFFSET: u32 = 1 << 16;

impl Series {
    /// The series with a bias: integers in units of `scale_n`, one a scale, or none.
    ///
    /// # Errors
    /// [`Error::NotASeries`] for offsets that no expansion produces; `name` names the tensor.
    pub fn with_offsets(self, name: &str, offsets: Vec<i32>) -> Result<Self, Error> {
        let fault = |reason: String| Err(Error::NotASeries { tensor: name.to_owned(), reason });
        if offsets.iter().all(|&offset| offset == 0) {
            return Ok(self);
        }
        if self.blocks.is_some() || offsets.len() != self.scales.len() {
            return fault(format!("{} biases beside {} scales", offsets.len(), self.scales.len()));
        }
        let is_wrong =
            |(offset, scale): (&i32, &f32)| offset.unsigned_abs() > MOST_OFFSET || (*offset != 0 && *scale == 0.0);
        if let Some(at) = offsets.iter().zip(&self.scales).position(is_wrong) {
            return fault(format!("bias {at} is {} steps of {}", offsets[at], self.scales[at]));
        }
        Ok(Self { offsets, ..self })
    }

    /// `bias / scale_n`, integers, as many as scales; empty for a symmetric series.
    pub fn offsets(&self) -> &[i32] {
        &self.offsets
    }

    /// `bias`, one a scale, each exactly an integer number of `scale_n`; empty for a symmetric series.
    pub fn bias(&self) -> Vec<f32> {
        let last = self.precision.last_step() as f32;
        self.offsets.iter().zip(&self.scales).map(|(&offset, scale)| offset as f32 * (scale * last)).collect()
    }

    /// `bias / scale_n` of every channel; empty for a symmetric series.
    pub(crate) fn channel_offsets(&self) -> Vec<i64> {
        let count = if self.offsets.is_empty() { 0 } else { self.channels().count };
        (0..count).map(|channel| self.offset(channel)).collect()
    }

    /// `bias / scale_n` of a channel.
    pub(crate) fn offset(&self, channel: usize) -> i64 {
        let at = if self.scales.len() == 1 { 0 } else { channel };
        self.offsets.get(at).copied().map_or(0, i64::from)
    }
}

/// Adds the offsets of their channels to integers where all sums fit the limbs that hold integers of `width` bits anyway; says
/// whether they do.
pub(crate) fn folded(q: &mut [i32], offsets: &[i64], channels: Channels, width: u32) -> bool {
    let most = limb_max(limb_count(width));
    let mut fits = true;
    if !offsets.is_empty() {
        channels.for_each_run(q.len(), |channel, run| {
            let (low, high) = span(&q[run]);
            fits &= (i64::from(high) + offsets[channel]).max(-(i64::from(low) + offsets[channel])) <= most;
        });
        if fits {
            channels.for_each_run(q.len(), |channel, run| {
                q[run].iter_mut().for_each(|q| *q = (i64::from(*q) + offsets[channel]) as i32);
            });
        }
    }
    fits
}
