//! A plot of lines as SVG: values over counts, both on axes that begin at zero or one.

use std::fmt::Write;

/// A line and its name.
pub(crate) struct Line {
    pub name: String,
    /// Counts and values.
    pub points: Vec<(f64, f64)>,
}

const SIZE: [f64; 2] = [720.0, 440.0];
/// Left, top, right and bottom of the area of the lines.
const AREA: [f64; 4] = [70.0, 40.0, 540.0, 390.0];
const COLOURS: [&str; 4] = ["#1f6fb4", "#d9601a", "#2a8a3e", "#7a4fa3"];

/// Draws lines over a count from 1 on.
pub(crate) fn plot(title: &str, across: &str, up: &str, lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    let last = points().map(|p| p.0).fold(2.0, f64::max);
    let top = nice(points().map(|p| p.1).filter(|v| v.is_finite()).fold(f64::MIN_POSITIVE, f64::max));
    let [left, above, right, below] = AREA;
    let x = |count: f64| left + (count - 1.0) / (last - 1.0) * (right - left);
    let y = |value: f64| below - value / top * (below - above);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        SIZE[0], SIZE[1]
    );
    let mut text = |at: (f64, f64), anchor: &str, words: &str| {
        let words = words.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{words}</text>", at.0, at.1);
    };
    text(((left + right) / 2.0, 22.0), "middle", title);
    text(((left + right) / 2.0, SIZE[1] - 12.0), "middle", across);
    text((left - 8.0, above - 10.0), "start", up);
    for step in 0..=4 {
        let value = top * f64::from(step) / 4.0;
        text((left - 8.0, y(value) + 4.0), "end", &format!("{value}"));
    }
    for step in 0..5 {
        let count = (1.0 + (last - 1.0) * f64::from(step) / 4.0).round();
        text((x(count), below + 18.0), "middle", &format!("{count}"));
    }
    for (i, line) in lines.iter().enumerate() {
        text((right + 24.0, above + 16.0 + 20.0 * i as f64), "start", &line.name);
    }
    for step in 0..=4 {
        let at = y(top * f64::from(step) / 4.0);
        let _ = writeln!(svg, "<path d=\"M{left} {at:.1}H{right}\" stroke=\"#ddd\"/>");
    }
    for (i, line) in lines.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let path: Vec<_> =
            line.points.iter().map(|&(count, value)| format!("{:.1},{:.1}", x(count), y(value))).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        for point in path.iter().filter_map(|point| point.split_once(',')) {
            let _ = writeln!(svg, "<circle cx=\"{}\" cy=\"{}\" r=\"3\" fill=\"{colour}\"/>", point.0, point.1);
        }
        let at = above + 12.0 + 20.0 * i as f64;
        let _ = writeln!(svg, "<path d=\"M{} {at}h14\" stroke=\"{colour}\" stroke-width=\"3\"/>", right + 6.0);
    }
    svg.push_str("</svg>\n");
    svg
}

/// A round number that is not below `value`.
fn nice(value: f64) -> f64 {
    let base = 10f64.powf(value.log10().floor());
    let found = [1.0, 2.0, 4.0, 5.0, 8.0, 10.0].into_iter().map(|m| m * base).find(|&round| round >= value);
    found.unwrap_or(10.0 * base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_drawn_within_its_area() {
        let line = |name: &str, values: [f64; 3]| Line {
            name: name.to_owned(),
            points: [1.0, 2.0, 4.0].into_iter().zip(values).collect(),
        };
        let svg = plot("a < b", "workers", "ms", &[line("terms", [4.0, 2.5, 7.3]), line("batch", [4.0, 4.0, 4.0])]);
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && svg.contains("a &lt; b"));
        assert_eq!((svg.matches("<polyline").count(), svg.matches("<circle").count()), (2, 6));
        assert_eq!((nice(7.3), nice(0.013), nice(100.0)), (8.0, 0.02, 100.0));
    }
}
