//! Section (i): a series against an ensemble of independently rounded integer models (section 5.4).

use std::sync::Arc;

use anyhow::Result;
use fpxint::{
    ExpandedLayer, Granularity, Layer, Precision, Scales, Series, Settings, Weight, expand_layer, expand_tensor,
};
use fpxint_runtime::{Expansion, Options};

use super::Chapter;
use super::draw::{Distribution, SIDE, relative, relative_error};
use super::remembered::{Mean, Remembered};
use super::section::Section;
use super::trial::{Score, Trial, int};
use crate::engine::Engine;
use crate::inputs::Generator;
use crate::page::figure::{Axis, Cell, Figure, Kind, Mark, Plot, Show, column};

pub(super) const CHAPTER: Chapter = Chapter {
    letter: 'i',
    title: "A series is not an ensemble (section 5.4)",
    steps: |_| 1 + SERIES as usize + 2 * MEMBERS,
    make,
};

const BITS: u32 = 4;
/// Terms of the series: 24 bits.
const SERIES: u32 = 6;
/// Members of an ensemble of models, and of tensors.
const MEMBERS: usize = 8;
const TENSORS: usize = 64;

/// How the members of an ensemble differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Members {
    /// Each rounds up or down at random, so that its mean is the value.
    Stochastic,
    /// Each has a clip of its own, from 0.7 to 1 times the largest value, and rounds to the nearest.
    Clipped,
}

impl Members {
    fn name(self) -> &'static str {
        match self {
            Self::Stochastic => "ensemble, stochastic rounding",
            Self::Clipped => "ensemble, clips of their own",
        }
    }
}

const KINDS: [Members; 2] = [Members::Stochastic, Members::Clipped];

fn make(trial: &Trial<'_>) -> Result<Section> {
    let tensors = tensors()?;
    trial.progress.step();
    let models = models(trial)?;
    let text = [
        "Section 5.4 of the paper: an ensemble of integer models cannot converge to the original, the series does. Here every \
         member is the whole model in INT4 (weights and activations of one term), and the ensemble is the mean of the \
         members' outputs; members differ by stochastic rounding of the weights, or by a clip of their own. The mean of k \
         unbiased roundings falls at best as 1/√k, and clips leave a bias that no mean removes; the series' k-th term \
         divides the error by 16.",
        &format!("The series' numbers are those of `{}`, W and A int4x1 to int4x6.", trial.command()),
    ];
    let found = summary(&tensors, &models);
    Ok(Section::of(&text, found, vec![tensors, models]))
}

/// The integers and scales of a member of a tensor whose scales to the nearest are `scales`.
fn member(x: &[f32], nearest: &Series, kind: Members, seed: u64) -> (Vec<f32>, Vec<i8>) {
    let mut generator = Generator::new(seed.wrapping_mul(0x9e37_79b9).wrapping_add(77));
    let (channels, most) = (nearest.channels(), nearest.precision().q_max() as f64);
    let scales: Vec<f32> = match kind {
        Members::Stochastic => nearest.scales().to_vec(),
        Members::Clipped => nearest.scales().iter().map(|&s| s * (0.7 + 0.3 * generator.unit() as f32)).collect(),
    };
    let digit = |(i, &x): (usize, &f32)| {
        let scale = f64::from(scales[if scales.len() == 1 { 0 } else { channels.of(i) }]);
        if scale == 0.0 {
            return 0;
        }
        let steps = f64::from(x) / scale;
        let rounded = match kind {
            Members::Stochastic => (steps + generator.unit()).floor(),
            Members::Clipped => steps.round_ties_even(),
        };
        rounded.clamp(-most, most) as i8
    };
    let digits = x.iter().enumerate().map(digit).collect();
    (scales, digits)
}

fn tensors() -> Result<Figure> {
    let x = Distribution::Gaussian.tensor(512);
    let shape = [SIDE, SIDE];
    let columns = vec![
        column("kind", "kind", Show::Text),
        column("models", "terms, or members", Show::Integer),
        column("relative_error", "|M − M̂|₂ / |M|₂", Show::Scientific),
    ];
    let mut figure = Figure::new(
        "A 512 × 512 Gaussian matrix: terms against members",
        "Relative error of the sum of k INT4 terms, and of the mean of k independently rounded INT4 tensors.",
        columns,
    );
    for terms in 1..=8 {
        let series = expand_tensor("matrix", &x, &shape, 0, int(BITS, terms)?, Granularity::Channel)?;
        figure.row(vec!["series".into(), terms.into(), relative_error(&x, &series, terms)?.into()]);
    }
    let nearest = expand_tensor("matrix", &x, &shape, 0, int(BITS, 1)?, Granularity::Channel)?;
    for kind in KINDS {
        let mut sum = vec![0f64; x.len()];
        for count in 1..=TENSORS {
            let (scales, digits) = member(&x, &nearest, kind, count as u64);
            for (i, sum) in sum.iter_mut().enumerate() {
                *sum += f64::from(scales[i / SIDE]) * f64::from(digits[i]);
            }
            if count <= 8 || count.is_power_of_two() {
                let error = relative(&x, sum.iter().map(|sum| sum / count as f64));
                figure.row(vec![kind.name().into(), count.into(), error.into()]);
            }
        }
    }
    let line = |title: &str, style| figure.line(title, ["models", "relative_error"], ("kind", title), style);
    let mut lines = vec![line("series", (0, Mark::Solid))];
    lines.extend(KINDS.into_iter().zip(1..).map(|(kind, colour)| line(kind.name(), (colour, Mark::Solid))));
    let x = Axis::log("number of INT4 tensors (terms, or members)");
    figure.plots.push(Plot { kind: Kind::Curves, x, y: Axis::log("relative error"), lines });
    Ok(figure)
}

