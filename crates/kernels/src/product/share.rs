//! A product of a member of a group: some bits of the codes by weights that lie packed to their bits.
//!
//! A code is the sum of its digits, so the products of a group's members add up to the whole:
//!
//! ```text
//! u = sum over members (u & mask),     member = sum_k Q[k, c] ((u[r, k] & mask) - offset - (zp[r], where it is its own))
//! ```
//!
//! with offsets that add up to zero. Digits of weights lie in 2, 4, 8 or 16 bits, whichever hold those of the layer, and are
//! unpacked into room that all layers share while they are multiplied. In memory a block of values is cut into as many parts as
//! values share a byte: byte `i` of the block holds value `i` of every part, the first in its lowest bits.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::codes::Codes;
use crate::kernel::{Kernel, NR, Pairs};
use crate::panels::Packed;
use crate::run;

use super::{Call, Product};

/// What of the codes a product takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Bits of a code that are multiplied.
    pub mask: u32,
    /// Subtracted from what they stand for.
    pub offset: i64,
    /// Whether the zero point is subtracted too, and what else belongs to the weights rather than to digits of the codes is added.
    pub owner: bool,
}

impl Share {
    /// All of the codes.
    pub const WHOLE: Share = Share { mask: u32::MAX, offset: 0, owner: true };

    /// Whether a plane of the codes has bits of it.
    pub(super) fn has(self, plane: usize) -> bool {
        (self.mask >> (8 * plane)) & 0xff != 0
    }

    /// Whether what lies beyond the codes belongs to it.
    pub(super) fn owns(self) -> bool {
        self.owner
    }

    /// What the masked code of nothing stands for, given the zero point.
    pub(super) fn zero(self, zero_point: i32) -> i64 {
        self.offset + if self.owner { i64::from(zero_point) } else { 0 }
    }
}

/// Room for what a member's product needs while it runs, reused from call to call.
#[derive(Debug, Default)]
pub struct Room {
    masked: Codes,
    unpacked: Option<Packed>,
    /// Whose digits are unpacked.
    holds: u64,
}

impl Room {
    /// Bytes held for unpacked digits.
    pub fn bytes(&self) -> usize {
        self.unpacked.as_ref().map_or(0, Packed::bytes)
    }
}

/// Consecutive values that are packed at once, so that unpacking is a loop over vectors.
const BLOCK: usize = 4 * NR;

/// Digits of one place, packed.
#[derive(Debug)]
struct Place {
    bits: u32,
    bytes: Vec<u8>,
    len: usize,
}

/// Digits of all places.
#[derive(Debug)]
pub(super) struct Stored {
    /// Another for every product.
    id: u64,
    places: Vec<Place>,
    depthwise: bool,
}

impl Place {
    /// Packs digits into the fewest bits.
    fn new(digits: impl ExactSizeIterator<Item = i16> + Clone) -> Self {
        let (low, high) = digits.clone().fold((0, 0), |(low, high), digit| (digit.min(low), digit.max(high)));
        let bits = [2u32, 4, 8, 16].into_iter().find(|bits| low >= -1 << (bits - 1) && high < 1 << (bits - 1));
        let (bits, len, all) = (bits.unwrap_or(16), digits.len(), digits.collect::<Vec<_>>());
        if bits == 16 {
            return Self { bits, len, bytes: all.iter().flat_map(|digit| digit.to_le_bytes()).collect() };
        }
        let part = BLOCK * bits as usize / 8;
        let mut bytes = vec![0u8; len.div_ceil(BLOCK) * part];
        for (block, bytes) in all.chunks(BLOCK).zip(bytes.chunks_exact_mut(part)) {
            for (i, digits) in block.chunks(part).enumerate() {
                let shift = bits * i as u32;
                for (byte, &digit) in bytes.iter_mut().zip(digits) {
                    *byte |= (digit as u8 & (0xff >> (8 - bits))) << shift;
                }
            }
        }
        Self { bits, bytes, len }
    }

    /// Calls `put(first, digits)` with the digits, some at a time.
    fn unpack(&self, from: usize, blocks: usize, mut put: impl FnMut(usize, &[i8])) {
        let part = BLOCK * self.bits as usize / 8;
        let lift = 8 - self.bits;
        let bytes = self.bytes.chunks_exact(part).enumerate().skip(from).take(blocks);
        for (block, bytes) in bytes {
            let mut digits = [0i8; BLOCK];
            for (i, digits) in digits.chunks_exact_mut(part).enumerate() {
                let up = lift - self.bits * i as u32;
                for (digit, &byte) in digits.iter_mut().zip(bytes) {
                    *digit = (byte << up) as i8 >> lift;
                }
            }
            let first = block * BLOCK;
            put(first, &digits[..BLOCK.min(self.len - first)]);
        }
    }
}

/// Blocks that a thread unpacks at a time.
const BLOCKS: usize = 512;

