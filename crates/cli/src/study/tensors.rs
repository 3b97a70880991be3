//! Section (a): the error of tensors against the number of their terms, beside its bound.

use anyhow::Result;
use fpxint::{Clip, Granularity, Rounding, Series, Settings, Weight, expand_layer, expand_tensor};
use rayon::prelude::*;

use super::Chapter;
use super::draw::{Distribution, SIDE, relative_error};
use super::section::Section;
use super::trial::{Trial, int};
use crate::page::figure::{Axis, Figure, Kind, Line, Mark, Plot, Show, column};

pub(super) const CHAPTER: Chapter = Chapter {
    letter: 'a',
    title: "Tensors: error against terms",
    steps: |trial| 1 + trial.source.layers().len(),
    make,
};

const BITS: u32 = 4;
const MOST: u32 = 8;
/// The paper expands weights until `scale_n 2^X` is below this.
const SMALL: f64 = 1e-2;

/// Errors of one layer's prefixes.
struct Layer {
    name: String,
    /// Largest error and its bound, by terms.
    errors: Vec<(f64, f64)>,
    /// Largest error in units of its channel's bound, by terms.
    shares: Vec<f64>,
    scale: f64,
    /// Terms by the paper's rule.
    ruled: Option<u32>,
}

fn make(trial: &Trial<'_>) -> Result<Section> {
    let matrix = matrix()?;
    trial.progress.step();
    let layer = |index: usize| {
        let layer = layer(trial, index);
        trial.progress.step();
        layer
    };
    let layers: Vec<Layer> =
        (0..trial.source.layers().len()).into_par_iter().with_max_len(1).map(layer).collect::<Result<_>>()?;
    let mut found = vec![factors(&matrix)];
    found.extend(summary(&layers));
    let text = [
        "Theorem 1: M = Σ scale_i M_i + error, scale_(i+1) = scale_i / 2^X. A further INT4 term divides the error by 16, and \
         every prefix of the terms has a bound that it cannot exceed. First a 512 × 512 matrix of Gaussian values with one \
         scale a row, expanded at n = 1 .. 8 terms (32 bits), then every layer of this model: the first n of eight terms, as \
         `fpxint inspect MODEL --weights int4x8 --json` gives them (`max_errors`, `bounds`).",
    ];
    Ok(Section::of(&text, found, vec![matrix, of_layers(&layers), of_shares(&layers), of_rule(&layers)]))
}

fn matrix() -> Result<Figure> {
    let x = Distribution::Gaussian.tensor(512);
    let columns = vec![
        column("terms", "terms n", Show::Integer),
        column("max_error", "largest error", Show::Scientific),
        column("bound", "bound", Show::Scientific),
        column("relative_error", "|M − M̂|₂ / |M|₂", Show::Scientific),
    ];
    let mut figure = Figure::new(
        "A 512 × 512 Gaussian matrix in INT4 terms",
        "Each point is an expansion of its own. The largest error stays below half a step of the last term; all three fall by \
         2^4 a term, up to 32 bits.",
        columns,
    );
    for terms in 1..=MOST {
        let series = expand_tensor("matrix", &x, &[SIDE, SIDE], 0, int(BITS, terms)?, Granularity::Channel)?;
        let (error, _) = series.measured_error("matrix", &x, terms)?;
        let relative = relative_error(&x, &series, terms)?;
        figure.row(vec![terms.into(), error.into(), series.worst_bound(terms).into(), relative.into()]);
    }
    let line = |title: &str, key: &str, style| figure.line(title, ["terms", key], ("", ""), style);
    let lines = vec![
        line("largest error", "max_error", (0, Mark::Solid)),
        line("its bound", "bound", (1, Mark::Limit)),
        line("relative error |M − M̂|₂ / |M|₂", "relative_error", (2, Mark::Solid)),
    ];
    figure.plots.push(Plot { kind: Kind::Curves, x: terms_axis(), y: Axis::log("error"), lines });
    Ok(figure)
}

fn terms_axis() -> Axis {
    Axis::linear("terms n of 4 bits")
}

fn layer(trial: &Trial<'_>, index: usize) -> Result<Layer> {
    let source = trial.source.layer(index)?;
    let precision = int(BITS, MOST)?;
    let settings = Settings {
        weights: precision,
        activations: int(BITS, 2)?,
        granularity: Granularity::Channel,
        rounding: Rounding::Nearest,
        clip: Clip::None,
        asymmetric: false,
        activation_clip: Default::default(),
    };
    let expanded = expand_layer(&source, &settings)?;
    let series: &Series = &expanded.weight;
    let Weight::Float(floats) = &source.weight else { anyhow::bail!("layer `{}` is expanded already", source.name) };
    let (mut errors, mut shares) = (Vec::new(), Vec::new());
    for terms in 1..=MOST {
        let (error, share) = series.measured_error(&source.name, floats, terms)?;
        errors.push((error, series.worst_bound(terms)));
        shares.push(share);
    }
    let scale = series.scales().iter().copied().fold(0.0, f32::max).into();
    let step = |terms: u32| scale * 2f64.powi(-((BITS * (terms - 1)) as i32));
    let ruled = (1..=MOST).find(|&terms| step(terms) * 2f64.powi(BITS as i32) < SMALL);
    Ok(Layer { name: source.name, errors, shares, scale, ruled })
}

