//! A pass over the protobuf wire format before anything is decoded: counts records, so that a small file that would
//! decode into much memory is refused first.
//!
//! An empty nested message takes two bytes in a file and some hundred in memory. Every field of the messages below counts
//! as one record; of a tensor only its strings and nested messages do, its numbers being as large in the file.

use crate::Limits;

/// Messages that are entered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Model,
    Function,
    Training,
    Graph,
    Node,
    Attribute,
    Tensor,
    Sparse,
    Value,
    Type,
    Typed,
    Shape,
}

impl Kind {
    /// Message that a length-delimited field holds.
    fn child(self, field: u64) -> Option<Self> {
        match (self, field) {
            (Self::Model, 7) | (Self::Training, 1 | 2) | (Self::Attribute, 6 | 11) => Some(Self::Graph),
            (Self::Model, 20) => Some(Self::Training),
            (Self::Model, 25) => Some(Self::Function),
            (Self::Function, 7) | (Self::Graph, 1) => Some(Self::Node),
            (Self::Function, 11) | (Self::Node, 5) => Some(Self::Attribute),
            (Self::Function, 12) | (Self::Graph, 11..=13) => Some(Self::Value),
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::Sparse, 1 | 2) => Some(Self::Tensor),
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Some(Self::Sparse),
            (Self::Attribute, 14 | 15) | (Self::Value, 2) | (Self::Typed, 1) => Some(Self::Type),
            (Self::Type, 1 | 4 | 5 | 8 | 9) => Some(Self::Typed),
            (Self::Typed, 2) => Some(Self::Shape),
            _ => None,
        }
    }
}

/// Why a file is refused before decoding.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No protobuf at this byte offset.
    Malformed(usize),
    /// Too many nodes.
    Nodes,
    /// Too many records.
    Records,
    /// Records too deep in records.
    Nesting,
}

/// Walks the records of a model.
pub(crate) fn scan(bytes: &[u8], limits: &Limits) -> Result<(), Fault> {
    let mut scanner = Scanner { bytes, limits, nodes: 0, records: 0 };
    scanner.message(0, bytes.len(), Kind::Model, 0)
}

/// Deepest nesting of messages that the decoder takes.
const MAX_DEPTH: u32 = 100;

struct Scanner<'a> {
    bytes: &'a [u8],
    limits: &'a Limits,
    nodes: u64,
    records: u64,
}

impl Scanner<'_> {
    fn message(&mut self, mut at: usize, end: usize, kind: Kind, depth: u32) -> Result<(), Fault> {
        if depth > self.limits.max_nesting.min(MAX_DEPTH) {
            return Err(Fault::Nesting);
        }
        if kind == Kind::Node {
            self.nodes += 1;
            if self.nodes > self.limits.max_nodes {
                return Err(Fault::Nodes);
            }
        }
        while at < end {
            let start = at;
            let key = self.varint(&mut at, end)?;
            let wire = key & 7;
            if kind != Kind::Tensor || wire == 2 {
                self.records += 1;
                if self.records > self.limits.max_records {
                    return Err(Fault::Records);
                }
            }
            let length = match wire {
                0 => self.varint(&mut at, end).map(|_| 0)?,
                1 => 8,
                2 => self.varint(&mut at, end)?,
                5 => 4,
                _ => return Err(Fault::Malformed(start)),
            };
            let length = usize::try_from(length).ok().filter(|&n| n <= end - at).ok_or(Fault::Malformed(start))?;
            if wire == 2
                && let Some(child) = kind.child(key >> 3)
            {
                self.message(at, at + length, child, depth + 1)?;
            }
            at += length;
        }
        Ok(())
    }

    fn varint(&self, at: &mut usize, end: usize) -> Result<u64, Fault> {
        let start = *at;
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes[..end].get(*at).ok_or(Fault::Malformed(start))?;
            *at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Fault::Malformed(start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `graph { node {} node {} .. }`
    fn nodes(count: u8) -> Vec<u8> {
        let mut bytes = vec![7 << 3 | 2, 2 * count];
        bytes.extend([1 << 3 | 2, 0].repeat(count.into()));
        bytes
    }

    #[test]
    fn counts_are_exact() {
        let limits = Limits { max_nodes: 3, max_records: 100, ..Limits::default() };
        assert_eq!(scan(&nodes(3), &limits), Ok(()));
        assert_eq!(scan(&nodes(4), &limits), Err(Fault::Nodes));
        let limits = Limits { max_records: 4, ..Limits::default() };
        assert_eq!(scan(&nodes(3), &limits), Ok(()));
        assert_eq!(scan(&nodes(4), &limits), Err(Fault::Records));
    }

    #[test]
    fn lengths_beyond_the_message_are_malformed() {
        let limits = Limits::default();
        assert_eq!(scan(&[7 << 3 | 2, 3, 1 << 3 | 2, 0], &limits), Err(Fault::Malformed(0)));
        assert_eq!(scan(&[7 << 3 | 2, 2, 1 << 3 | 2, 1, 0], &limits), Err(Fault::Malformed(2)));
        assert_eq!(scan(&[0xff; 12], &limits), Err(Fault::Malformed(0)));
        assert_eq!(scan(&[8 << 3 | 3], &limits), Err(Fault::Malformed(0)));
    }

    #[test]
    fn nesting_is_bounded() {
        // graph { node { attribute { graph { .. } } } }, far deeper than the decoder's limit.
        let mut bytes = Vec::new();
        for field in [6u8, 5, 1].iter().cycle().take(120) {
            let mut outer = vec![field << 3 | 2];
            let mut length = bytes.len();
            while length > 0x7f {
                outer.push(length as u8 | 0x80);
                length >>= 7;
            }
            outer.push(length as u8);
            outer.append(&mut bytes);
            bytes = outer;
        }
        let mut model = vec![7 << 3 | 2, bytes.len() as u8 | 0x80, (bytes.len() >> 7) as u8];
        model.append(&mut bytes);
        assert_eq!(scan(&model, &Limits::default()), Err(Fault::Nesting));
        // graph { node { attribute {} } }
        let shallow = [7 << 3 | 2, 4, 1 << 3 | 2, 2, 5 << 3 | 2, 0];
        assert_eq!(scan(&shallow, &Limits { max_nesting: 3, ..Limits::default() }), Ok(()));
        assert_eq!(scan(&shallow, &Limits { max_nesting: 2, ..Limits::default() }), Err(Fault::Nesting));
    }
}
