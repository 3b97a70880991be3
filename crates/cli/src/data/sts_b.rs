//! STS-B: pairs of sentences with a similarity from 0 to 5.
//!
//! Tab-separated, without quoting: `sts-dev.csv` and `sts-test.csv` of the original distribution (score in column 5,
//! sentences in columns 6 and 7, what follows is ignored), or GLUE's `dev.tsv`, whose header names the columns.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::text;

/// Columns of the original distribution: score, sentences.
const ORIGINAL: [usize; 3] = [4, 5, 6];

/// Two sentences and how similar people found them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pair {
    /// Line in the file, counted from one.
    pub line: usize,
    /// The sentences.
    pub sentences: [String; 2],
    /// Their similarity.
    pub score: f64,
}

/// Names of data files, see [`text::locate`].
pub(crate) const FILES: [&[&str]; 2] = [&["sts-dev.csv", "dev.tsv"], &["sts-test.csv"]];

/// Reads a data file.
pub(crate) fn read(file: &Path) -> Result<Vec<Pair>> {
    let pairs = parse(&text::read(file)?).with_context(|| file.display().to_string())?;
    ensure!(!pairs.is_empty(), "{}: no sentence pairs", file.display());
    Ok(pairs)
}

fn parse(text: &str) -> Result<Vec<Pair>> {
    let header = text.lines().next().and_then(|line| text::columns(line, ["score", "sentence1", "sentence2"]));
    let lines = text::lines(text).skip(usize::from(header.is_some()));
    let places = header.unwrap_or(ORIGINAL);
    lines.map(|(line, fields)| pair(line, fields, places).with_context(|| format!("line {line}"))).collect()
}

fn pair(line: usize, fields: &str, places: [usize; 3]) -> Result<Pair> {
    let [score, a, b] = text::fields(fields, places)?;
    let value = score.parse::<f64>().ok().filter(|score| score.is_finite());
    let score = value.with_context(|| format!("score `{score}` is not a number"))?;
    Ok(Pair { line, sentences: [a.to_owned(), b.to_owned()], score })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(line: usize, a: &str, b: &str, score: f64) -> Pair {
        Pair { line, sentences: [a.to_owned(), b.to_owned()], score }
    }

    #[test]
    fn both_layouts_are_read() {
        let original = "main\tf\t2012\t01\t5.000\tA \"dog.\tTwo dogs.\n\nmain\tf\t2012\t02\t.5\tb\tc\tsource\tmore\r\n";
        let pairs = [pair(1, "A \"dog.", "Two dogs.", 5.0), pair(3, "b", "c", 0.5)];
        assert_eq!(parse(original).unwrap(), pairs);
        let glue = "index\tsentence1\tsentence2\tscore\n0\tA \"dog.\tTwo dogs.\t5\n1\tb\tc\t0.5\n";
        assert_eq!(parse(glue).unwrap(), [pair(2, "A \"dog.", "Two dogs.", 5.0), pair(3, "b", "c", 0.5)]);
    }

    #[test]
    fn broken_lines_are_named() {
        let message = |text: &str| format!("{:#}", parse(text).unwrap_err());
        assert_eq!(message("a\tb\tc\td\t5\te\n"), "line 1: 6 columns, where column 7 is needed");
        assert_eq!(message("a\tb\tc\td\tfive\te\tf\n"), "line 1: score `five` is not a number");
        assert_eq!(message("score\tsentence1\tsentence2\n1\ta\tb\nNaN\ta\tb\n"), "line 3: score `NaN` is not a number");
        assert_eq!(parse("").unwrap(), []);
    }
}
