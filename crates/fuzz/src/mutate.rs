//! Inputs made out of others, the same ones for the same seed.

/// Bytes that lengths, dimensions and kinds of fields are made of.
const INTERESTING: &[&[u8]] = &[
    &[0],
    &[1],
    &[0x7f],
    &[0x80],
    &[0xff],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0x80, 0x80, 0x80, 0x80, 0x08],
    &[0, 0, 0x80, 0x7f],
    &[0, 0, 0xc0, 0x7f],
    &[0, 0, 0, 0x80],
    b"fpxint.version",
    b"fpxint.layer.",
    b"int8x4",
    b"int4x",
    b"\"",
    b"\\u0000",
    b"[layers]",
    b" = { weights = \"int4x2\", activations = \"int4x2\" }\n",
    b"(4294967295, 4294967295)",
    b"'fortran_order': True",
    b"../",
    b"/dev/zero",
];

/// Most bytes that an input grows to.
const MOST: usize = 1 << 16;

/// Makes inputs by a few random changes to one of a corpus.
#[derive(Debug)]
pub struct Mutator(u64);

impl Mutator {
    /// A mutator that makes the inputs of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number (splitmix64).
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, or 0.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// A part of something of this length, mostly a short one.
    fn part(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length);
        let most = if self.below(4) == 0 { length - start } else { (length - start).min(16) };
        start..start + self.below(most + 1)
    }

    /// An input out of the corpus, changed.
    pub fn input(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let from = self.below(corpus.len());
        let mut bytes = corpus.get(from).cloned().unwrap_or_default();
        for _ in 0..1 + self.below(4) {
            self.change(&mut bytes, corpus);
        }
        bytes.truncate(MOST);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        if bytes.is_empty() {
            bytes.push(self.next() as u8);
        }
        let at = self.below(bytes.len());
        match self.below(9) {
            0 => bytes[at] ^= 1 << self.below(8),
            1 => bytes[at] = self.next() as u8,
            2 => bytes[at] = bytes[at].wrapping_add(1 + (254 * self.below(2)) as u8),
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(self.part(at + 1))),
            5 => {
                let part = self.part(bytes.len());
                let copy = bytes[part].to_vec();
                bytes.splice(at..at, copy);
            }
            6 => {
                let word = INTERESTING[self.below(INTERESTING.len())];
                bytes.splice(at..at, word.iter().copied());
            }
            7 => {
                let word = INTERESTING[self.below(INTERESTING.len())];
                let end = (at + word.len()).min(bytes.len());
                bytes.splice(at..end, word.iter().copied());
            }
            _ => {
                let other = &corpus[self.below(corpus.len())];
                let part = self.part(other.len());
                let end = (at + part.len()).min(bytes.len());
                bytes.splice(at..end, other[part].iter().copied());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_differ_and_come_back_with_their_seed() {
        let corpus = vec![b"one".to_vec(), vec![7; 300], Vec::new()];
        let inputs = |seed| {
            let mut mutator = Mutator::new(seed);
            (0..500).map(|_| mutator.input(&corpus)).collect::<Vec<_>>()
        };
        assert_eq!(inputs(3), inputs(3));
        assert_ne!(inputs(3), inputs(4));
        let unlike = inputs(3).into_iter().filter(|input| !corpus.contains(input)).count();
        assert!(unlike > 400, "{unlike} of 500 are new");
    }
}
