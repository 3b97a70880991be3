//! SQuAD: questions that a part of a paragraph answers.

use std::path::PathBuf;

use anyhow::{Context, Result};
use fpxint_runtime::Outputs;

use super::spans::{self, Candidate};
use super::text::{self, TextModels};
use super::{Engines, Evaluate, Evaluation, Found, Metrics, answers, limited};
use crate::args::{Common, Eval};
use crate::data;
use crate::data::squad::{Question, Squad};
use crate::data::tokens::{Encoder, Tokens, Window};

/// Most tokens of a question with a part of its paragraph.
const LENGTH: usize = 384;

/// The questions and a tokenizer.
pub(super) struct Set {
    file: PathBuf,
    squad: Squad,
    /// Whether some questions of the file have no answer.
    nullable: bool,
    encoder: Encoder,
}

impl Set {
    pub(super) fn open(args: &Eval) -> Result<Self> {
        let file = data::text::locate(&args.set.data, &data::squad::FILES)?;
        let mut squad = data::squad::read(&file)?;
        let nullable = squad.some_impossible();
        squad.questions.truncate(limited(args, squad.questions.len()));
        let encoder = text::tokenizer(args, &file)?;
        Ok(Self { file, squad, nullable, encoder })
    }
}

impl Evaluate for Set {
    fn evaluate(mut self: Box<Self>, common: &Common, args: &Eval, engines: &Engines) -> Result<Evaluation> {
        let models = TextModels::new(common, args, engines, &mut self.encoder, LENGTH)?;
        let windows = self.windows()?;
        let counts: Vec<usize> = windows.iter().map(Vec::len).collect();
        let (sequences, places): (Vec<Tokens>, Vec<_>) =
            windows.into_iter().flatten().map(|Window { tokens, places }| (tokens, places)).unzip();
        let found = models.run(&self.encoder, &sequences, |outputs, indices| {
            let places: Vec<_> = indices.iter().map(|&i| &places[i][..]).collect();
            candidates(outputs, &places)
        })?;
        let found = Found {
            model: self.answers(&found.model, &counts),
            reference: found.reference.map(|candidates| self.answers(&candidates, &counts)),
        };
        Ok(found.evaluation(|answers| self.metrics(answers), String::eq))
    }
}

impl Set {
    /// The windows of every question.
    fn windows(&self) -> Result<Vec<Vec<Window>>> {
        let place = |question: &Question| format!("question `{}`", question.id);
        let windows =
            |question: &Question| self.encoder.windows(&question.text, &self.squad.contexts[question.context]);
        text::encode(&self.file, &self.squad.questions, place, windows)
    }

    /// The answer to every question, of whose windows there are as many as `counts` says.
    fn answers(&self, candidates: &[Candidate], counts: &[usize]) -> Vec<String> {
        let mut rest = candidates;
        let answer = |(question, &count): (&Question, &usize)| {
            let windows = rest.split_off(..count).unwrap_or_default();
            spans::answer(windows, &self.squad.contexts[question.context], self.nullable)
        };
        self.squad.questions.iter().zip(counts).map(answer).collect()
    }

    fn metrics(&self, answers: &[String]) -> Metrics {
        let scores =
            answers.iter().zip(&self.squad.questions).map(|(a, question)| answers::score(a, &question.answers));
        let (f1, exact) =
            scores.fold((0.0, 0.0), |sums, (f1, exact)| (sums.0 + f1, sums.1 + f64::from(u8::from(exact))));
        let count = answers.len() as f64;
        Metrics::from([("f1", f1 / count), ("exact_match", exact / count)])
    }
}

/// The best spans by `start_logits` and `end_logits` (n x s, or n x s x 1) in windows whose tokens have the given places.
fn candidates(outputs: &Outputs, places: &[&[Option<(usize, usize)>]]) -> Result<Vec<Candidate>> {
    let longest = places.iter().map(|places| places.len()).max().unwrap_or(0);
    let scores = |name: &str| -> Result<Vec<Vec<f32>>> {
        let output = text::output(outputs, name).with_context(|| format!("the model has no output `{name}`"))?;
        let fits = |row: &[usize]| matches!(*row, [s] | [s, 1] if s >= longest);
        Ok(text::rows(output, places.len(), fits, "a score for every token")?.0)
    };
    let (start, end) = (scores("start_logits")?, scores("end_logits")?);
    Ok(start.iter().zip(&end).zip(places).map(|((start, end), places)| Candidate::of(start, end, places)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use fpxint_runtime::Value;
    use ndarray::ArrayD;

    #[test]
    fn both_outputs_must_score_every_token() {
        let output = |name: &str, shape: &[usize]| (name.to_owned(), Value::F32(ArrayD::zeros(shape)));
        let places: [&[_]; 2] = [&[None, Some((0, 1))], &[None, None, Some((0, 1))]];
        let found = |a: &[usize], b: &[usize]| {
            candidates(&vec![output("start_logits", a), output("end_logits", b)], &places).map_err(|e| e.to_string())
        };
        assert_eq!(found(&[2, 3], &[2, 4, 1]).unwrap().len(), 2);
        assert!(found(&[2, 2], &[2, 4]).unwrap_err().contains("`start_logits` of shape [2, 2] is not a score"));
        assert!(found(&[2, 3], &[1, 3]).unwrap_err().contains("`end_logits` of shape [1, 3]"));
        let error = candidates(&vec![output("start_logits", &[2, 3])], &places).unwrap_err();
        assert_eq!(error.to_string(), "the model has no output `end_logits`");
    }
}
