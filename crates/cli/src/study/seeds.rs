//! Section (g): terms of weights at fixed activations, over several trainings of the embedded network.

use anyhow::{Context, Result};
use fpxint_onnx::Limits;
use fpxint_runtime::{Float, Model, Options};

use super::Chapter;
use super::section::Section;
use super::trial::{Trial, int};
use crate::commands::demo;
use crate::page::figure::{Axis, Cell, Figure, Kind, Mark, Plot, Show, column};

pub(super) const CHAPTER: Chapter = Chapter {
    letter: 'g',
    title: "Weight terms, over several trainings",
    steps: |_| NETWORKS.len() * BITS.len() * MOST as usize,
    make,
};

/// The embedded network, trained from several seeds.
const NETWORKS: [(&str, &[u8]); 5] = [
    ("7", demo::NETWORK),
    ("1", include_bytes!("../../../../assets/digits_seed1.onnx")),
    ("2", include_bytes!("../../../../assets/digits_seed2.onnx")),
    ("3", include_bytes!("../../../../assets/digits_seed3.onnx")),
    ("4", include_bytes!("../../../../assets/digits_seed4.onnx")),
];
/// Bits of a term of weights.
const BITS: [u32; 2] = [2, 4];
const MOST: u32 = 5;
/// Terms of four bits of the activations.
const ACTIVATIONS: u32 = 4;

fn make(trial: &Trial<'_>) -> Result<Section> {
    let columns = vec![
        column("group", "bits a term, seed", Show::Text),
        column("bits", "bits a term", Show::Integer),
        column("seed", "seed", Show::Text),
        column("terms", "weight terms", Show::Integer),
        column("accuracy", "accuracy", Show::Percent(2)),
        column("fp32", "FP32", Show::Percent(2)),
        column("loss", "accuracy less FP32, points", Show::Fixed(2)),
        column("agreement", "agreement with FP32", Show::Percent(2)),
    ];
    let mut figure = Figure::new(
        "Accuracy against weight terms, activations int4x4",
        "The network that `fpxint demo` reads digits with, 600 test images, trained from five seeds (faint), and their mean.",
        columns,
    );
    let (inputs, labels) = demo::test_set()?;
    for (seed, bytes) in NETWORKS {
        let source = fpxint_onnx::parse(bytes.into(), "an embedded network", &Limits::default())?;
        let float = demo::classes(&Float::load(&source)?.run(&inputs)?)?;
        let fp32 = demo::share(&float, &labels);
        for bits in BITS {
            for terms in 1..=MOST {
                let (weights, activations) = (Some(int(bits, terms)?), Some(int(4, ACTIVATIONS)?));
                let options = Options { weights, activations, threads: trial.common.threads(), ..Options::default() };
                let found = demo::classes(&Model::load(&source, &options, &|_, _| {})?.run(&inputs)?)?;
                let accuracy = demo::share(&found, &labels);
                let (loss, agreement) = (100.0 * (accuracy - fp32), demo::share(&found, &float));
                let group = format!("int{bits}, seed {seed}");
                let mut cells: Vec<Cell> = vec![group.into(), bits.into(), seed.into(), terms.into()];
                cells.extend([accuracy, fp32, loss, agreement].map(Cell::from));
                figure.row(cells);
                trial.progress.step();
            }
        }
    }
    means(&mut figure)?;
    let mut lines = Vec::new();
    for (bits, colour) in BITS.into_iter().zip([1, 0]) {
        for (seed, _) in NETWORKS {
            let group = format!("int{bits}, seed {seed}");
            lines.push(figure.line("", ["terms", "agreement"], ("group", &group), (colour, Mark::Thin)));
        }
        let group = format!("int{bits}, mean");
        let title = format!("INT{bits} terms, mean of {} trainings", NETWORKS.len());
        lines.push(figure.line(&title, ["terms", "agreement"], ("group", &group), (colour, Mark::Solid)));
    }
    let y = Axis::percent("agreement with FP32");
    figure.plots.push(Plot { kind: Kind::Curves, x: Axis::linear("weight terms"), y, lines });
    let text = [
        "The summary's check of the paper's argument that weights need two or three terms: weight terms 1 to 5 with the \
         activations fixed at four terms (16 bits), over several random initialisations. This section is about the network \
         that fpxint carries, whatever model is studied.",
    ];
    let found = summary(&figure);
    Ok(Section::of(&text, found, vec![figure]))
}

/// Adds the means over the seeds.
fn means(figure: &mut Figure) -> Result<()> {
    for bits in BITS {
        for terms in 1..=MOST {
            let mut sums = [0.0; 4];
            for (seed, _) in NETWORKS {
                let group = format!("int{bits}, seed {seed}");
                let is = |row: &&Vec<Cell>| row[0].text() == group && row[3].number() == Some(f64::from(terms));
                let row = figure.rows.iter().find(is).context("a row a seed")?;
                for (sum, cell) in sums.iter_mut().zip(&row[4..]) {
                    *sum += cell.number().unwrap_or(f64::NAN) / NETWORKS.len() as f64;
                }
            }
            let mut cells: Vec<Cell> =
                vec![format!("int{bits}, mean").into(), bits.into(), "mean".into(), terms.into()];
            cells.extend(sums.map(Cell::from));
            figure.row(cells);
        }
    }
    Ok(())
}

fn summary(figure: &Figure) -> Vec<String> {
    let line = |bits: u32| {
        let group = format!("int{bits}, mean");
        let of = |key: &str| {
            let rows = figure.rows.iter().filter(|row| row[0].text() == group);
            let numbers: Vec<String> =
                rows.map(|row| format!("{:.1}", 100.0 * row[figure.at(key)].number().unwrap_or(f64::NAN))).collect();
            numbers.join(", ")
        };
        format!("INT{bits}, 1 to {MOST} terms: mean agreement {} %.", of("agreement"))
    };
    BITS.into_iter().map(line).collect()
}
