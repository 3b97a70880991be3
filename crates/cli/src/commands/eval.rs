//! `fpxint eval`: accuracy on a labelled data set, and agreement with a reference.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use serde::Serialize;

use super::print_json;
use crate::args::{Common, Eval, Precisions, Task};
use crate::data::{ImageInput, Images, cifar10::Cifar10, imagenet::Imagenet};
use crate::engine::{Engine, effective_bits};
use crate::metrics::argmax;
use crate::table::{Table, percent};
use crate::{Outcome, engine, progress};

/// Images in a batch: enough to keep threads busy, few enough to stay in memory.
const BATCH: usize = 16;

#[derive(Debug, Serialize)]
struct Reference {
    metrics: BTreeMap<&'static str, f64>,
    /// Share of samples with the same top-1 class.
    agreement: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    task: &'static str,
    count: usize,
    weights: String,
    activations: String,
    metrics: BTreeMap<&'static str, f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<Reference>,
}

pub(crate) fn run(common: &Common, args: &Eval) -> Result<Outcome> {
    let (task, set): (_, Box<dyn Images>) = match args.task {
        Task::Imagenet => ("imagenet", Box::new(Imagenet::open(&args.data, args.resize)?)),
        Task::Cifar10 => ("cifar10", Box::new(Cifar10::open(&args.data)?)),
    };
    let model = engine::load(common, &args.model, &args.precisions)?;
    let reference = match &args.reference {
        Some(path) => Some(engine::load(common, path, &Precisions::default())?),
        None => None,
    };
    let count = args.limit.map_or(set.len(), |limit| set.len().min(limit as usize));
    let scores = classify(common, args, &*set, count, &model, reference.as_ref())?;
    let (weights, activations) = model.precisions();
    let reference = scores.reference.map(|top| Reference {
        agreement: share(count, |i| scores.model[i][0] == top[i][0]),
        metrics: metrics(&*set, &top),
    });
    let report = Report { task, count, weights, activations, metrics: metrics(&*set, &scores.model), reference };
    if common.json {
        print_json(&report)?;
    } else {
        print_table(&report);
    }
    Ok(Outcome::Done)
}

/// The five best classes of every sample.
struct Scores {
    model: Vec<Vec<usize>>,
    reference: Option<Vec<Vec<usize>>>,
}

fn classify(
    common: &Common,
    args: &Eval,
    set: &dyn Images,
    count: usize,
    model: &Engine,
    reference: Option<&Engine>,
) -> Result<Scores> {
    let input = ImageInput::of(model.inputs())?;
    let crop = args.crop.map(|c| c as usize);
    let open = if args.task == Task::Cifar10 { 32 } else { 224 };
    let size = input.size.map(|side| crop.or(side).unwrap_or(open));
    let bar = progress::bar(common, "evaluating", count);
    let mut scores = Scores { model: Vec::new(), reference: reference.map(|_| Vec::new()) };
    let largest = (0..count).map(|i| set.label(i)).max().unwrap_or(0);
    let batch = input.batch.unwrap_or(BATCH);
    for start in (0..count).step_by(batch.max(1)) {
        let indices = start..count.min(start + batch);
        let images = indices.clone().into_par_iter().map(|i| set.pixels(i, size)).collect::<Result<Vec<_>>>()?;
        scores.model.extend(top_five(model, &input, &images, size, largest, args)?);
        if let (Some(reference), Some(top)) = (reference, &mut scores.reference) {
            // Image by image: the reference gains nothing from batches, and so uses every core.
            let each = images
                .par_iter()
                .map(|image| top_five(reference, &input, std::slice::from_ref(image), size, largest, args));
            top.extend(each.collect::<Result<Vec<_>>>().context("the reference")?.into_iter().flatten());
        }
        bar.inc(indices.len() as u64);
    }
    bar.finish_and_clear();
    Ok(scores)
}

/// The five largest classes of every image, best first; there must be more of them than the `largest` label.
fn top_five(
    engine: &Engine,
    input: &ImageInput,
    images: &[Vec<u8>],
    size: [usize; 2],
    largest: usize,
    args: &Eval,
) -> Result<Vec<Vec<usize>>> {
    let outputs = engine.run(&input.batch(images, size, args.preset)?)?;
    let (name, scores) = outputs.first().context("the model has no output")?;
    let classes = scores.shape().iter().product::<usize>() / images.len();
    ensure!(
        scores.shape().first() == Some(&images.len()) && classes > 1,
        "output `{name}` of shape {:?} is not one row of classes an image",
        scores.shape()
    );
    let data = args.data.display();
    ensure!(largest < classes, "{data}: label {largest} is beyond the {classes} classes of output `{name}`");
    let scores = scores.to_f32();
    let rows = scores.as_slice().context("a contiguous output")?.chunks_exact(classes);
    Ok(rows.map(best_five).collect())
}

fn best_five(row: &[f32]) -> Vec<usize> {
    let mut row = row.to_vec();
    let mut best = Vec::with_capacity(5);
    while best.len() < 5.min(row.len()) {
        let top = argmax(&row);
        best.push(top);
        row[top] = f32::NEG_INFINITY;
    }
    best
}

/// Share of `count` samples for which `holds`.
fn share(count: usize, holds: impl Fn(usize) -> bool) -> f64 {
    (0..count).filter(|&i| holds(i)).count() as f64 / count as f64
}

fn metrics(set: &dyn Images, top: &[Vec<usize>]) -> BTreeMap<&'static str, f64> {
    let top1 = share(top.len(), |i| top[i][0] == set.label(i));
    let top5 = share(top.len(), |i| top[i].contains(&set.label(i)));
    BTreeMap::from([("top1", top1), ("top5", top5)])
}

fn print_table(report: &Report) {
    println!("{}: {} images", report.task, report.count);
    let mut table =
        Table::new(3, &["model", "weights", "activations", "bits W", "bits A", "top-1", "top-5", "agreement"]);
    let cell =
        |metrics: &BTreeMap<&'static str, f64>, name: &str| metrics.get(name).map_or("-".to_owned(), |&v| percent(v));
    if let Some(reference) = &report.reference {
        let (top1, top5) = (cell(&reference.metrics, "top1"), cell(&reference.metrics, "top5"));
        let row = ["reference", "fp32", "fp32", "32", "32", &top1, &top5, "-"];
        table.row(row.map(str::to_owned).to_vec());
    }
    let bits = (effective_bits(&report.weights), effective_bits(&report.activations));
    let agreement = report.reference.as_ref().map_or("-".to_owned(), |r| percent(r.agreement));
    let (top1, top5) = (cell(&report.metrics, "top1"), cell(&report.metrics, "top5"));
    let row = ["model", &report.weights, &report.activations, &bits.0, &bits.1, &top1, &top5, &agreement];
    table.row(row.map(str::to_owned).to_vec());
    print!("{table}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_five_come_in_order() {
        assert_eq!(best_five(&[0.1, 5.0, 3.0, 5.0, -1.0, 2.0]), [1, 3, 2, 5, 0]);
        assert_eq!(best_five(&[2.0, 9.0]), [1, 0]);
    }
}
