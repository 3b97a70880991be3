//! Texts as token ids, by a tokenizer in Hugging Face's `tokenizer.json`.
//!
//! Truncation and padding saved in the file are ignored: what is too long is cut here, special tokens never, and batches are
//! filled up where they are made ([`super::token_input`]). The tokenizer's own truncation is not used: with it, the
//! library reads no more tokens of a paragraph than a sequence may have, and later windows are lost.

use std::path::Path;

use anyhow::{Context, Error, Result, ensure};
use tokenizers::{EncodeInput, Encoding, Tokenizer};

/// Most tokens of a question; a longer one loses its end.
const QUESTION: usize = 64;
/// Most tokens that two neighbouring windows of a paragraph have in common.
const OVERLAP: usize = 128;
/// Least tokens that the special ones must leave.
const LEAST: usize = 4;

/// The tokens of one sequence, special ones included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tokens {
    /// Their numbers.
    pub ids: Vec<u32>,
    /// 0 for a first text, 1 for a second, as the tokenizer has it.
    pub types: Vec<u32>,
}

impl Tokens {
    /// Number of tokens.
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }
}

/// A question with a part of its paragraph.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    /// The tokens.
    pub tokens: Tokens,
    /// For every token of the paragraph its bytes in it; `None` for others.
    pub places: Vec<Option<(usize, usize)>>,
}

/// A tokenizer with a length that no sequence exceeds.
#[derive(Debug)]
pub(crate) struct Encoder {
    tokenizer: Tokenizer,
    /// Most tokens of a sequence.
    pub most: usize,
    /// The token that fills a batch up.
    pub pad: u32,
}

/// An encoding with the places of its tokens by kind.
struct Parts {
    encoding: Encoding,
    /// Of each text.
    texts: [Vec<usize>; 2],
    /// Tokens that the texts may have: the special ones are as many as they are.
    room: usize,
}

impl Encoder {
    /// Reads a tokenizer; sequences may have any length.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        let read = Tokenizer::from_bytes(bytes).map_err(Error::from_boxed);
        let mut tokenizer = read.with_context(|| format!("{}: not a tokenizer.json", path.display()))?;
        let named = || ["[PAD]", "<pad>"].iter().find_map(|token| tokenizer.token_to_id(token));
        let pad = tokenizer.get_padding().map(|padding| padding.pad_id).or_else(named).unwrap_or(0);
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(Error::from_boxed)?;
        Ok(Self { tokenizer, most: usize::MAX, pad })
    }

    /// The tokens of one text.
    pub(crate) fn single(&self, text: &str) -> Result<Tokens> {
        let parts = self.parts(text)?;
        parts.shortened([parts.room, 0])
    }

    /// The tokens of two texts, the longer of which is cut first.
    pub(crate) fn pair(&self, texts: [&str; 2]) -> Result<Tokens> {
        let parts = self.parts((texts[0], texts[1]))?;
        let [first, second] = parts.texts.each_ref().map(Vec::len);
        let half = if first > second { parts.room.div_ceil(2) } else { parts.room / 2 };
        let first = first.min(half.max(parts.room.saturating_sub(second)));
        parts.shortened([first, parts.room - first])
    }

    /// A question with each window of its paragraph; neighbouring windows overlap.
    pub(crate) fn windows(&self, question: &str, paragraph: &str) -> Result<Vec<Window>> {
        let parts = self.parts((question, paragraph))?;
        let [question, paragraph] = &parts.texts;
        let cut = question.len().min(QUESTION).min(parts.room / 2);
        let room = parts.room - cut;
        let kept = parts.without(question[cut..].iter().chain(paragraph));
        let split = paragraph.first().map_or(kept.len(), |first| kept.partition_point(|place| place < first));
        let (before, after) = kept.split_at(split);
        let step = room - OVERLAP.min(room / 2);
        let starts = (0..paragraph.len().saturating_sub(room).div_ceil(step) + 1).map(|window| window * step);
        let window = |start: usize| {
            let part = &paragraph[start..paragraph.len().min(start.saturating_add(room))];
            let tokens = parts.tokens([before, part, after].into_iter().flatten().copied())?;
            let inside = part.iter().map(|&place| Some(parts.encoding.get_offsets()[place]));
            let outside = |places: &[usize]| std::iter::repeat_n(None, places.len());
            Ok(Window { tokens, places: outside(before).chain(inside).chain(outside(after)).collect() })
        };
        starts.map(window).collect()
    }

    fn parts<'s>(&self, input: impl Into<EncodeInput<'s>>) -> Result<Parts> {
        let encoding = self.tokenizer.encode(input, true).map_err(Error::from_boxed)?;
        let mut texts = [Vec::new(), Vec::new()];
        for (place, text) in encoding.get_sequence_ids().into_iter().enumerate() {
            if let Some(places) = text.and_then(|text| texts.get_mut(text)) {
                places.push(place);
            }
        }
        let special = encoding.len() - texts[0].len() - texts[1].len();
        let room = self.most.saturating_sub(special);
        ensure!(room >= LEAST, "{special} special tokens leave no room for text in {}", self.most);
        Ok(Parts { encoding, texts, room })
    }
}

impl Parts {
    /// The special tokens and the given numbers of tokens of each text.
    fn shortened(&self, numbers: [usize; 2]) -> Result<Tokens> {
        let rests = self.texts.iter().zip(numbers).filter_map(|(text, number)| text.get(number..));
        self.tokens(self.without(rests.flatten()).into_iter())
    }

