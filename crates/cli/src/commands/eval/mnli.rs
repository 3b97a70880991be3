//! MNLI: three classes of what follows from a premise.

use std::path::PathBuf;

use anyhow::{Context, Result};
use fpxint_runtime::Outputs;

use super::text::{self, TextModels};
use super::{Engines, Evaluate, Evaluation, Metrics, limited, share};
use crate::args::{Common, Eval};
use crate::data;
use crate::data::mnli::{Label, Sample};
use crate::data::tokens::Encoder;
use crate::metrics::argmax;

/// Most tokens of a pair.
const LENGTH: usize = 128;

/// The pairs and a tokenizer.
pub(super) struct Set {
    file: PathBuf,
    samples: Vec<Sample>,
    encoder: Encoder,
}

impl Set {
    pub(super) fn open(args: &Eval) -> Result<Self> {
        let file = data::text::locate(&args.set.data, &data::mnli::FILES)?;
        let mut samples = data::mnli::read(&file)?;
        samples.truncate(limited(args, samples.len()));
        let encoder = text::tokenizer(args, &file)?;
        Ok(Self { file, samples, encoder })
    }
}

impl Evaluate for Set {
    fn evaluate(self: Box<Self>, common: &Common, args: &Eval, engines: &Engines) -> Result<Evaluation> {
        let Self { file, samples, mut encoder } = *self;
        let models = TextModels::new(common, args, engines, &mut encoder, LENGTH)?;
        let place = |sample: &Sample| format!("line {}", sample.line);
        let pair = |sample: &Sample| encoder.pair(sample.sentences.each_ref().map(String::as_str));
        let sequences = text::encode(&file, &samples, place, pair)?;
        let order = args.set.labels.unwrap_or(Label::ALL);
        let found = models.run(&encoder, &sequences, |outputs, indices| labels(outputs, indices.len(), order))?;
        let accuracy = |found: &[Label]| share(found.len(), |i| found[i] == samples[i].label);
        Ok(found.evaluation(|found| Metrics::from([("accuracy", accuracy(found))]), Label::eq))
    }
}

/// The best class of `logits`, or else of the first output (n x 3), whose classes are in the given order.
fn labels(outputs: &Outputs, count: usize, order: [Label; 3]) -> Result<Vec<Label>> {
    let first = || outputs.first().map(|(name, value)| (&**name, value));
    let output = text::output(outputs, "logits").or_else(first).context("the model has no output")?;
    let (rows, _) = text::rows(output, count, |row| row == [3], "three classes a sentence pair")?;
    Ok(rows.iter().map(|row| order[argmax(row)]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use fpxint_runtime::Value;
    use ndarray::ArrayD;

    #[test]
    fn the_order_of_the_classes_is_the_callers() {
        let outputs = |shape: &[usize], values: &[f32]| {
            vec![("y".to_owned(), Value::F32(ArrayD::from_shape_vec(shape, values.to_vec()).unwrap()))]
        };
        let two = outputs(&[2, 3], &[0., 1., 2., 3., 1., 2.]);
        assert_eq!(labels(&two, 2, Label::ALL).unwrap(), [Label::Contradiction, Label::Entailment]);
        let reversed = [Label::Contradiction, Label::Neutral, Label::Entailment];
        assert_eq!(labels(&two, 1, reversed).unwrap(), [Label::Entailment]);
        let message = |outputs: Outputs| labels(&outputs, 2, Label::ALL).unwrap_err().to_string();
        assert!(message(outputs(&[2, 2], &[0.; 4])).contains("`y` of shape [2, 2] is not three classes"));
        assert!(message(outputs(&[1, 3], &[0.; 3])).contains("[1, 3]"));
        assert!(message(outputs(&[2, 3], &[f32::NAN; 6])).contains("NaN"));
    }
}
