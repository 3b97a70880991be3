//! Images: the best class of each, and whether it is among the best five.

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;

use super::{Engines, Evaluate, Evaluation, Found, Metrics, limited, share};
use crate::args::{Common, Eval, Preset, Task};
use crate::data::{ImageInput, Images, cifar10::Cifar10, imagenet::Imagenet};
use crate::engine::Engine;
use crate::metrics::{Tally, argmax};
use crate::progress;

/// Images in a batch: enough to keep threads busy, few enough to stay in memory.
const BATCH: usize = 16;

/// The images.
pub(super) struct Set(Box<dyn Images>);

impl Set {
    pub(super) fn open(args: &Eval) -> Result<Self> {
        Ok(Self(match args.set.task {
            Task::Cifar10 => Box::new(Cifar10::open(&args.set.data)?),
            _ => Box::new(Imagenet::open(&args.set.data, args.set.resize)?),
        }))
    }
}

impl Evaluate for Set {
    fn evaluate(self: Box<Self>, common: &Common, args: &Eval, engines: &Engines) -> Result<Evaluation> {
        let set = &*self.0;
        let (found, tally) = classify(common, args, set, engines)?;
        let mut evaluation = found.evaluation(|top| metrics(set, top), |a, b| a[0] == b[0]);
        if let Some(reference) = &mut evaluation.reference {
            reference.outputs = Some(tally.closeness("scores"));
        }
        Ok(evaluation)
    }
}

/// The five best classes of every sample, and how far the scores are from the reference's.
fn classify(common: &Common, args: &Eval, set: &dyn Images, engines: &Engines) -> Result<(Found<Vec<usize>>, Tally)> {
    let (model, reference) = (&engines.model, engines.reference.as_ref());
    let count = limited(args, set.len());
    let input = ImageInput::of(model.inputs())?;
    let with_input = |reference| anyhow::Ok((reference, ImageInput::of(Engine::inputs(reference))?));
    let reference = reference.map(with_input).transpose().context("the reference")?;
    let crop = args.set.crop.map(|c| c as usize);
    let open = if args.set.task == Task::Cifar10 { 32 } else { 224 };
    let size = input.size.map(|side| crop.or(side).unwrap_or(open));
    let bar = progress::bar(common, "evaluating", count);
    let mut best = Found { model: Vec::new(), reference: reference.as_ref().map(|_| Vec::new()) };
    let mut tally = Tally::default();
    let largest = (0..count).map(|i| set.label(i)).max().unwrap_or(0);
    let batch = input.batch.unwrap_or(BATCH);
    for start in (0..count).step_by(batch.max(1)) {
        let indices = start..count.min(start + batch);
        let images = indices.clone().into_par_iter().map(|i| set.pixels(i, size)).collect::<Result<Vec<_>>>()?;
        let scores = scores(model, &input, &images, size, largest, args)?;
        best.model.extend(scores.iter().map(|row| best_five(row)));
        if let (Some((reference, of_reference)), Some(top)) = (&reference, &mut best.reference) {
            // Image by image where it may be: the reference gains nothing from batches, and so uses every core.
            let each = images
                .par_chunks(of_reference.batch.unwrap_or(1))
                .map(|images| self::scores(reference, of_reference, images, size, largest, args));
            let wanted: Vec<_> =
                each.collect::<Result<Vec<_>>>().context("the reference")?.into_iter().flatten().collect();
            top.extend(wanted.iter().map(|row| best_five(row)));
            for (wanted, row) in wanted.iter().zip(&scores).filter(|(a, b)| a.len() == b.len()) {
                tally.add(wanted, row, row.len());
            }
        }
        bar.inc(indices.len() as u64);
    }
    bar.finish_and_clear();
    Ok((best, tally))
}

/// The score of every class for every image; there must be more of them than the `largest` label.
fn scores(
    engine: &Engine,
    input: &ImageInput,
    images: &[Vec<u8>],
    size: [usize; 2],
    largest: usize,
    args: &Eval,
) -> Result<Vec<Vec<f32>>> {
    let outputs = engine.run(&input.batch(images, size, args.set.preset.unwrap_or(Preset::Torchvision))?)?;
    let (name, scores) = outputs.first().context("the model has no output")?;
    let batch = input.batch.unwrap_or(images.len()).max(images.len());
    let classes = scores.shape().iter().product::<usize>() / batch;
    ensure!(
        scores.shape().first() == Some(&batch) && classes > 1,
        "output `{name}` of shape {:?} is not one row of classes an image",
        scores.shape()
    );
    let data = args.set.data.display();
    ensure!(largest < classes, "{data}: label {largest} is beyond the {classes} classes of output `{name}`");
    let scores = scores.to_f32();
    let rows = scores.as_slice().context("a contiguous output")?.chunks_exact(classes);
    // Behind those of the images are only those of copies.
    Ok(rows.take(images.len()).map(<[f32]>::to_vec).collect())
}

/// The five largest classes, best first.
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

/// Shares of images whose class is the first and among the first five.
fn metrics(set: &dyn Images, top: &[Vec<usize>]) -> Metrics {
    let top1 = share(top.len(), |i| top[i][0] == set.label(i));
    let top5 = share(top.len(), |i| top[i].contains(&set.label(i)));
    Metrics::from([("top1", top1), ("top5", top5)])
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
