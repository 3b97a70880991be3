//! Section (d): saturation of weights by symmetry of activations (Figure 4a).

use anyhow::Result;
use fpxint::Clip;
use fpxint_runtime::Options;

use super::Chapter;
use super::section::Section;
use super::trial::{Trial, int};
use crate::page::figure::{Axis, Cell, Figure, Kind, Mark, Plot, Show, column};

pub(super) const CHAPTER: Chapter = Chapter {
    letter: 'd',
    title: "Saturation and symmetry (Figure 4a)",
    steps: |_| SETTINGS.len() * CLIPS.len() * SYMMETRY.len(),
    make,
};

/// Precisions of weights and activations.
const SETTINGS: [[&str; 2]; 3] = [["int4x1", "int4x1"], ["int4x1", "int4x2"], ["int6x1", "int4x2"]];
const CLIPS: [Clip; 3] = [Clip::None, Clip::Laplace, Clip::Mse];
const SYMMETRY: [&str; 2] = ["asymmetric", "symmetric"];

fn make(trial: &Trial<'_>) -> Result<Section> {
    let columns = vec![
        column("setting", "weights, activations", Show::Text),
        column("clip", "clip of the weights", Show::Text),
        column("activations", "activations", Show::Text),
        column("name", "variant", Show::Text),
        column("metric", trial.metric_title(), trial.metric_show()),
        column("agreement", "agreement with FP32", Show::Percent(2)),
        column("sqnr_db", "SQNR, dB", Show::Fixed(1)),
        column("share", "M_sa share of the weights", Show::Percent(3)),
    ];
    let mut figure = Figure::new(
        "Clipped or not, symmetric or not",
        "Clipping moves the largest weights into the sparse saturation part M_sa, which is kept as integers, so that nothing is \
         lost; a symmetric range of activations is [−m, m] with m their largest magnitude. W4A8 sym laplace: four bits of weights, \
         clipped by Laplace's rule, eight of activations, symmetric.",
        columns,
    );
    for [weights, activations] in SETTINGS {
        let setting = format!("W {weights}, A {activations}");
        for symmetry in SYMMETRY {
            for clip in CLIPS {
                let share = share(trial, weights, clip)?;
                let options = trial.options(weights.parse()?, activations.parse()?);
                let score = trial.score(&Options { clip, symmetric: symmetry == SYMMETRY[1], ..options })?;
                trial.progress.step();
                let bits = [weights, activations].map(|text| text.parse().map_or(0, fpxint::Precision::total_bits));
                let short = symmetry.trim_end_matches("metric");
                let name = format!("W{}A{} {short} {}", bits[0], bits[1], clip.name());
                let mut cells: Vec<Cell> =
                    vec![setting.as_str().into(), clip.name().into(), symmetry.into(), name.into()];
                cells.extend([score.metric.into(), score.agreement.into(), score.sqnr().into(), share.into()]);
                figure.row(cells);
            }
        }
    }
    let line = |title: &str, key: &str, symmetry: &str, style| {
        figure.line(title, ["name", key], ("activations", symmetry), style)
    };
    let lines = vec![
        line(trial.metric_title(), "metric", SYMMETRY[0], (0, Mark::Points)),
        line("", "metric", SYMMETRY[1], (0, Mark::Points)),
        line("agreement with FP32", "agreement", SYMMETRY[0], (1, Mark::Points)),
        line("", "agreement", SYMMETRY[1], (1, Mark::Points)),
    ];
    let y = trial.metric_axis(", agreement");
    figure.plots.push(Plot { kind: Kind::Dots, x: Axis::linear("variant"), y, lines });
    let text = [
        "Figure 4a of the paper: saturating (clipped) against non-saturating and symmetric against asymmetric quantisation. \
         Here the weights are clipped (`--clip none|laplace|mse`), with symmetric terms a channel; symmetry is that of the \
         activations, which fpxint otherwise quantises asymmetrically (M_nsy). Weights have one term, because there the clip \
         has room.",
    ];
    let found = summary(&figure);
    Ok(Section::of(&text, found, vec![figure]))
}

/// Share of weights in the saturation part.
fn share(trial: &Trial<'_>, weights: &str, clip: Clip) -> Result<f64> {
    let (mut inside, mut all) = (0, 0);
    for index in 0..trial.source.layers().len() {
        let settings = fpxint::Settings {
            weights: weights.parse()?,
            activations: int(4, 2)?,
            granularity: fpxint::Granularity::Channel,
            rounding: fpxint::Rounding::Nearest,
            clip,
            asymmetric: false,
            activation_clip: Default::default(),
        };
        let expanded = fpxint::expand_layer(&trial.source.layer(index)?, &settings)?;
        inside += expanded.weight.saturation().len();
        all += expanded.weight.q().len();
    }
    Ok(inside as f64 / all.max(1) as f64)
}

fn summary(figure: &Figure) -> Vec<String> {
    let value = |setting: &str, clip: &str, symmetry: &str, key: &str| {
        let is = |row: &&Vec<Cell>| row[0].text() == setting && row[1].text() == clip && row[2].text() == symmetry;
        figure.rows.iter().find(is).and_then(|row| row[figure.at(key)].number()).unwrap_or(f64::NAN)
    };
    let percent = |v: f64| format!("{:.1} %", 100.0 * v);
    let line = |[weights, activations]: [&str; 2]| {
        let setting = format!("W {weights}, A {activations}");
        let agreement = |clip, symmetry| percent(value(&setting, clip, symmetry, "agreement"));
        format!(
            "{setting}: agreement {} without a clip, {} with Laplace's, {} with the least-squares one (asymmetric); {}, {} and \
             {} with symmetric activations.",
            agreement("none", SYMMETRY[0]),
            agreement("laplace", SYMMETRY[0]),
            agreement("mse", SYMMETRY[0]),
            agreement("none", SYMMETRY[1]),
            agreement("laplace", SYMMETRY[1]),
            agreement("mse", SYMMETRY[1])
        )
    };
    SETTINGS.into_iter().map(line).collect()
}