fn of_layers(layers: &[Layer]) -> Figure {
    let columns = vec![
        column("layer", "layer", Show::Text),
        column("terms", "terms n", Show::Integer),
        column("max_error", "largest error of a weight", Show::Scientific),
        column("bound", "bound", Show::Scientific),
        column("share_of_bound", "largest error / bound of its channel", Show::Fixed(4)),
    ];
    let mut figure = Figure::new(
        "Every layer's weights",
        "Largest error of any weight, one line a layer, and the bound that the file states. Folded weights, one scale an \
         output channel.",
        columns,
    );
    for layer in layers {
        for (terms, (&(error, bound), &share)) in (1u32..).zip(layer.errors.iter().zip(&layer.shares)) {
            figure.row(vec![layer.name.as_str().into(), terms.into(), error.into(), bound.into(), share.into()]);
        }
    }
    let mut lines: Vec<Line> =
        (0..layers.len()).map(|place| of_layer(&figure, place, "max_error", (0, Mark::Thin))).collect();
    if let Some(first) = lines.first_mut() {
        "largest error, a line a layer".clone_into(&mut first.title);
    }
    let bound = |place: &usize| layers[*place].errors[0].1;
    let largest = (0..layers.len()).max_by(|a, b| bound(a).total_cmp(&bound(b)));
    let least = (0..layers.len()).min_by(|a, b| bound(a).total_cmp(&bound(b)));
    let ends = [(largest, "the largest bound of a layer", 1), (least, "the least bound of a layer", 2)];
    for (place, title, colour) in ends {
        let line = place.map(|place| of_layer(&figure, place, "bound", (colour, Mark::Limit)));
        lines.extend(line.map(|line| Line { title: title.to_owned(), ..line }));
    }
    figure.plots.push(Plot { kind: Kind::Curves, x: terms_axis(), y: Axis::log("error of a weight"), lines });
    figure
}

/// The line of a layer, whose rows are together.
fn of_layer(figure: &Figure, place: usize, key: &str, style: (usize, Mark)) -> Line {
    let (first, terms) = (place * MOST as usize, MOST as usize);
    let (x, y) = (figure.at("terms"), figure.at(key));
    Line { title: String::new(), x, y, rows: (first..first + terms).collect(), colour: style.0, mark: style.1 }
}

fn of_shares(layers: &[Layer]) -> Figure {
    let columns = vec![
        column("terms", "terms n", Show::Integer),
        column("least", "least over the layers", Show::Fixed(4)),
        column("largest", "largest over the layers", Show::Fixed(4)),
        column("limit", "the bound", Show::Integer),
    ];
    let mut figure = Figure::new(
        "How much of its bound the error takes",
        "Largest error of a channel in units of that channel's bound: at most 1.",
        columns,
    );
    for terms in 1..=MOST {
        let shares = || layers.iter().map(|layer| layer.shares[terms as usize - 1]);
        let (least, largest) = (shares().fold(f64::INFINITY, f64::min), shares().fold(0.0, f64::max));
        figure.row(vec![terms.into(), least.into(), largest.into(), 1.0.into()]);
    }
    let line = |title: &str, key: &str, style| figure.line(title, ["terms", key], ("", ""), style);
    let lines = vec![
        line("layer with the largest share", "largest", (0, Mark::Solid)),
        line("layer with the least share", "least", (2, Mark::Solid)),
        line("the bound", "limit", (1, Mark::Limit)),
    ];
    figure.plots.push(Plot { kind: Kind::Curves, x: terms_axis(), y: Axis::linear("error / bound"), lines });
    figure
}

fn of_rule(layers: &[Layer]) -> Figure {
    let columns = vec![
        column("layer", "layer", Show::Text),
        column("scale_1", "largest scale_1", Show::Scientific),
        column("terms", "terms by the rule", Show::Integer),
    ];
    let mut figure = Figure::new(
        "Terms by the paper's rule for weights",
        "The paper expands weights until scale_n · 2^X < 10⁻² (section 4): usually two or three terms. Here X = 4 and scale_n \
         is the largest of the layer's channels.",
        columns,
    );
    for layer in layers {
        let terms = layer.ruled.map(f64::from);
        figure.row(vec![layer.name.as_str().into(), layer.scale.into(), terms.into()]);
    }
    figure
}

/// By what factor the error falls from term to term in a figure of terms and errors.
fn factors(figure: &Figure) -> String {
    let number = |row: usize, key: &str| figure.rows[row][figure.at(key)].number().unwrap_or(f64::NAN);
    let ratios: Vec<f64> =
        (1..figure.rows.len()).map(|row| number(row - 1, "relative_error") / number(row, "relative_error")).collect();
    let (least, most) = ratios.iter().fold((f64::INFINITY, 0f64), |(l, m), &r| (l.min(r), m.max(r)));
    let within = (0..figure.rows.len()).all(|row| number(row, "max_error") <= number(row, "bound"));
    let said = if within { "never exceeds" } else { "EXCEEDS" };
    format!(
        "512 × 512: each term divides the error by {least:.1} to {most:.1} (2^4 = 16), and the largest error {said} its bound."
    )
}

fn summary(layers: &[Layer]) -> Vec<String> {
    let worst = layers.iter().flat_map(|layer| &layer.shares).copied().fold(0.0, f64::max);
    let said = if worst <= 1.0 { "never exceeds" } else { "EXCEEDS" };
    let mut all: Vec<f64> = Vec::new();
    for layer in layers {
        all.extend(layer.errors.windows(2).filter(|w| w[1].0 > 0.0).map(|w| w[0].0 / w[1].0));
    }
    all.sort_by(f64::total_cmp);
    let middle = all.get(all.len() / 2).copied().unwrap_or(f64::NAN);
    let ruled = layers.iter().filter_map(|layer| layer.ruled);
    let (least, most) = (ruled.clone().min().unwrap_or(0), ruled.max().unwrap_or(0));
    vec![
        format!(
            "{} layers: the median factor a term is {middle:.1}; the error {said} its bound (at most {:.2} % of it).",
            layers.len(),
            100.0 * worst
        ),
        format!("The paper's rule asks for {least} to {most} terms of weights here."),
    ]
}
