//! STS-B: the cosine between the embeddings of two sentences against how similar people found them.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use fpxint_runtime::Outputs;

use super::text::{self, TextModels};
use super::{Engines, Evaluate, Evaluation, Found, Metrics, Reference, limited};
use crate::args::{Common, Eval};
use crate::data;
use crate::data::sts_b::Pair;
use crate::data::tokens::Encoder;
use crate::metrics::{Tally, cosine, pearson, spearman};

/// Most tokens of a sentence.
const LENGTH: usize = 128;

/// The sentence pairs and a tokenizer.
pub(super) struct Set {
    file: PathBuf,
    pairs: Vec<Pair>,
    encoder: Encoder,
}

impl Set {
    pub(super) fn open(args: &Eval) -> Result<Self> {
        let file = data::text::locate(&args.set.data, &data::sts_b::FILES)?;
        let mut pairs = data::sts_b::read(&file)?;
        pairs.truncate(limited(args, pairs.len()));
        let encoder = text::tokenizer(args, &file)?;
        Ok(Self { file, pairs, encoder })
    }
}

impl Evaluate for Set {
    fn evaluate(self: Box<Self>, common: &Common, args: &Eval, engines: &Engines) -> Result<Evaluation> {
        let Self { file, pairs, mut encoder } = *self;
        let models = TextModels::new(common, args, engines, &mut encoder, LENGTH)?;
        let sentences: Vec<_> =
            pairs.iter().flat_map(|pair| pair.sentences.each_ref().map(|s| (pair.line, s))).collect();
        let place = |(line, _): &(usize, &String)| format!("line {line}");
        let sequences = text::encode(&file, &sentences, place, |(_, sentence)| encoder.single(sentence))?;
        let found = models.run(&encoder, &sequences, |outputs, indices| {
            let lengths: Vec<_> = indices.iter().map(|&i| sequences[i].len()).collect();
            embeddings(outputs, &lengths)
        })?;
        let scores: Vec<f64> = pairs.iter().map(|pair| pair.score).collect();
        Ok(evaluation(&found, &scores))
    }
}

fn evaluation(found: &Found<Vec<f64>>, scores: &[f64]) -> Evaluation {
    let metrics = |embeddings: &[Vec<f64>]| {
        let cosines: Vec<f64> = embeddings.as_chunks().0.iter().map(|[a, b]| cosine(a, b)).collect();
        Metrics::from([("spearman", spearman(&cosines, scores)), ("pearson", pearson(&cosines, scores))])
    };
    let reference = found.reference.as_ref().map(|reference| {
        let cosines = || found.model.iter().zip(reference).map(|(a, b)| cosine(a, b));
        let mean = cosines().sum::<f64>() / reference.len() as f64;
        let least = cosines().fold(f64::INFINITY, f64::min);
        let mut tally = Tally::default();
        for (a, b) in reference.iter().zip(&found.model) {
            let [a, b] = [a, b].map(|row| row.iter().map(|&v| v as f32).collect::<Vec<_>>());
            tally.add(&a, &b, a.len());
        }
        Reference {
            metrics: metrics(reference),
            agreement: mean,
            cosine: Some(mean),
            cosine_min: Some(least),
            outputs: Some(tally.closeness("embeddings")),
        }
    });
    Evaluation { count: scores.len(), metrics: metrics(&found.model), reference }
}

/// Embeddings of sentences of the given numbers of tokens: the model's own, `sentence_embedding` (n x h), or else the mean over
/// the tokens of `last_hidden_state`, or of the first output with three dimensions (n x s x h).
fn embeddings(outputs: &Outputs, lengths: &[usize]) -> Result<Vec<Vec<f64>>> {
    let named = ["sentence_embedding", "last_hidden_state"].iter().find_map(|name| text::output(outputs, name));
    let first = || outputs.iter().find(|(_, value)| value.shape().len() == 3).map(|(name, value)| (&**name, value));
    let output =
        named.or_else(first).context("no output holds embeddings: neither sentence_embedding nor last_hidden_state")?;
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let fits = |row: &[usize]| row.len() == 1 || row.len() == 2 && row[0] >= longest;
    let (rows, row) = text::rows(output, lengths.len(), fits, "an embedding for every sentence or token")?;
    let width = row.last().copied().unwrap_or(1);
    let embedding = |(row_values, &tokens): (&Vec<f32>, &usize)| {
        let tokens = if row.len() == 1 { 1 } else { tokens };
        let mut mean = vec![0.0; width];
        for token in row_values.chunks_exact(width).take(tokens) {
            mean.iter_mut().zip(token).for_each(|(mean, &value)| *mean += f64::from(value) / tokens as f64);
        }
        ensure!(mean.iter().all(|value| value.is_finite()), "output `{}` is not finite", output.0);
        Ok(mean)
    };
    rows.iter().zip(lengths).map(embedding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fpxint_runtime::Value;
    use ndarray::ArrayD;

    fn output(name: &str, shape: &[usize], values: &[f32]) -> (String, Value) {
        (name.to_owned(), Value::F32(ArrayD::from_shape_vec(shape, values.to_vec()).unwrap()))
    }

    #[test]
    fn tokens_are_averaged_without_what_fills_them_up() {
        let hidden = output("tokens", &[2, 2, 2], &[1., 2., 3., 6., 5., 7., 100., 100.]);
        assert_eq!(embeddings(&vec![hidden.clone()], &[2, 1]).unwrap(), [[2., 4.], [5., 7.]]);
        let sentence = output("sentence_embedding", &[2, 1], &[8., 9.]);
        assert_eq!(embeddings(&vec![hidden.clone(), sentence], &[2, 1]).unwrap(), [[8.], [9.]]);
        let message = |outputs: Outputs| embeddings(&outputs, &[2, 1]).unwrap_err().to_string();
        assert!(message(vec![output("y", &[2, 2], &[0.; 4])]).contains("no output holds embeddings"));
        let short = output("last_hidden_state", &[2, 1, 2], &[0.; 4]);
        assert!(message(vec![short]).contains("`last_hidden_state` of shape [2, 1, 2] is not an embedding"));
        assert!(message(vec![output("last_hidden_state", &[2, 2, 1], &[f32::NAN; 4])]).contains("NaN"));
        assert!(message(vec![output("last_hidden_state", &[2, 2, 1], &[f32::INFINITY; 4])]).contains("not finite"));
    }

    #[test]
    fn the_reference_is_compared_by_cosine() {
        let model = vec![vec![1., 0.], vec![1., 0.], vec![1., 0.], vec![0., 1.]];
        let reference = vec![vec![2., 0.], vec![1., 0.], vec![0., 1.], vec![0., 1.]];
        let evaluation = evaluation(&Found { model, reference: Some(reference) }, &[5.0, 1.0]);
        let reference = evaluation.reference.unwrap();
        assert!(evaluation.count == 2 && (evaluation.metrics["spearman"] - 1.0).abs() < 1e-12);
        assert!(reference.metrics["spearman"].is_nan());
        assert_eq!((reference.agreement, reference.cosine, reference.cosine_min), (0.75, Some(0.75), Some(0.0)));
    }
}
