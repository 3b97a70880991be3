//! How close two outputs, or two lists of values, are.

use serde::Serialize;

/// Differences between a reference `a` and `b`, over all runs compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Closeness {
    /// Name of the output.
    pub name: String,
    /// Largest `|a - b|`.
    pub max_abs: f64,
    /// Largest `|a - b|` relative to the largest `|a|`.
    pub relative: f64,
    /// Cosine of the angle between the two.
    pub cosine: f64,
    /// Signal to quantisation noise, in decibels; `null` where there is no noise.
    pub sqnr_db: Option<f64>,
    /// Share of rows (last axis) whose largest element is at the same place.
    pub argmax_agreement: f64,
}

/// Sums from which [`Closeness`] is computed.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    max_difference: f64,
    max_value: f64,
    products: f64,
    squares: [f64; 2],
    noise: f64,
    rows: u64,
    agreeing: u64,
}

impl Tally {
    /// Adds one run: rows of `width` values.
    pub fn add(&mut self, a: &[f32], b: &[f32], width: usize) {
        self.add_values(a, b);
        for (a, b) in a.chunks(width.max(1)).zip(b.chunks(width.max(1))) {
            self.rows += 1;
            self.agreeing += u64::from(argmax(a) == argmax(b));
        }
    }

    /// Adds one run of values that form no rows.
    pub(crate) fn add_values(&mut self, a: &[f32], b: &[f32]) {
        for (&a, &b) in a.iter().zip(b) {
            let (a, b) = (f64::from(a), f64::from(b));
            let difference = (a - b).abs();
            // A NaN anywhere stays visible.
            if difference > self.max_difference || difference.is_nan() {
                self.max_difference = difference;
            }
            self.max_value = self.max_value.max(a.abs());
            self.products += a * b;
            self.squares[0] += a * a;
            self.squares[1] += b * b;
            self.noise += (a - b) * (a - b);
        }
    }

    /// `|a - b|_2 / |a|_2`.
    pub(crate) fn root_relative(&self) -> f64 {
        relative(self.noise.sqrt(), self.squares[0].sqrt())
    }

    /// Largest `|a - b|` relative to the largest `|a|`.
    pub(crate) fn max_relative(&self) -> f64 {
        relative(self.max_difference, self.max_value)
    }

    /// The figures.
    pub fn closeness(&self, name: &str) -> Closeness {
        let ratio = |x: f64, y: f64, none: f64| if y == 0.0 { none } else { x / y };
        let noiseless = if self.noise == 0.0 { 1.0 } else { 0.0 };
        Closeness {
            name: name.to_owned(),
            max_abs: self.max_difference,
            relative: self.max_relative(),
            cosine: ratio(self.products, (self.squares[0] * self.squares[1]).sqrt(), noiseless),
            sqnr_db: (self.noise > 0.0).then(|| 10.0 * (self.squares[0] / self.noise).log10()),
            argmax_agreement: ratio(self.agreeing as f64, self.rows as f64, 1.0),
        }
    }
}

/// A difference in terms of a size: infinite where only the size is 0.
fn relative(difference: f64, size: f64) -> f64 {
    match (difference == 0.0, size == 0.0) {
        (true, true) => 0.0,
        (false, true) => f64::INFINITY,
        _ => difference / size,
    }
}

/// The mean of `(value, weight)`; 0 where the weights are.
pub(crate) fn weighted_mean(values: impl Iterator<Item = (f64, f64)>) -> f64 {
    let (sum, total) = values.fold((0.0, 0.0), |(sum, total), (value, weight)| (sum + value * weight, total + weight));
    if total == 0.0 { 0.0 } else { sum / total }
}

/// Index of the first largest value.
pub(crate) fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, value) in row.iter().enumerate() {
        if *value > row[best] || row[best].is_nan() {
            best = i;
        }
    }
    best
}

/// Cosine of the angle between two vectors; 0 where one of them is zero.
pub(crate) fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let lengths = dot(a, a).sqrt() * dot(b, b).sqrt();
    if lengths == 0.0 { 0.0 } else { dot(a, b) / lengths }
}

