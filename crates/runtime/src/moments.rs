//! Statistics of what enters a layer: how far its activations err at each way to expand them.

use fpxint::{ActivationClip, ActivationOption, Geometry, Grid, Precision, Saturated};
use ndarray::{ArrayD, Axis};

/// A way to expand activations, and its errors so far.
#[derive(Debug, Clone)]
struct Way {
    precision: Precision,
    clip: ActivationClip,
    /// Sum over all values of `step^2 / 12`.
    noise: f64,
    /// Largest `step / 2`.
    error: f64,
}

/// Sums over the rows or images of a layer's input.
#[derive(Debug, Clone)]
pub(crate) struct Moments {
    /// Sum of squared values.
    power: f64,
    ways: Vec<Way>,
}

impl Moments {
    /// Nothing yet, of these ways to expand activations.
    pub(crate) fn new(ways: impl Iterator<Item = (Precision, ActivationClip)>) -> Self {
        let way = |(precision, clip)| Way { precision, clip, noise: 0.0, error: 0.0 };
        Self { power: 0.0, ways: ways.map(way).collect() }
    }

    /// Adds a value, which has a grid an image or row.
    pub(crate) fn add(&mut self, x: &ArrayD<f32>, geometry: &Geometry) {
        match geometry {
            Geometry::Conv(_) => x.axis_iter(Axis(0)).for_each(|image| self.grid(image.iter().copied().collect())),
            Geometry::MatMul(_) => {
                let rows = x.lanes(Axis(x.ndim().saturating_sub(1)));
                rows.into_iter().for_each(|row| self.grid(row.to_vec()));
            }
        }
    }

    fn grid(&mut self, values: Vec<f32>) {
        let (low, high) = values.iter().fold((0f32, 0f32), |(low, high), &v| (low.min(v), high.max(v)));
        self.power += values.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>();
        for way in &mut self.ways {
            let grid = match way.clip {
                ActivationClip::None => Grid::new(low, high, way.precision),
                clip => Saturated::new(&values, way.precision, clip).grid,
            };
            let step = f64::from(grid.scale);
            way.noise += step * step / 12.0 * values.len() as f64;
            way.error = way.error.max(step / 2.0);
        }
    }

    /// The ways with their variances.
    pub(crate) fn options(&self) -> Vec<ActivationOption> {
        let option = |way: &Way| ActivationOption {
            precision: way.precision,
            clip: way.clip,
            variance: self.variance(way),
            error: way.error,
        };
        self.ways.iter().map(option).collect()
    }

    /// `step^2 / (12 E[a^2])` over all grids; where nothing is known, that of values evenly spread over their range.
    fn variance(&self, way: &Way) -> f64 {
        if self.power.is_finite() && self.power > 0.0 {
            way.noise / self.power
        } else {
            0.25 / (way.precision.code_max() as f64).powi(2)
        }
    }
}
