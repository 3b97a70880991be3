//! What `eval` prints: one JSON object, or a table.

use serde::Serialize;

use super::Metrics;
use crate::args::Task;
use crate::engine::effective_bits;
use crate::metrics::Closeness;
use crate::table::{Table, percent};

/// The reference's own metrics, and how the model compares.
#[derive(Debug, Serialize)]
pub(crate) struct Reference {
    /// As the model's.
    pub metrics: Metrics,
    /// Share of samples with the same top-1 class (images, mnli) or the same answer (squad); for sts-b the mean cosine, since
    /// embeddings are not decisions.
    pub agreement: f64,
    /// sts-b: mean cosine between the model's and the reference's embedding of a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cosine: Option<f64>,
    /// sts-b: the least of these cosines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cosine_min: Option<f64>,
    /// Images and sts-b: how far the model's scores, or embeddings, are from the reference's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Closeness>,
}

/// The JSON object.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub task: &'static str,
    /// Samples.
    pub count: usize,
    pub weights: String,
    pub activations: String,
    /// From 0 to 1, correlations from -1 to 1; `null` where one is not defined.
    pub metrics: Metrics,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<Reference>,
}

/// How a task is shown to people.
struct Words {
    samples: &'static str,
    /// Metrics with their titles.
    metrics: [(&'static str, &'static str); 2],
    /// Title of the agreement.
    agreement: &'static str,
    /// A metric and an agreement as text.
    number: fn(f64) -> String,
    agreed: fn(f64) -> String,
}

fn words(task: Task) -> Words {
    let (samples, metrics) = match task {
        Task::Imagenet | Task::Cifar10 => ("images", [("top1", "top-1"), ("top5", "top-5")]),
        Task::StsB => ("sentence pairs", [("spearman", "Spearman"), ("pearson", "Pearson")]),
        Task::Squad => ("questions", [("exact_match", "exact match"), ("f1", "F1")]),
        Task::Mnli => ("sentence pairs", [("accuracy", "accuracy"), ("", "")]),
    };
    match task {
        Task::StsB => Words {
            samples,
            metrics,
            agreement: "cosine",
            number: |v| format!("{v:.4}"),
            agreed: |v| format!("{v:.6}"),
        },
        _ => Words { samples, metrics, agreement: "agreement", number: percent, agreed: percent },
    }
}

impl Report {
    /// Prints the table.
    pub(super) fn print(&self, task: Task) {
        let words = words(task);
        println!("{}: {} {}", self.task, self.count, words.samples);
        let metrics = words.metrics.iter().filter(|(key, _)| !key.is_empty());
        let titles = metrics.clone().map(|(_, title)| *title);
        let header = ["model", "weights", "activations", "bits W", "bits A"].into_iter().chain(titles);
        let mut table = Table::new(3, &header.chain([words.agreement]).collect::<Vec<_>>());
        let none = || "-".to_owned();
        let number = |value: f64| if value.is_nan() { none() } else { (words.number)(value) };
        let mut row = |names: [&str; 5], found: &Metrics, agreement: Option<f64>| {
            let found = metrics.clone().map(|(key, _)| found.get(key).map_or_else(none, |&value| number(value)));
            let cells = names.map(str::to_owned).into_iter().chain(found);
            table.row(cells.chain([agreement.map_or_else(none, words.agreed)]).collect());
        };
        if let Some(reference) = &self.reference {
            row(["reference", "fp32", "fp32", "32", "32"], &reference.metrics, None);
        }
        let bits = (effective_bits(&self.weights), effective_bits(&self.activations));
        let agreement = self.reference.as_ref().map(|reference| reference.agreement);
        row(["model", &self.weights, &self.activations, &bits.0, &bits.1], &self.metrics, agreement);
        print!("{table}");
    }
}