impl Stored {
    fn new(packed: &Packed) -> Self {
        static PRODUCTS: AtomicU64 = AtomicU64::new(1);
        let id = PRODUCTS.fetch_add(1, Ordering::Relaxed);
        match packed {
            Packed::Limbs(limbs) => {
                let places = limbs.iter().map(|limb| Place::new(limb.iter().map(|&digit| i16::from(digit)))).collect();
                Self { id, places, depthwise: false }
            }
            Packed::Words(words) => {
                let place = |words: &Vec<Pairs>| {
                    let flat = words.as_flattened().as_flattened();
                    Place::new(flat.iter().copied())
                };
                Self { id, places: words.iter().map(place).collect(), depthwise: true }
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.places.iter().map(|place| place.bytes.len()).sum()
    }

    /// Unpacks into `to`, whose memory is used where it is of the kind.
    fn unpack(&self, to: Option<Packed>, threads: usize) -> Packed {
        if self.depthwise {
            let mut words = if let Some(Packed::Words(words)) = to { words } else { Vec::new() };
            words.resize_with(self.places.len(), Vec::new);
            for (place, words) in self.places.iter().zip(&mut words) {
                words.resize(place.len / (2 * NR), [[0; 2]; NR]);
                place.words(words.as_flattened_mut().as_flattened_mut());
            }
            return Packed::Words(words);
        }
        let mut limbs = if let Some(Packed::Limbs(limbs)) = to { limbs } else { Vec::new() };
        limbs.resize_with(self.places.len(), Vec::new);
        for (place, limb) in self.places.iter().zip(&mut limbs) {
            limb.resize(place.len, 0);
            let all = limb.len().max(1);
            run::map_blocks(limb, all, BLOCKS * BLOCK, threads, |_, start, digits| {
                let from = start / BLOCK;
                place.unpack(from, BLOCKS, |first, part| digits[first - start..][..part.len()].copy_from_slice(part));
            });
        }
        Packed::Limbs(limbs)
    }
}

impl Place {
    /// Unpacks words.
    fn words(&self, words: &mut [i16]) {
        if self.bits == 16 {
            let (pairs, _) = self.bytes.as_chunks();
            return words.iter_mut().zip(pairs).for_each(|(word, &pair)| *word = i16::from_le_bytes(pair));
        }
        self.unpack(0, usize::MAX, |first, part| {
            words[first..].iter_mut().zip(part).for_each(|(word, &digit)| *word = i16::from(digit));
        });
    }
}

impl Product {
    /// Keeps the digits of the weights in as few bits as hold them, where that is less; from then on only [`Product::partial_of`] and
    /// [`Product::finish`] run.
    pub fn condense(&mut self) {
        let stored = Stored::new(&self.packed);
        if self.stored.is_none() && stored.bytes() < self.packed.bytes() {
            self.packed = match self.packed {
                Packed::Limbs(_) => Packed::Limbs(Vec::new()),
                Packed::Words(_) => Packed::Words(Vec::new()),
            };
            self.stored = Some(stored);
        }
    }

    /// Bytes of what is held beside the digits: sums of columns, scales, bias and means.
    pub fn constant_bytes(&self) -> usize {
        let lanes = size_of_val(&self.scales[..]) + size_of_val(&self.bias[..]) + size_of_val(&self.narrow_sums[..]);
        lanes + size_of_val(&self.sums[..]) + size_of_val(&self.means[..]) + size_of_val(&self.narrow_means[..])
    }

    /// Adds the sums of a part of the codes to `sums`, which are those of `pixels` consecutive outputs from `first` on (all images
    /// in a row, `channels_out` values each), modulo 2^64.
    ///
    /// # Panics
    /// If `sums` do not lie within the outputs.
    #[allow(clippy::too_many_arguments)]
    pub fn partial_of(
        &self,
        kernel: &dyn Kernel,
        codes: &Codes,
        share: Share,
        (first, sums): (usize, &mut [i64]),
        threads: usize,
        room: &mut Room,
    ) {
        let [height, width] = codes.output(&self.shape);
        let (pixels, channels) = (height * width, self.shape.channels_out);
        assert!(first * channels + sums.len() <= codes.images() * pixels * channels, "outputs of another shape");
        let covers = (u64::from(share.mask) & codes.code_max() as u64) == codes.code_max() as u64;
        if !covers {
            codes.mask(share.mask, &mut room.masked);
        }
        let codes = if covers { codes } else { &room.masked };
        if let Some(stored) = self.stored.as_ref().filter(|stored| stored.id != room.holds) {
            room.unpacked = Some(stored.unpack(room.unpacked.take(), threads));
            room.holds = stored.id;
        }
        let unpacked = room.unpacked.as_ref().filter(|_| self.stored.is_some());
        let call = Call::of(kernel, self, unpacked.unwrap_or(&self.packed), codes).by_tiles().with(share);
        let (_, block) = call.blocks(codes.images() * pixels * channels, threads);
        let (mut first, mut rest) = (first, sums);
        while !rest.is_empty() {
            let (image, start) = (first / pixels, first % pixels * channels);
            let (within, after) = rest.split_at_mut(rest.len().min(pixels * channels - start));
            let all = within.len();
            run::map_blocks(within, all, block, threads, |_, from, part| call.add_to_block(image, start + from, part));
            first += all / channels;
            rest = after;
        }
    }
}

#[cfg(test)]
mod tests;
