//! Histograms one below the other: a row for every name, all on one scale from left to right.

use std::fmt::Write;

use super::axis::Scale;
use super::escape;
use super::figure::{Figure, Plot};
use super::plot::{COLOURS, LINE, apart_labels, class, margin, names, open, titles, x_title};

/// Height of a row, and of the tallest bar in it.
const ROW: f64 = 24.0;
const TALLEST: f64 = 20.0;

/// Draws every line of a plot as histograms; a vertical line stands where an axis' end is, at -1, 0 and 1.
pub(super) fn histograms(figure: &Figure, plot: &Plot, label: &str, size: f64) -> String {
    let names = names(figure, plot);
    let (left, shown) = margin(&names, size);
    let (from, to) = (figure.at("from"), figure.at("to"));
    let number = |row: usize, column: usize| figure.rows[row][column].number();
    let rows = || plot.lines.iter().flat_map(|line| line.rows.iter().map(move |&row| (line, row)));
    let ends: Vec<f64> = rows().flat_map(|(_, row)| [number(row, from), number(row, to)]).flatten().collect();
    let scale = Scale::of(ends.iter().copied(), &plot.x, 5);
    let below = x_title(&plot.x.title, size);
    let bottom = 4.0 + names.len() as f64 * ROW;
    let height = bottom + (1.4 + below.len() as f64) * LINE;
    let right = size - 24.0;
    let x = |value: f64| left + scale.place(value) * (right - left);
    let mut out = open(label, size, height, class(size));
    for (at, text) in apart_labels(scale.labels(5), x) {
        let _ = write!(out, "<path class=\"grid\" d=\"M{at:.1} 4V{bottom:.1}\"/>");
        let _ = write!(out, "<text class=\"mid\" x=\"{at:.1}\" y=\"{:.1}\">{text}</text>", bottom + LINE);
    }
    for (place, name) in names.iter().enumerate() {
        let base = 4.0 + (place as f64 + 1.0) * ROW;
        let (full, cut, end) = (escape(name), escape(&shown[place]), left - 8.0);
        let _ =
            write!(out, "<text class=\"end\" x=\"{end:.1}\" y=\"{:.1}\"><title>{full}</title>{cut}</text>", base - 6.0);
        for line in &plot.lines {
            let of: Vec<usize> =
                line.rows.iter().copied().filter(|&row| figure.rows[row][line.x].text() == *name).collect();
            let tallest = of.iter().filter_map(|&row| number(row, line.y)).fold(0.0, f64::max);
            let mut shape = String::new();
            for row in of {
                let (Some(a), Some(b), Some(share)) = (number(row, from), number(row, to), number(row, line.y)) else {
                    continue;
                };
                let top = base - if tallest > 0.0 { TALLEST * share / tallest } else { 0.0 };
                let _ = write!(shape, "M{:.1} {base:.1}V{top:.1}H{:.1}V{base:.1}z", x(a), x(b));
            }
            let _ = write!(out, "<path class=\"fill s{}\" d=\"{shape}\"/>", line.colour % COLOURS);
        }
        let _ = write!(out, "<path class=\"grid\" d=\"M{left:.1} {base:.1}H{right:.1}\"/>");
    }
    for bound in [-1.0, 1.0] {
        if (0.0..=1.0).contains(&scale.place(bound)) {
            let at = x(bound);
            let _ = write!(out, "<path class=\"dashed s1\" d=\"M{at:.1} 4V{bottom:.1}\"/>");
        }
    }
    titles(&mut out, &below, size, (left + right) / 2.0, height - 6.0);
    out + "</svg>"
}

#[cfg(test)]
mod tests {
    use super::super::figure::{Axis, Kind, Mark, Show, column};
    use super::*;

    #[test]
    fn a_row_has_its_bars_and_all_have_the_bounds() {
        let columns = vec![
            column("layer", "layer", Show::Text),
            column("from", "from", Show::Fixed(1)),
            column("to", "to", Show::Fixed(1)),
            column("share", "share", Show::Percent(1)),
        ];
        let mut figure = Figure::new("t", "c", columns);
        for layer in ["a", "b"] {
            for (from, share) in [(-1.0, 0.25), (0.0, 0.75)] {
                figure.row(vec![layer.into(), from.into(), (from + 1.0).into(), share.into()]);
            }
        }
        let lines = vec![figure.line("", ["layer", "share"], ("", ""), (0, Mark::Solid))];
        let plot = Plot { kind: Kind::Histograms, x: Axis::linear("error / bound"), y: Axis::linear("share"), lines };
        let svg = histograms(&figure, &plot, "what", 350.0);
        assert_eq!((svg.matches("fill s0").count(), svg.matches("dashed s1").count()), (2, 2), "{svg}");
        let bars = svg.split("fill s0\" d=\"").nth(1).unwrap().split('"').next().unwrap();
        let heights: Vec<f64> = bars
            .split('M')
            .skip(1)
            .map(|bar| {
                let part = |c: char| bar.split(c).nth(1).unwrap();
                let base: f64 = bar.split([' ', 'V']).nth(1).unwrap().parse().unwrap();
                base - part('V').split('H').next().unwrap().parse::<f64>().unwrap()
            })
            .collect();
        assert!(heights.len() == 2 && (heights[1] - 3.0 * heights[0]).abs() < 0.2, "{bars}");
    }
}
