//! SQuAD 1.1 and 2.0: questions on paragraphs, with the answers that people gave.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::text;

/// A question.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Question {
    /// Its name in the file.
    pub id: String,
    /// The question.
    pub text: String,
    /// Index of the paragraph that it is asked on.
    pub context: usize,
    /// Answers that count as right; none where there is no answer.
    pub answers: Vec<String>,
}

/// Questions and the paragraphs that they are asked on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Squad {
    /// The paragraphs.
    pub contexts: Vec<String>,
    /// The questions, in the file's order.
    pub questions: Vec<Question>,
}

impl Squad {
    /// Whether some questions have no answer, as in SQuAD 2.0.
    pub(crate) fn some_impossible(&self) -> bool {
        self.questions.iter().any(|question| question.answers.is_empty())
    }
}

#[derive(Deserialize)]
struct File {
    data: Vec<Article>,
}

#[derive(Deserialize)]
struct Article {
    paragraphs: Vec<Paragraph>,
}

#[derive(Deserialize)]
struct Paragraph {
    context: String,
    qas: Vec<Asked>,
}

#[derive(Deserialize)]
struct Asked {
    id: String,
    question: String,
    answers: Vec<Answer>,
    #[serde(default)]
    is_impossible: bool,
}

#[derive(Deserialize)]
struct Answer {
    text: String,
}

/// Names of data files, see [`text::locate`].
pub(crate) const FILES: [&[&str]; 1] = [&["dev-v1.1.json", "dev-v2.0.json"]];

/// Reads a data file.
pub(crate) fn read(file: &Path) -> Result<Squad> {
    let squad = parse(&text::read(file)?).with_context(|| format!("{}: not SQuAD's JSON", file.display()))?;
    ensure!(!squad.questions.is_empty(), "{}: no questions", file.display());
    Ok(squad)
}

fn parse(text: &str) -> Result<Squad> {
    let file: File = serde_json::from_str(text)?;
    let mut squad = Squad { contexts: Vec::new(), questions: Vec::new() };
    for paragraph in file.data.into_iter().flat_map(|article| article.paragraphs) {
        let context = squad.contexts.len();
        squad.contexts.push(paragraph.context);
        squad.questions.extend(paragraph.qas.into_iter().map(|asked| {
            let answers = if asked.is_impossible { Vec::new() } else { asked.answers };
            let answers = answers.into_iter().map(|answer| answer.text).collect();
            Question { id: asked.id, text: asked.question, context, answers }
        }));
    }
    Ok(squad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read() {
        let text = r#"{"version": "v2.0", "data": [{"title": "t", "paragraphs": [
            {"context": "one two", "qas": [
                {"id": "a", "question": "q?", "answers": [{"text": "two", "answer_start": 4}]}]},
            {"context": "three", "qas": [
                {"id": "b", "question": "r?", "answers": [], "is_impossible": true, "plausible_answers": []}]}]}]}"#;
        let squad = parse(text).unwrap();
        assert_eq!(squad.contexts, ["one two", "three"]);
        let [a, b] = &squad.questions[..] else { panic!("{squad:?}") };
        assert_eq!(
            (a.id.as_str(), a.text.as_str(), a.context, &a.answers[..]),
            ("a", "q?", 0, &["two".to_owned()][..])
        );
        assert_eq!((b.id.as_str(), b.context, b.answers.len()), ("b", 1, 0));
        assert!(squad.some_impossible());
    }

    #[test]
    fn other_json_is_refused_with_its_line() {
        let message = |text: &str| format!("{:#}", parse(text).unwrap_err());
        assert!(message("").contains("line 1"));
        assert!(message("[1, 2]").contains("line 1"));
        assert!(message("{\n\"data\": 3}").contains("line 2"));
        assert!(message(r#"{"data": [{"paragraphs": [{"context": "c"}]}]}"#).contains("missing field `qas`"));
    }
}
