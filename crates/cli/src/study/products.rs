//! Section (j): products against accuracy, the Pareto front of the planner.

use anyhow::Result;
use fpxint::{Clip, Rounding};

use super::Chapter;
use super::section::Section;
use super::trial::{Score, Trial};
use crate::args::{Method, Planning, Precisions};
use crate::page::figure::{Axis, Cell, Figure, Kind, Mark, Plot, Show, column};

pub(super) const CHAPTER: Chapter = Chapter {
    letter: 'j',
    title: "Products against accuracy: the planner's front",
    steps: |_| 2 * TARGETS.len() + UNIFORM.len(),
    make,
};

/// Products that plans may take.
const TARGETS: [f64; 9] = [1.0, 1.05, 1.1, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0];
const UNIFORM: [(&str, &str); 5] =
    [("int4x2", "int4x2"), ("int4x2", "int4x3"), ("int4x3", "int4x2"), ("int4x3", "int4x3"), ("int4x4", "int4x4")];
const KINDS: [&str; 3] = ["plan, nearest rounding", "plan as made by default", "uniform, nearest rounding"];

fn make(trial: &Trial<'_>) -> Result<Section> {
    let columns = vec![
        column("kind", "kind", Show::Text),
        column("setting", "setting", Show::Text),
        column("products", "products", Show::Fixed(3)),
        column("weight_bits", "bits, weights", Show::Fixed(2)),
        column("activation_bits", "bits, activations", Show::Fixed(2)),
        column("metric", trial.metric_title(), trial.metric_show()),
        column("agreement", "agreement with FP32", Show::Percent(2)),
        column("sqnr_db", "SQNR, dB", Show::Fixed(2)),
    ];
    let mut figure = Figure::new(
        "Cost against fidelity",
        "Products are integer-product multiply-accumulates relative to one 8-bit product in every layer. Plans are made for at \
         most so many products, without data.",
        columns,
    );
    let row = |figure: &mut Figure, kind: &str, setting: String, score: &Score| {
        let mut cells: Vec<Cell> = vec![kind.into(), setting.into()];
        let numbers = [score.products, score.weight_bits, score.activation_bits, score.metric, score.agreement];
        cells.extend(numbers.map(Cell::from));
        cells.push(score.sqnr().into());
        figure.row(cells);
        trial.progress.step();
    };
    let plain = Method {
        rounding: Some(Rounding::Nearest),
        clip: Some(Clip::None),
        rotation: Some(false),
        bias_correction: Some(false),
        ..Method::default()
    };
    for (kind, method) in KINDS.into_iter().zip([plain, Method::default()]) {
        for target in TARGETS {
            let score = planned(trial, target, method)?;
            row(&mut figure, kind, format!("--target-products {target}"), &score);
        }
    }
    for (weights, activations) in UNIFORM {
        let score = trial.score(&trial.options(weights.parse()?, activations.parse()?))?;
        row(&mut figure, KINDS[2], format!("{weights}, {activations}"), &score);
    }
    let lines = |key: &str| {
        let line = |(kind, (colour, mark)): (&str, (usize, Mark))| {
            figure.line(kind, ["products", key], ("kind", kind), (colour, mark))
        };
        let marks = [(0, Mark::Solid), (2, Mark::Solid), (1, Mark::Points)];
        KINDS.into_iter().zip(marks).map(line).collect::<Vec<_>>()
    };
    let x = || Axis::linear("products");
    let plots = [
        Plot { kind: Kind::Curves, x: x(), y: Axis::linear("SQNR of the outputs, dB"), lines: lines("sqnr_db") },
        Plot { kind: Kind::Curves, x: x(), y: Axis::percent("agreement with FP32"), lines: lines("agreement") },
    ];
    figure.plots.extend(plots);
    let found = summary(&figure);
    let text = [
        "Not in the paper, which gives every layer the same terms: the planner spends terms where they matter. Signal to noise \
         of the outputs separates settings that agreement on few samples cannot.",
        "`fpxint eval MODEL .. --reference MODEL --target-products P` gives the numbers of plans as they are made by default, with \
         sum-preserving rounding and corrected biases; with `--rounding nearest --clip none --rotation none --bias-correction none` those of \
         plans that choose precisions alone.",
    ];
    Ok(Section::of(&text, found, vec![figure]))
}

/// What a plan for at most so many products scores, as the other commands make it.
fn planned(trial: &Trial<'_>, target: f64, method: Method) -> Result<Score> {
    let planning = Planning { target_products: Some(target), ..Planning::default() };
    trial.score_of(trial.engine(&Precisions { planning, method, ..Precisions::default() })?, None)
}

fn summary(figure: &Figure) -> Vec<String> {
    let at = ["products", "agreement", "sqnr_db"].map(|key| figure.at(key));
    let told = |row: &Vec<Cell>| {
        let [products, agreement, sqnr] = at.map(|at| row[at].number());
        let sqnr = sqnr.map_or(String::new(), |sqnr| format!(", {sqnr:.1} dB"));
        format!("{:.2} products: {:.1} %{sqnr}", products.unwrap_or(f64::NAN), 100.0 * agreement.unwrap_or(f64::NAN))
    };
    let of = |kind: &'static str, settings: &'static [&'static str]| {
        let rows = figure.rows.iter().filter(move |row| row[0].text() == kind && settings.contains(&row[1].text()));
        rows.map(told).collect::<Vec<_>>().join("; ")
    };
    const SOME: &[&str] = &["--target-products 1.1", "--target-products 2", "--target-products 4"];
    vec![
        format!(
            "Agreement of uniform settings: {}.",
            of(KINDS[2], &["int4x2, int4x2", "int4x2, int4x3", "int4x3, int4x3"])
        ),
        format!("Of plans that choose precisions alone: {}.", of(KINDS[0], SOME)),
        format!("Of plans as made by default: {}.", of(KINDS[1], SOME)),
    ]
}
