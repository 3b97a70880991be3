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
    /// The one that gains are measured at.
    coarse: Way,
    /// What is worth a clip.
    worth: f64,
}

/// A clip is worth its time where it leaves less than this of the variance: of images, and of rows, whose values differ more with
/// what a model is used on than synthetic inputs show.
const WORTH: [f64; 2] = [0.7, 0.99];

impl Moments {
    /// Nothing yet, of these ways to expand activations, and of those of precision `coarse` that are not clipped.
    pub(crate) fn new(ways: &[(Precision, ActivationClip)], coarse: Precision, geometry: &Geometry) -> Self {
        let way = |&(precision, clip): &(Precision, ActivationClip)| Way { precision, clip, noise: 0.0, error: 0.0 };
        let worth = WORTH[usize::from(matches!(geometry, Geometry::MatMul(_)))];
        let coarse = way(&(coarse, ActivationClip::None));
        Self { power: 0.0, ways: ways.iter().map(way).collect(), coarse, worth }
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
        for way in self.ways.iter_mut().chain([&mut self.coarse]) {
            let grid = match way.clip {
                ActivationClip::None => Grid::new(low, high, way.precision),
                clip => Saturated::new(&values, way.precision, clip).grid,
            };
            let step = f64::from(grid.scale);
            way.noise += step * step / 12.0 * values.len() as f64;
            way.error = way.error.max(step / 2.0);
        }
    }

    /// The ways with their variances, without clips that are not worth it.
    pub(crate) fn options(&self) -> Vec<ActivationOption> {
        let whole =
            |precision| self.ways.iter().find(|way| way.precision == precision && way.clip == ActivationClip::None);
        let kept = self.ways.iter().filter(|way| {
            way.clip == ActivationClip::None
                || whole(way.precision).is_none_or(|whole| way.noise < self.worth * whole.noise)
        });
        let option = |way: &Way| ActivationOption {
            precision: way.precision,
            clip: way.clip,
            variance: self.variance(way),
            error: way.error,
        };
        kept.map(option).collect()
    }

    /// `step^2 / (12 E[a^2])` over all grids; where nothing is known, that of values evenly spread over their range.
    fn variance(&self, way: &Way) -> f64 {
        if self.power.is_finite() && self.power > 0.0 {
            way.noise / self.power
        } else {
            0.25 / (way.precision.code_max() as f64).powi(2)
        }
    }

    /// That of the way that gains are measured at.
    pub(crate) fn coarse(&self) -> f64 {
        self.variance(&self.coarse)
    }
}
