//! Section (c): accuracy and the largest difference of activations against the number of activation terms (Figure 4b).

use anyhow::Result;

use super::Chapter;
use super::section::Section;
use super::trial::{Trial, int};
use crate::page::figure::{Axis, Cell, Figure, Kind, Mark, Plot, Show, column};

pub(super) const CHAPTER: Chapter =
    Chapter { letter: 'c', title: "Activation terms (Figure 4b)", steps: |_| 2 * MOST as usize, make };

const BITS: u32 = 4;
/// 24 bits are the most that run.
const MOST: u32 = 6;
/// The paper stops where the largest difference is below this.
const SMALL: f64 = 1e-4;
/// Terms of the weights: the paper's two, and as many as there are.
const WEIGHTS: [u32; 2] = [2, 6];

fn make(trial: &Trial<'_>) -> Result<Section> {
    let mut figure = Figure::new(
        "Accuracy and largest activation difference against activation terms",
        "Accuracy and agreement on all samples. The difference is the largest |a − a'| between FP32 and the series over the \
         outputs of all layers, on four of the samples. Dashed: FP32, and the paper's limit of 10⁻⁴.",
        columns(trial),
    );
    let fp32 = trial.fp32()?;
    for weights in WEIGHTS {
        for terms in 1..=MOST {
            let options = trial.options(int(BITS, weights)?, int(BITS, terms)?);
            let (score, difference) = (trial.score(&options)?, trial.difference(&options)?);
            trial.progress.step();
            let name = format!("int{BITS}x{weights}");
            let mut cells: Vec<Cell> = vec![name.into(), terms.into(), (BITS * terms).into()];
            let numbers =
                [score.products, score.metric, fp32, score.agreement, difference.layers, difference.outputs, SMALL];
            cells.extend(numbers.map(Cell::from));
            cells.extend([score.relative().into(), score.sqnr().into()]);
            figure.row(cells);
        }
    }
    plots(trial, &mut figure);
    let text = [
        "Figure 4b of the paper: with more activation terms the accuracy approaches FP32's, because the largest difference \
         between the activations falls; the paper stops below 10⁻⁴. Weights stay at two terms (the paper's choice), or at six \
         so that only activations err.",
        &format!("The numbers are those of `{}`, W int4x2 or int4x6, A int4x1 to int4x6.", trial.command()),
    ];
    Ok(Section::of(&text, summary(trial, &figure), vec![figure]))
}

fn columns(trial: &Trial<'_>) -> Vec<crate::page::figure::Column> {
    let metric = trial.metric_title();
    vec![
        column("weights", "weights", Show::Text),
        column("terms", "activation terms", Show::Integer),
        column("activation_bits", "activation bits", Show::Integer),
        column("products", "products", Show::Fixed(2)),
        column("metric", metric, trial.metric_show()),
        column("fp32", "FP32", trial.metric_show()),
        column("agreement", "agreement with FP32", Show::Percent(2)),
        column("max_layers", "largest difference, all layers", Show::Scientific),
        column("max_outputs", "largest difference, outputs", Show::Scientific),
        column("limit", "the paper's limit", Show::Scientific),
        column("relative", "largest output error / largest output", Show::Scientific),
        column("sqnr_db", "SQNR, dB", Show::Fixed(1)),
    ]
}

fn plots(trial: &Trial<'_>, figure: &mut Figure) {
    let line =
        |title: &str, key: &str, weights: &str, style| figure.line(title, ["terms", key], ("weights", weights), style);
    let x = || Axis::linear("activation terms of 4 bits");
    let metric = trial.metric_title();
    let accuracy = vec![
        line(&format!("{metric}, weights int4x2"), "metric", "int4x2", (0, Mark::Solid)),
        line(&format!("{metric}, weights int4x6"), "metric", "int4x6", (2, Mark::Solid)),
        line("agreement with FP32, weights int4x2", "agreement", "int4x2", (3, Mark::Solid)),
        line("FP32", "fp32", "int4x2", (6, Mark::Limit)),
    ];
    let differences = vec![
        line("weights int4x2", "max_layers", "int4x2", (0, Mark::Solid)),
        line("weights int4x6", "max_layers", "int4x6", (2, Mark::Solid)),
        line("the paper's limit", "limit", "int4x2", (1, Mark::Limit)),
    ];
    let y = trial.metric_axis(", agreement");
    let made = [
        Plot { kind: Kind::Curves, x: x(), y, lines: accuracy },
        Plot { kind: Kind::Curves, x: x(), y: Axis::log("largest activation difference"), lines: differences },
    ];
    figure.plots.extend(made);
}

fn summary(trial: &Trial<'_>, figure: &Figure) -> Vec<String> {
    let number = |weights: &str, terms: u32, key: &str| {
        let row = figure.rows.iter().find(|row| row[0].text() == weights && row[1].number() == Some(f64::from(terms)));
        row.and_then(|row| row[figure.at(key)].number()).unwrap_or(f64::NAN)
    };
    let reach =
        (1..=MOST).find(|&terms| (number("int4x2", terms, "metric") - number("int4x2", terms, "fp32")).abs() <= 0.005);
    let below = (1..=MOST).find(|&terms| number("int4x6", terms, "max_layers") < SMALL);
    let metric = trial.metric_title();
    let reached = reach.map_or(
        format!("No number of activation terms brings the {metric} within half a point of FP32 with weights int4x2."),
        |terms| format!("{terms} activation terms bring the {metric} within half a point of FP32 (weights int4x2)."),
    );
    let fell = below.map_or("The largest difference stays above 10⁻⁴ up to six terms: ".to_owned(), |terms| {
        format!("With weights of 24 bits the largest difference falls below 10⁻⁴ at {terms} terms; ")
    });
    let (first, last) = (number("int4x6", 1, "max_layers"), number("int4x6", MOST, "max_layers"));
    vec![
        reached,
        format!("{fell}from one term to six it falls from {first:.2e} to {last:.2e}."),
        format!(
            "With weights of two terms it levels off at {:.2e}, which is the weights' own error.",
            number("int4x2", MOST, "max_layers")
        ),
    ]
}