    /// Places of all tokens but the given ones.
    fn without<'p>(&self, dropped: impl Iterator<Item = &'p usize>) -> Vec<usize> {
        let mut kept = vec![true; self.encoding.len()];
        dropped.for_each(|&place| kept[place] = false);
        (0..kept.len()).filter(|&place| kept[place]).collect()
    }

    /// The tokens at the given places.
    fn tokens(&self, places: impl Iterator<Item = usize>) -> Result<Tokens> {
        let (ids, types) = (self.encoding.get_ids(), self.encoding.get_type_ids());
        let (ids, types) = places.map(|place| (ids[place], types[place])).unzip();
        let tokens = Tokens { ids, types };
        ensure!(tokens.len() > 0, "no tokens are left of the text");
        Ok(tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tokenizer of whole words with the numbers from 4, after `[PAD]`, `[CLS]`, `[SEP]` and `[UNK]`, in BERT's layout.
    fn words(words: &[&str]) -> String {
        let special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"];
        let words = special.iter().chain(words).enumerate().map(|(id, word)| (*word, id));
        let vocabulary: std::collections::BTreeMap<_, _> = words.collect();
        serde_json::json!({
            "version": "1.0",
            "truncation": {"max_length": 5, "strategy": "LongestFirst", "stride": 0},
            "padding": {"strategy": {"Fixed": 40}, "direction": "Right", "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
                "pad_to_multiple_of": null},
            "added_tokens": [], "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
            "decoder": null,
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
        })
        .to_string()
    }

    fn encoder(json: &str, most: usize) -> Result<Encoder> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokenizer.json");
        std::fs::write(&file, json).unwrap();
        let mut encoder = Encoder::open(&file)?;
        encoder.most = most;
        Ok(encoder)
    }

    #[test]
    fn what_the_file_says_of_lengths_is_ignored() {
        let json = words(&["a", "b", "c", "d", "e"]);
        let long = encoder(&json, 20).unwrap();
        let tokens = long.single("a B c d e x").unwrap();
        assert_eq!(tokens.ids, [1, 4, 5, 6, 7, 8, 3, 2]);
        let pair = long.pair(["a", "b c"]).unwrap();
        assert_eq!((pair.ids, pair.types), (vec![1, 4, 2, 5, 6, 2], vec![0, 0, 0, 1, 1, 1]));
        let short = encoder(&json, 7).unwrap();
        assert_eq!(short.single("a b c d e x y z").unwrap().ids, [1, 4, 5, 6, 7, 8, 2]);
        for (texts, ids) in [
            (["a", "b c d e"], [1, 4, 2, 5, 6, 7, 2]),
            (["b c d e", "a"], [1, 5, 6, 7, 2, 4, 2]),
            (["a b c d", "a b c d"], [1, 4, 5, 2, 4, 5, 2]),
            (["a b", "c d"], [1, 4, 5, 2, 6, 7, 2]),
        ] {
            assert_eq!(short.pair(texts).unwrap().ids, ids, "{texts:?}");
        }
        let odd = encoder(&json, 8).unwrap();
        assert_eq!(odd.pair(["a b c d", "a b c"]).unwrap().ids, [1, 4, 5, 6, 2, 4, 5, 2]);
        assert_eq!(odd.pair(["a b c", "a b c d"]).unwrap().ids, [1, 4, 5, 2, 4, 5, 6, 2]);
        let error = encoder(&json, 6).unwrap().pair(["a", "b"]).unwrap_err().to_string();
        assert_eq!(error, "3 special tokens leave no room for text in 6");
        assert_eq!(long.single("").unwrap().ids, [1, 2]);
    }

    #[test]
    fn windows_cover_the_paragraph_and_overlap() {
        let vocabulary: Vec<_> = (0..40).map(|i| format!("w{i}")).collect();
        let encoder = encoder(&words(&vocabulary.iter().map(String::as_str).collect::<Vec<_>>()), 13).unwrap();
        let paragraph = vocabulary[10..].join("  ");
        // Thirteen less three special ones: five for a question, at most, and five for each window.
        let windows = encoder.windows("w0 w1 w2 w3 w4 w5 w6", &paragraph).unwrap();
        let seen = windows.iter().map(|window| {
            let (ids, places) = (&window.tokens.ids, &window.places);
            assert!(ids[..7] == [1, 4, 5, 6, 7, 8, 2] && ids.last() == Some(&2) && ids.len() == places.len());
            assert!(window.tokens.types.iter().enumerate().all(|(i, &text)| text == u32::from(i >= 7)));
            assert_eq!(places.iter().position(Option::is_some), Some(7));
            places.iter().flatten().map(|&(from, to)| &paragraph[from..to]).collect::<Vec<_>>()
        });
        let seen: Vec<_> = seen.collect();
        assert_eq!((seen[0][0], &seen[9][..], seen.len()), ("w10", &["w37", "w38", "w39"][..], 10));
        for pair in seen.windows(2) {
            assert_eq!(pair[0][3..], pair[1][..2], "two words in common");
        }
    }

    #[test]
    fn short_paragraphs_are_one_window() {
        let encoder = encoder(&words(&["a", "b", "c"]), 13).unwrap();
        let places = |paragraph: &str| {
            let [window] = &encoder.windows("a", paragraph).unwrap()[..] else { panic!("several windows") };
            window.places.clone()
        };
        assert_eq!(places("b c"), [None, None, None, Some((0, 1)), Some((2, 3)), None]);
        assert_eq!(places("b b b b b b b b b").len(), 13);
        assert_eq!(places(""), [None; 4]);
        assert_eq!(encoder.windows("a", "b b b b b b b b b b").unwrap().len(), 2);
    }

    #[test]
    fn other_files_are_refused() {
        for json in ["", "{}", "[1]", "null", r#"{"model": {"type": "WordLevel"}}"#] {
            assert!(encoder(json, 20).unwrap_err().to_string().ends_with("tokenizer.json: not a tokenizer.json"));
        }
    }
}