/// The expansion of a member of an ensemble of models.
fn expansion(kind: Members, member_seed: u64, precision: Precision) -> Expansion {
    Expansion(Arc::new(move |index: usize, layer: Layer, settings: &Settings| {
        let settings = Settings { weights: precision, ..*settings };
        let mut expanded: ExpandedLayer = expand_layer(&layer, &settings)?;
        if let Weight::Float(floats) = &layer.weight {
            let (first, digits) = member(floats, &expanded.weight, kind, 1000 * member_seed + index as u64);
            let (shape, axis) = (expanded.weight.shape().to_vec(), expanded.weight.axis());
            let scales = Scales { first, block: None };
            expanded.weight = Series::from_terms(&layer.name, precision, shape, axis, scales, &[digits], Vec::new())?;
        }
        Ok(expanded)
    }))
}

fn models(trial: &Trial<'_>) -> Result<Figure> {
    let columns = vec![
        column("kind", "kind", Show::Text),
        column("models", "terms, or members", Show::Integer),
        column("relative", "largest output error / largest output", Show::Scientific),
        column("sqnr_db", "SQNR, dB", Show::Fixed(1)),
        column("metric", trial.metric_title(), trial.metric_show()),
        column("agreement", "agreement with FP32", Show::Percent(2)),
    ];
    let mut figure = Figure::new(
        "This model: terms against members",
        "A series of k INT4 terms in weights and activations, and the mean of the outputs of k INT4 models.",
        columns,
    );
    let cells = |kind: &str, count: usize, score: &Score| -> Vec<Cell> {
        let (relative, sqnr) = (score.relative().into(), score.sqnr().into());
        vec![kind.into(), count.into(), relative, sqnr, score.metric.into(), score.agreement.into()]
    };
    for terms in 1..=SERIES {
        let score = trial.score(&trial.options(int(BITS, terms)?, int(BITS, terms)?))?;
        figure.row(cells("series", terms as usize, &score));
        trial.progress.step();
    }
    let one = int(BITS, 1)?;
    for kind in KINDS {
        let mut members: Vec<Arc<Remembered>> = Vec::new();
        for count in 1..=MEMBERS {
            let options = Options { expansion: Some(expansion(kind, count as u64, one)), ..trial.options(one, one) };
            members.push(Remembered::new(trial.load(&options)?, 0));
            let score = trial.score_of(Engine::Derived(Arc::new(Mean(members.clone()))), None)?;
            figure.row(cells(kind.name(), count, &score));
            trial.progress.step();
        }
    }
    let lines = |key: &str| {
        let line = |title: &str, style| figure.line(title, ["models", key], ("kind", title), style);
        let mut lines = vec![line("series", (0, Mark::Solid))];
        lines.extend(KINDS.into_iter().zip(1..).map(|(kind, colour)| line(kind.name(), (colour, Mark::Solid))));
        lines
    };
    let x = || Axis::linear("number of INT4 models (terms, or members)");
    let y = trial.metric_axis("");
    let plots = [
        Plot {
            kind: Kind::Curves,
            x: x(),
            y: Axis::log("largest output error / largest output"),
            lines: lines("relative"),
        },
        Plot { kind: Kind::Curves, x: x(), y, lines: lines("metric") },
    ];
    figure.plots.extend(plots);
    Ok(figure)
}

fn summary(tensors: &Figure, models: &Figure) -> Vec<String> {
    let number = |figure: &Figure, kind: &str, count: usize, key: &str| {
        let is = |row: &&Vec<Cell>| row[0].text() == kind && row[1].number() == Some(count as f64);
        figure.rows.iter().find(is).and_then(|row| row[figure.at(key)].number()).unwrap_or(f64::NAN)
    };
    let fall = |figure: &Figure, kind: &str, last: usize, key: &str| {
        number(figure, kind, 1, key) / number(figure, kind, last, key)
    };
    let mut found = vec![format!(
        "Matrix: eight terms divide the error by {:.1e}, eight members by {:.2} (stochastic) and {:.2} (clips), 64 members by \
         {:.2} and {:.2}.",
        fall(tensors, "series", 8, "relative_error"),
        fall(tensors, KINDS[0].name(), 8, "relative_error"),
        fall(tensors, KINDS[1].name(), 8, "relative_error"),
        fall(tensors, KINDS[0].name(), TENSORS, "relative_error"),
        fall(tensors, KINDS[1].name(), TENSORS, "relative_error")
    )];
    let (series, last) = (SERIES as usize, MEMBERS);
    if number(models, "series", 1, "relative").is_finite() {
        found.push(format!(
            "Model: {series} terms divide the output error by {:.1e}, {last} members by {:.2} (stochastic) and {:.2} (clips).",
            fall(models, "series", series, "relative"),
            fall(models, KINDS[0].name(), last, "relative"),
            fall(models, KINDS[1].name(), last, "relative")
        ));
    }
    found.push(format!(
        "Agreement with FP32: {:.1} % with {series} terms, {:.1} % and {:.1} % with {last} members, {:.1} % with one INT4 model \
         rounded to the nearest.",
        100.0 * number(models, "series", series, "agreement"),
        100.0 * number(models, KINDS[0].name(), last, "agreement"),
        100.0 * number(models, KINDS[1].name(), last, "agreement"),
        100.0 * number(models, "series", 1, "agreement")
    ));
    found
}
