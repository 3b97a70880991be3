//! Section (e): only the weights expanded, only the activations, or both (Table 5).

use anyhow::Result;

use super::Chapter;
use super::section::Section;
use super::trial::{Trial, int};
use crate::page::figure::{Axis, Cell, Figure, Kind, Mark, Plot, Show, column};

pub(super) const CHAPTER: Chapter = Chapter {
    letter: 'e',
    title: "Weights only, activations only, both (Table 5)",
    steps: |_| WAYS.len() * MOST as usize,
    make,
};

const BITS: u32 = 4;
const MOST: u32 = 4;
/// What has `n` terms, and the precision of the other: one term, or 16 bits.
const WAYS: [(&str, bool, bool, bool); 5] = [
    ("weights only", true, false, false),
    ("activations only", false, true, false),
    ("both", true, true, false),
    ("weights, activations at 16 bits", true, false, true),
    ("activations, weights at 16 bits", false, true, true),
];

fn make(trial: &Trial<'_>) -> Result<Section> {
    let columns = vec![
        column("expanded", "expanded to n terms", Show::Text),
        column("terms", "n", Show::Integer),
        column("weights", "weights", Show::Text),
        column("activations", "activations", Show::Text),
        column("products", "products", Show::Fixed(2)),
        column("metric", trial.metric_title(), trial.metric_show()),
        column("agreement", "agreement with FP32", Show::Percent(2)),
        column("sqnr_db", "SQNR, dB", Show::Fixed(1)),
        column("relative", "largest output error / largest output", Show::Scientific),
    ];
    let mut figure = Figure::new(
        "Which side needs its terms",
        "n terms of INT4 on one side, one term on the other; or, dashed, 16 bits on the other, so that it does not err.",
        columns,
    );
    for (name, weights, activations, fine) in WAYS {
        for terms in 1..=MOST {
            let other = if fine { int(8, 2)? } else { int(BITS, 1)? };
            let side = |expanded: bool| if expanded { int(BITS, terms) } else { Ok(other) };
            let (w, a) = (side(weights)?, side(activations)?);
            let score = trial.score(&trial.options(w, a))?;
            trial.progress.step();
            let mut cells: Vec<Cell> = vec![name.into(), terms.into(), w.to_string().into(), a.to_string().into()];
            cells.extend([score.products.into(), score.metric.into(), score.agreement.into()]);
            cells.extend([score.sqnr().into(), score.relative().into()]);
            figure.row(cells);
        }
    }
    let lines = |key: &str| {
        let line = |((name, _, _, fine), colour): ((&str, bool, bool, bool), usize)| {
            let mark = if fine { Mark::Dashed } else { Mark::Solid };
            figure.line(name, ["terms", key], ("expanded", name), (colour, mark))
        };
        WAYS.into_iter().zip([0, 1, 2, 5, 4]).map(line).collect::<Vec<_>>()
    };
    let x = || Axis::linear("terms n of 4 bits");
    let plots = [
        Plot { kind: Kind::Curves, x: x(), y: Axis::percent("agreement with FP32"), lines: lines("agreement") },
        Plot { kind: Kind::Curves, x: x(), y: Axis::linear("SQNR of the outputs, dB"), lines: lines("sqnr_db") },
    ];
    figure.plots.extend(plots);
    let found = summary(&figure);
    let text = [
        "Table 5 of the paper: with one INT4 term on the other side, expanding only the activations gains more than expanding \
         only the weights (ResNet-50: 75.12 against 72.87; both 77.03).",
        &format!("The numbers are those of `{}` at the precisions in the table.", trial.command()),
    ];
    Ok(Section::of(&text, found, vec![figure]))
}

fn summary(figure: &Figure) -> Vec<String> {
    let value = |name: &str, terms: u32, key: &str| {
        let is = |row: &&Vec<Cell>| row[0].text() == name && row[1].number() == Some(f64::from(terms));
        100.0 * figure.rows.iter().find(is).and_then(|row| row[figure.at(key)].number()).unwrap_or(f64::NAN)
    };
    let [weights, activations, both] = [WAYS[0].0, WAYS[1].0, WAYS[2].0].map(|name| value(name, MOST, "metric"));
    let [w, a] = [WAYS[0].0, WAYS[1].0].map(|name| value(name, MOST, "agreement"));
    let said = match a > w {
        true => "as in the paper, the activations need their terms more than the weights",
        false => "unlike in the paper, the weights need their terms more than the activations",
    };
    vec![
        format!("At {MOST} terms: weights only {weights:.2} %, activations only {activations:.2} %, both {both:.2} %."),
        format!("Agreement {w:.1} % against {a:.1} %: {said}."),
    ]
}
