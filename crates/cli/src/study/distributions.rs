//! Section (h): how much of a tensor the saturation part holds, by its distribution.

use anyhow::Result;
use fpxint::{Clip, Granularity, Method, Precision, Rounding, expand_tensor_by};

use super::Chapter;
use super::draw::{Distribution, SIDE, relative_error};
use super::section::Section;
use super::trial::{Trial, int};
use crate::page::figure::{Axis, Cell, Figure, Kind, Mark, Plot, Show, column};

pub(super) const CHAPTER: Chapter = Chapter {
    letter: 'h',
    title: "The saturation part by distribution",
    steps: |_| Distribution::ALL.len() * PRECISIONS.len(),
    make,
};

const PRECISIONS: [[u32; 2]; 6] = [[2, 1], [3, 1], [4, 1], [5, 1], [6, 1], [2, 2]];
const CLIPS: [Clip; 3] = [Clip::None, Clip::Laplace, Clip::Mse];

fn make(trial: &Trial<'_>) -> Result<Section> {
    let columns = vec![
        column("distribution", "distribution", Show::Text),
        column("precision", "precision", Show::Text),
        column("bits", "bits", Show::Integer),
        column("clip", "clip", Show::Text),
        column("group", "distribution, clip", Show::Text),
        column("beyond", "values beyond the Laplace clip", Show::Percent(3)),
        column("share", "M_sa share", Show::Percent(3)),
        column("relative_error", "|M − M̂|₂ / |M|₂", Show::Scientific),
        column("unclipped", "the same without a clip", Show::Scientific),
    ];
    let mut figure = Figure::new(
        "M_sa share of 512 × 512 tensors, one scale a row",
        "Share of values in the sparse part, and the error that remains. Beyond the Laplace clip: what α(b) · mean|x − μ| alone \
         would put there; fpxint widens clips so that at most one value in a hundred is, and leaves rows unclipped whose \
         error would not fall.",
        columns,
    );
    for distribution in Distribution::ALL {
        let x = distribution.tensor(17);
        for [bits, terms] in PRECISIONS {
            let precision = int(bits, terms)?;
            rows(&mut figure, distribution, &x, precision)?;
            trial.progress.step();
        }
    }
    let lines = |key: &str, clip: Clip| {
        let line = |(distribution, colour): (Distribution, usize)| {
            let group = format!("{}, {}", distribution.name(), clip.name());
            let mut line = figure.line(distribution.name(), ["bits", key], ("group", &group), (colour, Mark::Solid));
            line.rows.retain(|&row| !figure.rows[row][1].text().ends_with("x2"));
            line
        };
        Distribution::ALL.into_iter().zip(0..).map(line).collect::<Vec<_>>()
    };
    let x = || Axis::linear("bits of the one term");
    let plots = [
        Plot {
            kind: Kind::Curves,
            x: x(),
            y: Axis::percent("M_sa share, clip laplace"),
            lines: lines("share", Clip::Laplace),
        },
        Plot {
            kind: Kind::Curves,
            x: x(),
            y: Axis::percent("beyond the Laplace clip"),
            lines: lines("beyond", Clip::Laplace),
        },
    ];
    figure.plots.extend(plots);
    let text = [
        "The paper clips as if values were distributed after Laplace; its summary warns that for other distributions the \
         saturation part M_sa could grow beyond 1 % and cost its gains.",
    ];
    let found = summary(&figure);
    Ok(Section::of(&text, found, vec![figure]))
}

fn rows(figure: &mut Figure, distribution: Distribution, x: &[f32], precision: Precision) -> Result<()> {
    let beyond = beyond(x, precision);
    let mut unclipped = f64::NAN;
    for clip in CLIPS {
        let method = Method {
            precision,
            granularity: Granularity::Channel,
            rounding: Rounding::Nearest,
            clip,
            asymmetric: false,
        };
        let series = expand_tensor_by("tensor", x, &[SIDE, SIDE], 0, &method)?;
        let share = series.saturation().len() as f64 / x.len() as f64;
        let error = relative_error(x, &series, precision.order())?;
        if clip == Clip::None {
            unclipped = error;
        }
        let (name, group) = (distribution.name(), format!("{}, {}", distribution.name(), clip.name()));
        let mut cells: Vec<Cell> = vec![name.into(), precision.to_string().into(), precision.total_bits().into()];
        cells.extend([Cell::from(clip.name()), group.into()]);
        cells.extend([beyond, share, error, unclipped].map(Cell::from));
        figure.row(cells);
    }
    Ok(())
}

/// Share of values beyond `alpha(b) mean|x - mean|` of their row, where `alpha e^alpha = 3 4^b`.
fn beyond(x: &[f32], precision: Precision) -> f64 {
    let alpha = alpha(precision.total_bits());
    let mut count = 0;
    for row in x.chunks(SIDE) {
        let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / row.len() as f64;
        let spread = row.iter().map(|&v| (f64::from(v) - mean).abs()).sum::<f64>() / row.len() as f64;
        count += row.iter().filter(|&&v| (f64::from(v) - mean).abs() > alpha * spread).count();
    }
    count as f64 / x.len() as f64
}

/// The clip of least error of a Laplace distribution, in units of its spread: by Newton's method.
fn alpha(bits: u32) -> f64 {
    let wanted = (3.0 * 4f64.powi(bits as i32)).ln();
    (0..50).fold(1.0, |alpha: f64, _| alpha - (alpha + alpha.ln() - wanted) / (1.0 + 1.0 / alpha))
}

fn summary(figure: &Figure) -> Vec<String> {
    let largest = |key: &str| {
        let at = figure.at(key);
        figure.rows.iter().filter_map(|row| row[at].number()).fold(0.0, f64::max)
    };
    let int4 = |distribution: Distribution| {
        let is = |row: &&Vec<Cell>| {
            row[0].text() == distribution.name() && row[1].text() == "int4x1" && row[3].text() == "laplace"
        };
        let row = figure.rows.iter().find(is);
        let number = |key: &str| row.and_then(|row| row[figure.at(key)].number()).unwrap_or(f64::NAN);
        format!(
            "{} {:.2} % (error {:.2e}, {:.2e} unclipped)",
            distribution.name(),
            100.0 * number("share"),
            number("relative_error"),
            number("unclipped")
        )
    };
    vec![
        format!("int4x1, Laplace clip: {}.", Distribution::ALL.map(int4).join("; ")),
        format!(
            "M_sa never holds more than {:.2} % of the values; the clip alone would put up to {:.2} % there.",
            100.0 * largest("share"),
            100.0 * largest("beyond")
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alpha_solves_its_equation() {
        for (bits, want) in [(2, 2.83), (4, 5.03), (8, 9.9)] {
            assert!((alpha(bits) - want).abs() < 0.01, "{bits}: {}", alpha(bits));
        }
    }
}