/// Pearson's correlation of two lists; NaN where one of them has no two different values.
pub(crate) fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let varies = |values: &[f64]| values.iter().any(|value| *value != values[0]);
    let centred = |values: &[f64]| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        values.iter().map(|value| value - mean).collect::<Vec<_>>()
    };
    if varies(a) && varies(b) { cosine(&centred(a), &centred(b)) } else { f64::NAN }
}

/// Spearman's correlation: Pearson's of the ranks.
pub(crate) fn spearman(a: &[f64], b: &[f64]) -> f64 {
    pearson(&ranks(a), &ranks(b))
}

/// Ranks from 0; equal values share the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    for equal in order.chunk_by(|&a, &b| values[a] == values[b]) {
        for &index in equal {
            ranks[index] = first as f64 + (equal.len() - 1) as f64 / 2.0;
        }
        first += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_figures() {
        let mut tally = Tally::default();
        tally.add(&[3.0, 4.0, 0.0, 1.0], &[3.0, 2.0, 0.0, 1.0], 2);
        let c = tally.closeness("y");
        assert_eq!((c.max_abs, c.relative, c.argmax_agreement), (2.0, 0.5, 0.5));
        assert_eq!((tally.max_relative(), tally.root_relative()), (0.5, 2.0 / 26f64.sqrt()));
        assert!((c.cosine - 18.0 / (26f64 * 14.0).sqrt()).abs() < 1e-12);
        assert!((c.sqnr_db.unwrap() - 10.0 * 6.5f64.log10()).abs() < 1e-12);
    }

    #[test]
    fn what_differs_from_zero_is_infinitely_far() {
        let mut tally = Tally::default();
        tally.add_values(&[0.0, 0.0], &[0.0, 1.0]);
        assert_eq!((tally.max_relative(), tally.root_relative()), (f64::INFINITY, f64::INFINITY));
        tally.add_values(&[f32::NAN], &[1.0]);
        assert!(tally.root_relative().is_nan());
    }

    #[test]
    fn means_are_weighted() {
        assert_eq!(weighted_mean([(1.0, 3.0), (5.0, 1.0)].into_iter()), 2.0);
        assert_eq!(weighted_mean(std::iter::empty()), 0.0);
    }

    #[test]
    fn equal_outputs_and_nan() {
        let mut tally = Tally::default();
        tally.add(&[0.0, 0.0], &[0.0, 0.0], 2);
        let c = tally.closeness("y");
        assert_eq!((c.relative, c.cosine, c.sqnr_db, c.argmax_agreement), (0.0, 1.0, None, 1.0));
        tally.add(&[1.0, 2.0], &[f32::NAN, 2.0], 2);
        assert!(tally.closeness("y").max_abs.is_nan());
        assert_eq!(argmax(&[f32::NAN, 1.0, 3.0, 3.0]), 2);
    }

    #[test]
    fn correlations_of_known_lists() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0, 3.0]), [3.0, 0.0, 3.0, 1.0, 3.0]);
        assert_eq!(ranks(&[0.0, -0.0]), [0.5, 0.5]);
        // Ranks with ties: 0 1.5 1.5 3 against 0 1 3 2, so r = 3 / sqrt(4.5 * 5).
        let (a, b) = ([1.0, 2.0, 2.0, 9.0], [1.0, 3.0, 8.0, 7.0]);
        assert!((spearman(&a, &b) - 3.0 / 22.5f64.sqrt()).abs() < 1e-12);
        assert!((pearson(&[1.0, 2.0, 3.0], &[2.0, 1.0, 3.0]) - 0.5).abs() < 1e-12);
        assert!((spearman(&[1.0, 2.0, 30.0], &[-1.0, -2.0, -9.0]) + 1.0).abs() < 1e-12);
        assert!(spearman(&[1.0, 1.0], &[1.0, 2.0]).is_nan() && pearson(&[1.0], &[1.0]).is_nan());
        assert!(pearson(&[], &[]).is_nan());
    }

    #[test]
    fn cosines_of_known_vectors() {
        assert!((cosine(&[3.0, 4.0], &[4.0, 3.0]) - 0.96).abs() < 1e-12);
        assert_eq!((cosine(&[1.0, 0.0], &[0.0, 2.0]), cosine(&[0.0, 0.0], &[1.0, 1.0])), (0.0, 0.0));
    }
}
