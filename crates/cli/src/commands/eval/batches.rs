//! Token sequences through a model, in batches of sequences of one length.
//!
//! A sequence is filled up to a multiple of eight tokens, which depends on it alone, and shares a batch with others of that
//! length only: what it shares a batch with changes neither its padding nor its shape.

use anyhow::{Context, Result, ensure};
use fpxint_runtime::Outputs;
use rayon::prelude::*;

use crate::data::token_input::TokenInput;
use crate::data::tokens::{Encoder, Tokens};
use crate::engine::Engine;
use crate::progress::Bar;

/// Lengths are filled up to multiples of this, so that the host plans few shapes.
const STEP: usize = 8;
/// Tokens in a batch, about.
const TOKENS: usize = 2048;
/// Most sequences in a batch.
const MOST: usize = 64;

/// Runs `sequences` through a model; `read` finds what is wanted of each of those with the given indices in the outputs, whose
/// first rows are theirs.
///
/// # Errors
/// Those of the model, with the sizes at which it failed.
pub(super) fn run<T: Send>(
    engine: &Engine,
    input: &TokenInput,
    encoder: &Encoder,
    sequences: &[Tokens],
    bar: &Bar,
    read: impl Fn(&Outputs, &[usize]) -> Result<Vec<T>> + Sync,
) -> Result<Vec<T>> {
    let filled = |tokens: &Tokens| match input.length {
        Some(length) => length,
        None => tokens.len().next_multiple_of(STEP).min(encoder.most),
    };
    let one = |(length, indices): (usize, Vec<usize>)| {
        let rows: Vec<_> = indices.iter().map(|&i| &sequences[i]).collect();
        let outputs = engine.run(&input.batch(&rows, length, encoder.pad)?).with_context(|| {
            let largest = rows.iter().flat_map(|row| &row.ids).max().copied().unwrap_or(0);
            format!("on sequences of {length} tokens with ids up to {largest}")
        })?;
        let found = read(&outputs, &indices)?;
        ensure!(found.len() == indices.len(), "{} results for {} sequences", found.len(), indices.len());
        bar.inc(indices.len() as u64);
        Ok(indices.into_iter().zip(found))
    };
    // In order, so that batches of one shape run at about one time; one after another, where processes run them together.
    let parts = batches(sequences, input.batch, filled).into_iter();
    let parts = if engine.is_joint() {
        parts.map(one).collect::<Result<Vec<_>>>()?
    } else {
        parts.par_bridge().map(one).collect::<Result<Vec<_>>>()?
    };
    let mut found: Vec<_> = parts.into_iter().flatten().collect();
    found.sort_unstable_by_key(|(index, _)| *index);
    Ok(found.into_iter().map(|(_, value)| value).collect())
}

/// Indices of sequences of one length after another, the longest first, in batches of `size` or of as many as are of use.
fn batches(sequences: &[Tokens], size: Option<usize>, filled: impl Fn(&Tokens) -> usize) -> Vec<(usize, Vec<usize>)> {
    let mut order: Vec<_> = sequences.iter().map(filled).zip(0..).collect();
    order.sort_by_key(|&(length, _)| std::cmp::Reverse(length));
    let mut made = Vec::new();
    for same in order.chunk_by(|a, b| a.0 == b.0) {
        let length = same[0].0;
        let size = size.unwrap_or_else(|| (TOKENS / length).clamp(1, MOST));
        made.extend(same.chunks(size).map(|chunk| (length, chunk.iter().map(|&(_, index)| index).collect())));
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_every_sequence_once_by_length() {
        let lengths = [9, 3, 16, 8, 12, 1];
        let sequences: Vec<_> = lengths.iter().map(|&n| Tokens { ids: vec![0; n], types: vec![0; n] }).collect();
        let made = batches(&sequences, Some(2), |tokens| tokens.len().next_multiple_of(STEP));
        assert_eq!(made, [(16, vec![0, 2]), (16, vec![4]), (8, vec![1, 3]), (8, vec![5])]);
        assert_eq!(batches(&sequences, None, |_| 16), [(16, vec![0, 1, 2, 3, 4, 5])]);
        assert_eq!(batches(&sequences, None, |_| 5000).len(), 6);
        assert_eq!(batches(&[], None, Tokens::len), []);
    }
}
