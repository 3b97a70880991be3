//! Section (b): what expanding one layer alone does to the output.

use anyhow::Result;
use fpxint::LayerPrecision;

use super::Chapter;
use super::section::Section;
use super::trial::{Score, Trial, int};
use crate::page::figure::{Axis, Cell, Figure, Kind, Mark, Plot, Show, column};

pub(super) const CHAPTER: Chapter = Chapter {
    letter: 'b',
    title: "One layer at a time",
    steps: |trial| 1 + PARTS.len() * trial.source.layers().len(),
    make,
};

/// Samples that every layer is measured on.
const SAMPLES: u32 = 50;
/// What of a layer is coarse.
const PARTS: [&str; 3] = ["weights", "activations", "both"];

fn make(trial: &Trial<'_>) -> Result<Section> {
    let samples = trial.args.set.limit.map_or(SAMPLES, |limit| limit.min(SAMPLES));
    let (fine, coarse) = (int(8, 2)?, int(4, 2)?);
    let rest = LayerPrecision::plain(fine, fine);
    let score = |options| -> Result<Score> {
        let score = trial.score_of(trial.load(&options)?, Some(samples));
        trial.progress.step();
        score
    };
    let floor = score(trial.planned(trial.plan(rest, &[]), "int8x2")?)?;
    let mut figure = figure(samples);
    let names = trial.layer_names();
    for (index, name) in names.iter().enumerate() {
        for part in PARTS {
            let precision = match part {
                "weights" => LayerPrecision::plain(coarse, fine),
                "activations" => LayerPrecision::plain(fine, coarse),
                _ => LayerPrecision::plain(coarse, coarse),
            };
            let options = trial.planned(trial.plan(rest, &[(index, precision)]), &format!("b-{index}-{part}"))?;
            figure.row(cells(trial, name, part, index, &score(options)?));
        }
    }
    figure.row(cells_of_none(&floor));
    let line = |title: &str, part: &str, style| figure.line(title, ["layer", "relative"], ("part", part), style);
    let lines = vec![
        line("weights int4x2", "weights", (0, Mark::Points)),
        line("activations int4x2", "activations", (1, Mark::Points)),
        line("both", "both", (2, Mark::Points)),
        line("none: everything int8x2", "none", (6, Mark::Points)),
    ];
    let y = Axis::log("largest output error / largest output");
    figure.plots.push(Plot { kind: Kind::Dots, x: Axis::linear("layer"), y, lines });
    let text = [
        "The summary's second experiment: only one layer is expanded coarsely (int4x2: 8 bits), the rest at 16 bits \
         (int8x2), so that what reaches the output is that layer's error. The plans are in the study's folder: `fpxint eval \
         MODEL .. --reference MODEL --plan plans/b-0-both.toml --limit N` gives the same numbers.",
    ];
    Ok(Section::of(&text, summary(&figure), vec![figure]))
}

fn figure(samples: u32) -> Figure {
    let columns = vec![
        column("layer", "layer", Show::Text),
        column("part", "coarse part", Show::Text),
        column("index", "index", Show::Integer),
        column("depthwise", "kind", Show::Text),
        column("relative", "largest output error / largest output", Show::Scientific),
        column("sqnr_db", "SQNR, dB", Show::Fixed(1)),
        column("agreement", "agreement", Show::Percent(1)),
    ];
    Figure::new(
        "Output error from expanding one layer",
        &format!(
            "First {samples} samples; errors are those of all outputs against FP32, as `compare` and `eval` give them."
        ),
        columns,
    )
}

fn cells(trial: &Trial<'_>, name: &str, part: &str, index: usize, score: &Score) -> Vec<Cell> {
    let kind = if trial.is_depthwise(index) { "depthwise" } else { trial.source.layers()[index].op_type };
    let agreement = score.agreement.into();
    vec![name.into(), part.into(), index.into(), kind.into(), score.relative().into(), score.sqnr().into(), agreement]
}

fn cells_of_none(score: &Score) -> Vec<Cell> {
    let agreement = score.agreement.into();
    vec![
        "(none)".into(),
        "none".into(),
        Cell::Missing,
        "".into(),
        score.relative().into(),
        score.sqnr().into(),
        agreement,
    ]
}

/// The layers that matter most, and whether weights or activations do.
fn summary(figure: &Figure) -> Vec<String> {
    let (part, error) = (figure.at("part"), figure.at("relative"));
    let of = |wanted: &'static str| figure.rows.iter().filter(move |row| row[part].text() == wanted);
    let mut both: Vec<(&str, f64)> = of("both").filter_map(|row| Some((row[0].text(), row[error].number()?))).collect();
    both.sort_by(|a, b| b.1.total_cmp(&a.1));
    let Some(first) = both.first() else {
        return vec![
            "The task's outputs are no numbers that an error could be measured of; see the agreement.".to_owned(),
        ];
    };
    let named: Vec<String> = both.iter().take(3).map(|(name, error)| format!("{name} ({error:.2e})")).collect();
    let middle = both[both.len() / 2].1;
    let pairs = of("weights").zip(of("activations"));
    let heavier = pairs.filter(|(w, a)| w[error].number() > a[error].number()).count();
    vec![
        format!(
            "Most sensitive: {}; the median layer has {middle:.2e}, so the first matters {:.0} times as much.",
            named.join(", "),
            first.1 / middle
        ),
        format!(
            "At equal bits the weights do more to the output than the activations in {heavier} of {} layers.",
            both.len()
        ),
    ]
}
