//! What enters the layers of a model on given inputs.

use fpxint::{Geometry, Means, Precision, Rotation};
use ndarray::{ArrayD, Axis};

use crate::{Error, Model, Options, Value};

/// Inputs of a run by name.
pub(crate) type Inputs = Vec<(String, Value)>;

/// How a model is run that stands for the one in FP32.
pub(crate) fn fine(threads: usize) -> Options {
    let precision = Precision::new(8, 2).ok();
    Options { weights: precision, activations: precision, threads, ..Options::default() }
}

/// A model in FP32, run at 16 bits, that shows what enters its layers.
pub(crate) struct Observer {
    model: Model,
    /// By layer, the name of its input and what rotates it.
    inputs: Vec<(String, Option<Rotation>)>,
}

impl Observer {
    pub(crate) fn new(source: &fpxint_onnx::Model, threads: usize) -> Result<Self, Error> {
        let mut exposed = source.clone();
        let inputs: Vec<_> = source.layers().iter().map(|layer| (layer.input.clone(), layer.rotation)).collect();
        exposed.expose(&inputs.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>())?;
        Ok(Self { model: Model::load(&exposed, &fine(threads), &|_, _| {})?, inputs })
    }

    /// Runs it, and shows what entered every layer, where that is known: `see(layer, values)`.
    pub(crate) fn run(&self, inputs: &Inputs, see: &mut dyn FnMut(usize, &ArrayD<f32>)) -> Result<(), Error> {
        let outputs = self.model.run(inputs)?;
        for (index, (name, rotation)) in self.inputs.iter().enumerate() {
            let value = outputs.iter().chain(inputs).find(|(other, _)| other == name);
            if let Some((_, value)) = value {
                see(index, &rotated(value.to_f32(), *rotation));
            }
        }
        Ok(())
    }
}

/// Rows as they enter a layer.
fn rotated(x: ArrayD<f32>, rotation: Option<Rotation>) -> ArrayD<f32> {
    let Some(rotation) = rotation else { return x };
    let mut x = x.as_standard_layout().into_owned();
    let rows = x.rows_mut().into_iter().filter_map(|row| row.into_slice());
    rows.for_each(|row| rotation.turn(row));
    x
}

/// Means of what enters every layer of a model in FP32, by index, over the runs of two kinds of inputs: what
/// [`fpxint::expand_corrected`] takes. Layers whose input is not known have none. `progress(done, runs)` is called as it goes.
///
/// # Errors
/// As [`Model::load`] and [`Model::run`].
pub fn input_means(
    source: &fpxint_onnx::Model,
    kinds: [&[Inputs]; 2],
    threads: usize,
    progress: &dyn Fn(usize, usize),
) -> Result<Vec<Means>, Error> {
    let observer = Observer::new(source, threads)?;
    let mut means = vec![Means::default(); source.layers().len()];
    let (mut done, all) = (0, kinds[0].len() + kinds[1].len());
    for (kind, runs) in kinds.into_iter().enumerate() {
        let mut counts = vec![0u64; means.len()];
        for inputs in runs {
            observer.run(inputs, &mut |index, x| {
                let axis = match source.layers()[index].geometry {
                    Geometry::Conv(_) => 1,
                    Geometry::MatMul(_) => x.ndim().saturating_sub(1),
                };
                let sums = &mut means[index].kinds[kind];
                sums.resize(x.shape().get(axis).copied().unwrap_or(0), 0.0);
                for (sum, channel) in sums.iter_mut().zip(x.axis_iter(Axis(axis))) {
                    *sum = channel.iter().fold(*sum, |sum, &v| sum + f64::from(v));
                }
                counts[index] += (x.len() / sums.len().max(1)) as u64;
            })?;
            done += 1;
            progress(done, all);
        }
        for (means, count) in means.iter_mut().zip(counts) {
            means.kinds[kind].iter_mut().for_each(|sum| *sum /= count.max(1) as f64);
        }
    }
    Ok(means)
}
