//! Random tensors of known distributions, and how far an expansion is from them.

use fpxint::Series;

use crate::inputs::Generator;

/// Rows and columns of the tensors.
pub(super) const SIDE: usize = 512;

/// Distributions of mean zero and variance one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Distribution {
    Gaussian,
    Laplace,
    Uniform,
    /// Two Gaussians around `-0.95` and `0.95`.
    Bimodal,
}

impl Distribution {
    pub(super) const ALL: [Self; 4] = [Self::Laplace, Self::Gaussian, Self::Bimodal, Self::Uniform];

    /// Its name for people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gaussian => "Gaussian",
            Self::Laplace => "Laplace",
            Self::Uniform => "uniform",
            Self::Bimodal => "bimodal",
        }
    }

    /// A tensor of `SIDE` x `SIDE` values.
    pub(super) fn tensor(self, seed: u64) -> Vec<f32> {
        let mut generator = Generator::new(seed);
        (0..SIDE * SIDE).map(|_| self.value(&mut generator) as f32).collect()
    }

    fn value(self, generator: &mut Generator) -> f64 {
        match self {
            Self::Gaussian => gaussian(generator),
            Self::Laplace => {
                let u = generator.unit() - 0.5;
                -u.signum() * (1.0 - 2.0 * u.abs()).max(f64::MIN_POSITIVE).ln() / 2f64.sqrt()
            }
            Self::Uniform => (2.0 * generator.unit() - 1.0) * 3f64.sqrt(),
            Self::Bimodal => {
                let centre = if generator.unit() < 0.5 { -0.95 } else { 0.95 };
                centre + (1.0 - 0.95f64 * 0.95).sqrt() * gaussian(generator)
            }
        }
    }
}

/// Of two uniform values, after Box and Muller.
fn gaussian(generator: &mut Generator) -> f64 {
    let (u, v) = (1.0 - generator.unit(), generator.unit());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// `|x - y|_2 / |x|_2`.
pub(super) fn relative(x: &[f32], y: impl Iterator<Item = f64>) -> f64 {
    let (mut noise, mut power) = (0.0, 0.0);
    for (&x, y) in x.iter().zip(y) {
        let x = f64::from(x);
        noise += (x - y) * (x - y);
        power += x * x;
    }
    if power > 0.0 { (noise / power).sqrt() } else { 0.0 }
}

/// [`relative`] of the first terms of a series.
pub(super) fn relative_error(x: &[f32], series: &Series, terms: u32) -> anyhow::Result<f64> {
    Ok(relative(x, series.values("tensor", terms)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_have_their_moments() {
        // Fourth moment of variance one: of the bimodal one m^4 + 6 m^2 s^2 + 3 s^4.
        let fourth = [6.0, 3.0, 0.8145 + 6.0 * 0.9025 * 0.0975 + 3.0 * 0.0095, 1.8];
        for (distribution, want) in Distribution::ALL.into_iter().zip(fourth) {
            let x = distribution.tensor(1);
            let moment = |n: i32| x.iter().map(|&x| f64::from(x).powi(n)).sum::<f64>() / x.len() as f64;
            assert!(moment(1).abs() < 0.01 && (moment(2) - 1.0).abs() < 0.02, "{distribution:?}");
            assert!((moment(4) / want - 1.0).abs() < 0.06, "{distribution:?}: {} for {want}", moment(4));
        }
    }
}
