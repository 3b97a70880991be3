//! Section (f): bit settings with their quantisation time (Tables 1 and 2).

use std::time::Instant;

use anyhow::Result;
use fpxint::{Clip, Granularity, LayerPrecision, Precision, Rounding, Settings, expand_layer};
use rayon::prelude::*;

use super::Chapter;
use super::section::Section;
use super::trial::{Trial, int};
use crate::page::figure::{Axis, Cell, Figure, Kind, Mark, Plot, Show, column};

pub(super) const CHAPTER: Chapter =
    Chapter { letter: 'f', title: "Bit settings (Tables 1, 2)", steps: |_| 2 * SETTINGS.len(), make };

/// Bits of a term of weights and of activations.
const SETTINGS: [[u32; 2]; 6] = [[2, 2], [2, 4], [4, 2], [3, 3], [4, 4], [8, 8]];
/// Terms of the paper: two of weights and four of activations; of eight bits one.
const TERMS: [u32; 2] = [2, 4];
const WAYS: [&str; 2] = ["series", "one term"];

fn make(trial: &Trial<'_>) -> Result<Section> {
    let fp32 = trial.fp32()?;
    let mut figure = Figure::new(
        "Accuracy of the paper's bit settings",
        "WxAy: terms of x bits for weights, of y bits for activations. Series: two terms of weights and four of activations \
         (W8A8: one of each); for contrast one term of each. The first and the last layer have 8 bits, as in the paper.",
        columns(trial),
    );
    for way in WAYS {
        for [weights, activations] in SETTINGS {
            let [n, m] = if way == WAYS[0] && weights < 8 { TERMS } else { [1, 1] };
            let (w, a) = (int(weights, n)?, int(activations, m)?);
            let last = trial.source.layers().len().saturating_sub(1);
            let eight = LayerPrecision::plain(int(8, 1)?, int(8, 1)?);
            let plan = trial.plan(LayerPrecision::plain(w, a), &[(0, eight), (last, eight)]);
            let name = format!("W{weights}A{activations}");
            let seconds = seconds(trial, &plan)?;
            let options = trial.planned(plan, &format!("f-{w}-{a}"))?;
            let score = trial.score(&options)?;
            trial.progress.step();
            let label = format!("{name} {way}");
            let mut cells: Vec<Cell> =
                vec![label.into(), name.into(), way.into(), w.to_string().into(), a.to_string().into()];
            let costs = [score.weight_bits, score.activation_bits, score.products, seconds];
            cells.extend(costs.map(Cell::from));
            cells.extend([score.metric, fp32, score.agreement].map(Cell::from));
            cells.push(score.sqnr().into());
            figure.row(cells);
        }
    }
    let line = |key: &str, title: &str, way: &str, style| figure.line(title, ["label", key], ("way", way), style);
    let metric = trial.metric_title();
    let lines = vec![
        line("metric", metric, WAYS[0], (0, Mark::Points)),
        line("agreement", "agreement with FP32", WAYS[0], (1, Mark::Points)),
        line("metric", "", WAYS[1], (0, Mark::Points)),
        line("agreement", "", WAYS[1], (1, Mark::Points)),
    ];
    let y = trial.metric_axis(", agreement");
    figure.plots.push(Plot { kind: Kind::Dots, x: Axis::linear("setting"), y, lines });
    let text = [
        "Tables 1 and 2 of the paper give accuracy by bits of the basis, W2A2 to W8A8, and the time of quantisation. What a \
         setting really uses are its effective bits, bits times terms, and its integer products; both stand beside the \
         accuracy. Quantisation time is that of expanding all weights, on all threads, without reading and writing files.",
        "The plans are in the study's folder: `fpxint eval MODEL .. --reference MODEL --plan plans/f-int4x2-int4x4.toml` gives \
         the same numbers.",
    ];
    let found = summary(&figure);
    Ok(Section::of(&text, found, vec![figure]))
}

fn columns(trial: &Trial<'_>) -> Vec<crate::page::figure::Column> {
    vec![
        column("label", "setting, way", Show::Text),
        column("setting", "setting", Show::Text),
        column("way", "way", Show::Text),
        column("weights", "weights", Show::Text),
        column("activations", "activations", Show::Text),
        column("weight_bits", "effective bits, weights", Show::Fixed(2)),
        column("activation_bits", "effective bits, activations", Show::Fixed(2)),
        column("products", "products", Show::Fixed(2)),
        column("seconds", "quantisation time, s", Show::Fixed(3)),
        column("metric", trial.metric_title(), trial.metric_show()),
        column("fp32", "FP32", trial.metric_show()),
        column("agreement", "agreement with FP32", Show::Percent(2)),
        column("sqnr_db", "SQNR, dB", Show::Fixed(1)),
    ]
}

/// Time that expanding all weights takes.
fn seconds(trial: &Trial<'_>, plan: &fpxint::Plan) -> Result<f64> {
    let any: Precision = int(4, 2)?;
    let base = Settings {
        weights: any,
        activations: any,
        granularity: Granularity::Channel,
        rounding: Rounding::Nearest,
        clip: Clip::None,
        asymmetric: false,
        activation_clip: Default::default(),
    };
    let layers = (0..trial.source.layers().len()).map(|i| Ok(trial.source.layer(i)?)).collect::<Result<Vec<_>>>()?;
    let start = Instant::now();
    let expand = |layer: &fpxint::Layer| expand_layer(layer, &plan.settings(&layer.name, base)).map(drop);
    layers.par_iter().with_max_len(1).try_for_each(expand)?;
    let seconds = start.elapsed().as_secs_f64();
    trial.progress.step();
    Ok(seconds)
}

fn summary(figure: &Figure) -> Vec<String> {
    let number = |row: &Vec<Cell>, key: &str| row[figure.at(key)].number().unwrap_or(f64::NAN);
    let close: Vec<&str> = figure
        .rows
        .iter()
        .filter(|row| row[2].text() == WAYS[0] && (number(row, "metric") - number(row, "fp32")).abs() <= 0.01)
        .map(|row| row[1].text())
        .collect();
    let slowest = figure.rows.iter().map(|row| number(row, "seconds")).fold(0.0, f64::max);
    let close = if close.is_empty() { "none".to_owned() } else { close.join(", ") };
    vec![
        format!("Series within one point of FP32: {close}."),
        format!("Expanding all weights takes at most {slowest:.3} s; no data and no fine-tuning are used."),
    ]
}
