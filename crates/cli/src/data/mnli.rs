//! MNLI: a premise, a hypothesis, and whether the first entails the second.
//!
//! Tab-separated with a header that has `sentence1`, `sentence2` and `gold_label` (GLUE, and the `.txt` of the original
//! distribution), or JSON lines with these fields or with `premise`, `hypothesis` and `label`, a name or the number 0, 1 or 2
//! in the order of [`Label`]. Samples on whose label people did not agree (`-`, or -1) are left out.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::text;

/// What follows of a hypothesis from its premise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Label {
    Entailment,
    Neutral,
    Contradiction,
}

impl Label {
    /// All labels, in the usual order.
    pub(crate) const ALL: [Self; 3] = [Self::Entailment, Self::Neutral, Self::Contradiction];

    /// Its name.
    fn name(self) -> &'static str {
        match self {
            Self::Entailment => "entailment",
            Self::Neutral => "neutral",
            Self::Contradiction => "contradiction",
        }
    }

    /// The label of a name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|label| label.name() == name)
    }
}

/// A labelled pair.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    /// Line in the file, counted from one.
    pub line: usize,
    /// Premise and hypothesis.
    pub sentences: [String; 2],
    /// The label.
    pub label: Label,
}

/// Names of data files, see [`text::locate`]; matched before mismatched.
pub(crate) const FILES: [&[&str]; 2] = [
    &["dev_matched.tsv", "multinli_1.0_dev_matched.txt", "multinli_1.0_dev_matched.jsonl", "dev.tsv", "dev.jsonl"],
    &["dev_mismatched.tsv", "multinli_1.0_dev_mismatched.txt", "multinli_1.0_dev_mismatched.jsonl"],
];

/// Reads a data file.
pub(crate) fn read(file: &Path) -> Result<Vec<Sample>> {
    let text = text::read(file)?;
    let json = text.trim_start().starts_with('{');
    let samples = if json { parse_json(&text) } else { parse_columns(&text) };
    let samples = samples.with_context(|| file.display().to_string())?;
    ensure!(!samples.is_empty(), "{}: no labelled sentence pairs", file.display());
    Ok(samples)
}

fn parse_columns(text: &str) -> Result<Vec<Sample>> {
    let Some(header) = text.lines().next() else { return Ok(Vec::new()) };
    let places = text::columns(header, ["sentence1", "sentence2", "gold_label"]);
    let places = places.context("line 1: neither JSON nor a header with sentence1, sentence2 and gold_label")?;
    let sample = |(line, fields)| -> Result<Option<Sample>> {
        let [a, b, label] = text::fields(fields, places)?;
        labelled(line, [a.to_owned(), b.to_owned()], label)
    };
    let samples = text::lines(text).skip(1).map(|(n, l)| sample((n, l)).with_context(|| format!("line {n}")));
    samples.filter_map(Result::transpose).collect()
}

/// A line of JSON, under either set of names.
#[derive(Deserialize)]
struct Record {
    #[serde(alias = "premise")]
    sentence1: String,
    #[serde(alias = "hypothesis")]
    sentence2: String,
    #[serde(alias = "label")]
    gold_label: Class,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a label is neither a name nor a number")]
enum Class {
    Name(String),
    Number(i64),
}

fn parse_json(text: &str) -> Result<Vec<Sample>> {
    let sample = |line: usize, json: &str| -> Result<Option<Sample>> {
        let record: Record = serde_json::from_str(json)?;
        let label = match record.gold_label {
            Class::Name(name) => name,
            Class::Number(-1) => "-".to_owned(),
            Class::Number(number) => {
                let label = usize::try_from(number).ok().and_then(|number| Label::ALL.get(number));
                label.map_or_else(|| number.to_string(), |label| label.name().to_owned())
            }
        };
        labelled(line, [record.sentence1, record.sentence2], &label)
    };
    let samples = text::lines(text).map(|(n, json)| sample(n, json).with_context(|| format!("line {n}")));
    samples.filter_map(Result::transpose).collect()
}

/// A sample, or `None` where its label is `-`.
fn labelled(line: usize, sentences: [String; 2], label: &str) -> Result<Option<Sample>> {
    match (Label::named(label), label) {
        (Some(label), _) => Ok(Some(Sample { line, sentences, label })),
        (None, "-") => Ok(None),
        (None, _) => bail!("label `{label}` is not entailment, neutral, contradiction or -"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(line: usize, a: &str, b: &str, label: Label) -> Sample {
        Sample { line, sentences: [a.to_owned(), b.to_owned()], label }
    }

    #[test]
    fn every_layout_is_read() {
        let wanted = [sample(2, "a", "b", Label::Neutral), sample(4, "e", "", Label::Contradiction)];
        let columns = "index\tgold_label\tsentence1\tsentence2\n0\tneutral\ta\tb\n1\t-\tc\td\n2\tcontradiction\te\t\n";
        assert_eq!(parse_columns(columns).unwrap(), wanted);
        let json = [
            "",
            r#"{"sentence1": "a", "sentence2": "b", "gold_label": "neutral", "genre": "x"}"#,
            r#"{"premise": "c", "hypothesis": "d", "label": -1}"#,
            r#"{"premise": "e", "hypothesis": "", "label": 2}"#,
        ];
        assert_eq!(parse_json(&json.join("\n")).unwrap(), wanted);
    }

    #[test]
    fn broken_lines_are_named() {
        let message = |result: Result<Vec<Sample>>| format!("{:#}", result.unwrap_err());
        assert!(message(parse_columns("a\tb\tneutral\n")).starts_with("line 1: neither JSON nor a header"));
        let header = "sentence1\tsentence2\tgold_label\n";
        assert!(message(parse_columns(&format!("{header}a\tb\n"))).starts_with("line 2: 2 columns"));
        assert!(message(parse_columns(&format!("{header}a\tb\tmaybe\n"))).starts_with("line 2: label `maybe`"));
        let json = |label: &str| message(parse_json(&format!(r#"{{"premise": "a", "hypothesis": "b"{label}}}"#)));
        assert!(json(r#", "label": 3"#).starts_with("line 1: label `3`"));
        assert!(json(r#", "label": [1]"#).contains("neither a name nor a number"));
        assert!(json("").contains("missing field `gold_label`"));
        assert!(message(parse_json("{\n")).starts_with("line 1"));
    }
}
