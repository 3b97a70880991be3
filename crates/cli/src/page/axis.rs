//! The scale of an axis: from values to places, and the values that are labelled.

use super::figure::Axis;

/// A range in the units of the axis, or in decades.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scale {
    low: f64,
    high: f64,
    log: bool,
    percent: bool,
    /// All values are whole numbers.
    whole: bool,
}

/// Steps of labels, in powers of ten.
const STEPS: [f64; 4] = [1.0, 2.0, 5.0, 10.0];
/// Labels of a decade, where few decades are shown: the most of them that have room.
const WITHIN: [&[f64]; 3] = [&[1.0, 2.0, 5.0], &[1.0, 3.0], &[1.0]];

impl Scale {
    /// The scale that holds these values, with about `labels` of them labelled.
    pub(crate) fn of(values: impl Iterator<Item = f64> + Clone, axis: &Axis, labels: usize) -> Self {
        let transformed = values.clone().map(|v| if axis.log { v.log10() } else { v });
        let (low, high) = transformed.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
        let whole = !axis.log && values.clone().all(|v| v.fract() == 0.0) && high - low <= 40.0;
        let mut scale = Self { low, high, log: axis.log, percent: axis.percent, whole };
        if axis.log {
            let margin = 0.03 * (high - low).max(0.5);
            (scale.low, scale.high) = (low - margin, high + margin);
            if scale.within(labels).len() < 2 {
                (scale.low, scale.high) = (low.floor(), (high.ceil()).max(low.floor() + 1.0));
            }
        } else if whole {
            let margin = if high > low { 0.04 * (high - low).max(1.0) } else { 1.0 };
            (scale.low, scale.high) = (low - margin, high + margin);
        } else {
            let spread = if high > low { high - low } else { high.abs().max(1.0) * 0.1 };
            let step = step(spread, labels);
            (scale.low, scale.high) = ((low / step).floor() * step, (high / step).ceil() * step);
            if scale.low == scale.high {
                scale.high += step;
            }
            if axis.percent {
                (scale.low, scale.high) = (scale.low.max(low.min(0.0)), scale.high.min(high.max(1.0)));
            }
        }
        scale
    }

    /// Where a value lies: 0 at the low end, 1 at the high one.
    pub(crate) fn place(&self, value: f64) -> f64 {
        let value = if self.log { value.log10() } else { value };
        (value - self.low) / (self.high - self.low)
    }

    /// Values to label, and their labels.
    pub(crate) fn labels(&self, most: usize) -> Vec<(f64, String)> {
        if self.log { self.within(most) } else { self.linear(most) }
    }

    fn linear(&self, most: usize) -> Vec<(f64, String)> {
        let step = step(self.high - self.low, most);
        let step = if self.whole { step.max(1.0).round() } else { step };
        let (first, last) = ((self.low / step - 1e-9).ceil() as i64, (self.high / step + 1e-9).floor() as i64);
        let unit = if self.percent { step * 100.0 } else { step };
        let decimals = (0..9).find(|&d| (unit * 10f64.powi(d)).fract().abs() < 1e-6).unwrap_or(9) as usize;
        let label = |i: i64| {
            let value = i as f64 * step;
            let text = match self.percent {
                true => format!("{:.decimals$} %", value * 100.0),
                false => format!("{value:.decimals$}"),
            };
            (value, text)
        };
        (first..=last).map(label).collect()
    }

    /// Powers of ten, every so many of them; where they are few, values between them.
    fn within(&self, most: usize) -> Vec<(f64, String)> {
        let (first, last) = ((self.low - 1e-9).ceil() as i32, (self.high + 1e-9).floor() as i32);
        let decades = last - first + 1;
        if decades >= 3 {
            let every = (decades as usize).div_ceil(most.max(1)).max(1);
            return (first..=last).step_by(every).map(|d| (10f64.powi(d), power(d))).collect();
        }
        let labels = |within: &[f64]| -> Vec<(f64, String)> {
            let all = (first - 1..=last).flat_map(|d| within.iter().map(move |&m| (m * 10f64.powi(d), plain(m, d))));
            all.filter(|(v, _)| (-1e-9..=1.0 + 1e-9).contains(&self.place(*v))).collect()
        };
        let roomy = |labels: &Vec<(f64, String)>| {
            labels.windows(2).all(|two| self.place(two[1].0) - self.place(two[0].0) >= 1.0 / (most as f64 + 2.0))
        };
        let all = WITHIN.map(labels);
        let chosen = all.iter().position(|labels| labels.len() >= 2 && roomy(labels));
        let [many, ..] = &all;
        chosen.map_or_else(|| many.clone(), |place| all[place].clone())
    }
}

/// The step that labels a spread at most so often.
fn step(spread: f64, labels: usize) -> f64 {
    let rough = spread / labels.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    STEPS.iter().map(|s| s * power).find(|&s| s >= rough * (1.0 - 1e-9)).unwrap_or(10.0 * power)
}

/// `10^n` as text.
fn power(exponent: i32) -> String {
    let raised = |c: char| match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        c => char::from_u32('⁰' as u32 + c.to_digit(10).unwrap_or(0)).unwrap_or(c),
    };
    match exponent {
        0 => "1".to_owned(),
        1 => "10".to_owned(),
        _ => format!("10{}", exponent.to_string().chars().map(raised).collect::<String>()),
    }
}

/// `m * 10^d` as text.
fn plain(m: f64, d: i32) -> String {
    match d {
        -4..=5 => format!("{:.*}", (-d).max(0) as usize, m * 10f64.powi(d)),
        _ if m == 1.0 => power(d),
        _ => format!("{m}·{}", power(d)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(values: &[f64], axis: &Axis) -> Vec<String> {
        let scale = Scale::of(values.iter().copied(), axis, 6);
        for &value in values {
            assert!((-1e-9..=1.0 + 1e-9).contains(&scale.place(value)), "{value} is outside {scale:?}");
        }
        let labels = scale.labels(6);
        assert!(labels.iter().all(|(v, _)| (-1e-6..=1.0 + 1e-6).contains(&scale.place(*v))), "{scale:?}");
        labels.into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn labels_are_round_and_few() {
        assert_eq!(labels(&[1.0, 8.0], &Axis::linear("n")), ["2", "4", "6", "8"]);
        assert_eq!(labels(&[1.0, 4.0], &Axis::linear("n")), ["1", "2", "3", "4"]);
        assert_eq!(
            labels(&[0.86, 0.915], &Axis::percent("p")),
            ["86 %", "87 %", "88 %", "89 %", "90 %", "91 %", "92 %"]
        );
        assert_eq!(labels(&[0.1, 1.0], &Axis::percent("p")).last().unwrap(), "100 %");
        assert_eq!(labels(&[1e-9, 1e-1], &Axis::log("e")), ["10⁻⁹", "10⁻⁷", "10⁻⁵", "10⁻³", "10⁻¹"]);
        assert_eq!(labels(&[0.03, 0.4], &Axis::log("e")), ["0.05", "0.1", "0.2"]);
    }

    #[test]
    fn odd_ranges_have_a_scale() {
        for values in [&[][..], &[3.5], &[0.0], &[-2.5, 7.25]] {
            assert!(labels(values, &Axis::linear("x")).len() >= 2, "{values:?}");
        }
        for values in [&[1.0][..], &[1e-30, 1e30], &[0.011, 0.012], &[7e-7, 9e-7]] {
            assert!(labels(values, &Axis::log("x")).len() >= 2, "{values:?}");
        }
    }
}
