//! Plots as SVG that follows the page's colours: every stroke and letter has a class, none a colour of its own.
//!
//! A plot is drawn for one width, with letters of the page's size; a page holds a wide and a narrow one and shows the one that
//! fits. The legend is text of the page beside it.

use std::fmt::Write;

use super::axis::Scale;
use super::figure::{Figure, Kind, Line, Mark, Plot};
use super::{escape, histogram};

/// Height of a line, in pixels, of the letters in plots.
pub(super) const LINE: f64 = 18.0;
/// Colours of the palette; later lines begin again.
pub(super) const COLOURS: usize = 7;
/// Points of a line beyond which they bear no marks and tell no values.
const MARKED: usize = 60;

/// The area of a plot within its picture.
struct Area {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Area {
    fn x(&self, place: f64) -> f64 {
        self.left + place * (self.right - self.left)
    }

    fn y(&self, place: f64) -> f64 {
        self.bottom - place * (self.bottom - self.top)
    }
}

/// Width of a text, in pixels, in the widest of the page's fonts.
pub(super) fn width(text: &str) -> f64 {
    let letter = |c: char| match c {
        'W' | 'M' | '%' | '@' => 12.9,
        'm' | 'w' => 12.4,
        'A'..='Z' => 9.6,
        'i' | 'l' | 'j' | '.' | ',' | ':' | ' ' | '\'' | '|' | '/' => 4.6,
        '0'..='9' | 'a'..='z' => 8.0,
        '⁰'..='⁹' | '¹' | '²' | '³' | '⁻' => 6.0,
        _ => 8.4,
    };
    text.chars().map(letter).sum()
}

/// Labels below a picture and where their middles are, without those that would touch the one before.
pub(super) fn apart_labels(labels: Vec<(f64, String)>, x: impl Fn(f64) -> f64) -> Vec<(f64, String)> {
    let mut end = f64::NEG_INFINITY;
    let placed = labels.into_iter().map(|(value, text)| (x(value), text));
    let room = |(at, text): &(f64, String)| {
        let half = width(text) / 2.0;
        let fits = at - half >= end;
        if fits {
            end = at + half + 4.0;
        }
        fits
    };
    placed.filter(room).collect()
}

/// Lines of words that are no wider than `most`, where words allow it.
fn wrapped(text: &str, most: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if width(line) + width(word) + 5.0 <= most => *line += &format!(" {word}"),
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Draws a plot `size` pixels wide; `label` says what it is to who cannot see it.
pub(crate) fn svg(figure: &Figure, plot: &Plot, label: &str, size: f64) -> String {
    match plot.kind {
        Kind::Curves => curves(figure, plot, label, size),
        Kind::Dots => dots(figure, plot, label, size),
        Kind::Histograms => histogram::histograms(figure, plot, label, size),
    }
}

pub(super) fn open(label: &str, size: f64, height: f64, class: &str) -> String {
    let label = escape(label);
    format!("<svg class=\"{class}\" viewBox=\"0 0 {size:.0} {height:.0}\" role=\"img\" aria-label=\"{label}\">")
}

pub(super) fn class(size: f64) -> &'static str {
    if size < 500.0 { "plot narrow" } else { "plot wide" }
}

/// Lines over a numeric x.
fn curves(figure: &Figure, plot: &Plot, label: &str, size: f64) -> String {
    let below = x_title(&plot.x.title, size);
    let height = (size * 0.56).clamp(270.0, 420.0) + (below.len() - 1) as f64 * LINE;
    let all: Vec<Vec<(f64, f64)>> = plot.lines.iter().map(|line| figure.points(plot, line)).collect();
    let points = || all.iter().flatten();
    let most_y = 7;
    let y = Scale::of(points().map(|p| p.1), &plot.y, most_y);
    let y_labels = y.labels(most_y);
    let left = y_labels.iter().map(|(_, text)| width(text)).fold(0.0, f64::max) + 14.0;
    let most_x = ((size - left) / 62.0) as usize;
    let x = Scale::of(points().map(|p| p.0), &plot.x, most_x);
    let area = Area { left, right: size - 22.0, top: 2.0 * LINE, bottom: height - (1.6 + below.len() as f64) * LINE };
    let mut out = open(label, size, height, class(size));
    for (value, text) in &y_labels {
        let at = area.y(y.place(*value));
        let (right, end) = (area.right, left - 8.0);
        let _ = write!(out, "<path class=\"grid\" d=\"M{left:.1} {at:.1}H{right:.1}\"/>");
        let _ = write!(out, "<text class=\"end\" x=\"{end:.1}\" y=\"{:.1}\">{text}</text>", at + 4.5);
    }
    for (at, text) in apart_labels(x.labels(most_x), |value| area.x(x.place(value))) {
        let _ = write!(out, "<path class=\"grid\" d=\"M{at:.1} {:.1}V{:.1}\"/>", area.top, area.bottom);
        let _ = write!(out, "<text class=\"mid\" x=\"{at:.1}\" y=\"{:.1}\">{text}</text>", area.bottom + LINE);
    }
    let _ = write!(out, "<path class=\"axis\" d=\"M{left:.1} {:.1}V{:.1}H{:.1}\"/>", area.top, area.bottom, area.right);
    let middle = (area.left + area.right) / 2.0;
    let _ = write!(out, "<text class=\"title\" x=\"2\" y=\"14\">{}</text>", escape(&plot.y.title));
    titles(&mut out, &below, size, middle, height - 8.0);
    for (line, points) in plot.lines.iter().zip(&all) {
        let placed: Vec<(f64, f64)> = points.iter().map(|p| (area.x(x.place(p.0)), area.y(y.place(p.1)))).collect();
        draw(&mut out, figure, line, points, &placed);
    }
    out + "</svg>"
}

/// The title below a picture, in as many lines as it takes.
pub(super) fn x_title(title: &str, size: f64) -> Vec<String> {
    wrapped(title, size - 16.0)
}

/// Writes a title below a picture, the last line at `below`, about `middle` and within the picture.
pub(super) fn titles(out: &mut String, lines: &[String], size: f64, middle: f64, below: f64) {
    for (place, line) in lines.iter().rev().enumerate() {
        let half = 0.5 * width(line) + 4.0;
        let x = middle.min(size - half).max(half.min(size / 2.0));
        let y = below - place as f64 * LINE;
        let _ = write!(out, "<text class=\"title mid\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escape(line));
    }
}

fn draw(out: &mut String, figure: &Figure, line: &Line, values: &[(f64, f64)], placed: &[(f64, f64)]) {
    let colour = line.colour % COLOURS;
    let class = match line.mark {
        Mark::Solid => "solid",
        Mark::Dashed | Mark::Limit => "dashed",
        Mark::Thin => "thin",
        Mark::Points => "",
    };
    if !class.is_empty() && placed.len() > 1 {
        let steps: Vec<String> = placed.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        let _ = write!(out, "<path class=\"{class} s{colour}\" d=\"M{}\"/>", steps.join("L"));
    }
    if matches!(line.mark, Mark::Thin | Mark::Limit) || placed.len() > MARKED && line.mark != Mark::Points {
        return;
    }
    for (value, &(x, y)) in values.iter().zip(placed) {
        let (column_x, column_y) = (&figure.columns[line.x], &figure.columns[line.y]);
        let told = format!(
            "{} {}: {} {}",
            column_x.title,
            column_x.show.cell(&value.0.into()),
            if line.title.is_empty() { &column_y.title } else { &line.title },
            column_y.show.cell(&value.1.into())
        );
        let shape = mark(line.colour, x, y);
        let _ = write!(out, "<path class=\"mark s{colour}\" d=\"{shape}\"><title>{}</title></path>", escape(&told));
    }
}

/// The mark of a colour: lines differ by shape too.
pub(super) fn mark(colour: usize, x: f64, y: f64) -> String {
    match colour % COLOURS {
        0 => format!("M{:.1} {y:.1}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z", x - 4.0),
        1 => format!("M{:.1} {:.1}h7v7h-7z", x - 3.5, y - 3.5),
        2 => format!("M{x:.1} {:.1}l4.8 8.4h-9.6z", y - 5.4),
        3 => format!("M{x:.1} {:.1}l5 5l-5 5l-5 -5z", y - 5.0),
        4 => format!("M{x:.1} {:.1}l-4.8 -8.4h9.6z", y + 5.4),
        5 => format!("M{:.1} {:.1}h3v-3h3v3h3v3h-3v3h-3v-3h-3z", x - 4.5, y - 1.5),
        _ => format!("M{:.1} {:.1}h9v3h-9z", x - 4.5, y - 1.5),
    }
}

/// A row of marks for every name, measured from left to right.
fn dots(figure: &Figure, plot: &Plot, label: &str, size: f64) -> String {
    let names = names(figure, plot);
    let (left, shown_names) = margin(&names, size);
    let value = |line: &Line, row: usize| figure.rows[row][line.y].number().filter(|value| !plot.y.log || *value > 0.0);
    let values: Vec<f64> =
        plot.lines.iter().flat_map(|line| line.rows.iter().filter_map(|&row| value(line, row))).collect();
    let most = ((size - left) / 66.0) as usize;
    let scale = Scale::of(values.iter().copied(), &plot.y, most);
    let below = x_title(&plot.y.title, size);
    let height = (names.len() as f64 + 1.8 + below.len() as f64) * LINE;
    let area = Area { left, right: size - 24.0, top: 4.0, bottom: 4.0 + names.len() as f64 * LINE };
    let mut out = open(label, size, height, class(size));
    for (at, text) in apart_labels(scale.labels(most), |value| area.x(scale.place(value))) {
        let _ = write!(out, "<path class=\"grid\" d=\"M{at:.1} {:.1}V{:.1}\"/>", area.top, area.bottom);
        let _ = write!(out, "<text class=\"mid\" x=\"{at:.1}\" y=\"{:.1}\">{text}</text>", area.bottom + LINE);
    }
    let _ = write!(out, "<path class=\"axis\" d=\"M{left:.1} {:.1}V{:.1}H{:.1}\"/>", area.top, area.bottom, area.right);
    for (place, name) in names.iter().enumerate() {
        let y = area.top + (place as f64 + 0.5) * LINE;
        let (shown, end) = (escape(&shown_names[place]), left - 8.0);
        let _ = write!(out, "<path class=\"faint\" d=\"M{left:.1} {y:.1}H{:.1}\"/>", area.right);
        let full = escape(name);
        let _ =
            write!(out, "<text class=\"end\" x=\"{end:.1}\" y=\"{:.1}\"><title>{full}</title>{shown}</text>", y + 4.5);
    }
    let apart = apart(plot);
    for line in &plot.lines {
        for &row in &line.rows {
            let Some(found) = value(line, row) else { continue };
            let name = figure.rows[row][line.x].text();
            let place = names.iter().position(|other| *other == name).unwrap_or(0);
            let (x, y) = (area.x(scale.place(found)), area.top + (place as f64 + 0.5) * LINE + apart(line));
            let column = &figure.columns[line.y];
            let told = escape(&format!("{name}: {} {}", column.title, column.show.cell(&found.into())));
            let (colour, shape) = (line.colour % COLOURS, mark(line.colour, x, y));
            let _ = write!(out, "<path class=\"mark s{colour}\" d=\"{shape}\"><title>{told}</title></path>");
        }
    }
    titles(&mut out, &below, size, (area.left + area.right) / 2.0, height - 6.0);
    out + "</svg>"
}

/// How far from the middle of its row the marks of a line lie, so that equal values stay visible.
fn apart(plot: &Plot) -> impl Fn(&Line) -> f64 {
    let mut colours: Vec<usize> = plot.lines.iter().map(|line| line.colour).collect();
    colours.sort_unstable();
    colours.dedup();
    let step = 8.0 / colours.len().max(1) as f64;
    move |line| {
        let place = colours.iter().position(|&colour| colour == line.colour).unwrap_or(0) as f64;
        (place - (colours.len() - 1) as f64 / 2.0) * step
    }
}

/// The names down the side of a picture, in the order of the table.
pub(super) fn names<'a>(figure: &'a Figure, plot: &Plot) -> Vec<&'a str> {
    let mut rows: Vec<(usize, usize)> =
        plot.lines.iter().flat_map(|line| line.rows.iter().map(|&row| (row, line.x))).collect();
    rows.sort_unstable();
    let mut names: Vec<&str> = Vec::new();
    for (row, x) in rows {
        let name = figure.rows[row][x].text();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The room that names take at the left, and the names as they fit there.
pub(super) fn margin(names: &[&str], size: f64) -> (f64, Vec<String>) {
    let most = 0.4 * size;
    // Those in brackets stand for none.
    let real: Vec<&str> = names.iter().copied().filter(|name| !name.starts_with('(')).collect();
    let cut = if names.iter().any(|name| width(name) > most) { common(&real) } else { 0 };
    let beginning = real.first().map_or("", |name| &name[..cut]);
    let shown: Vec<String> =
        names.iter().map(|name| shortened(name.strip_prefix(beginning).unwrap_or(name), most)).collect();
    (shown.iter().map(|name| width(name)).fold(20.0, f64::max) + 12.0, shown)
}

/// Length of the beginning that all names share, up to a full stop or slash.
fn common(names: &[&str]) -> usize {
    let Some((first, others)) = names.split_first() else { return 0 };
    let shared = |end: &usize| others.iter().all(|other| other.starts_with(&first[..*end]));
    let ends = first.char_indices().filter(|(_, c)| matches!(c, '.' | '/')).map(|(at, c)| at + c.len_utf8());
    ends.rev().find(shared).unwrap_or(0)
}

/// A name cut to a width, in the middle: its ends tell it from others.
fn shortened(name: &str, most: f64) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut cut = name.to_owned();
    for kept in (1..letters.len()).rev() {
        if width(&cut) <= most {
            break;
        }
        let head = kept / 3;
        let tail = &letters[letters.len() - (kept - head)..];
        cut = letters[..head].iter().chain(&['…']).chain(tail).collect();
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::super::figure::{Axis, Show, column};
    use super::*;

    fn drawn(kind: Kind) -> (Figure, Plot) {
        let columns = vec![
            column("layer", "layer", Show::Text),
            column("n", "terms", Show::Integer),
            column("error", "error", Show::Scientific),
        ];
        let mut figure = Figure::new("t", "c", columns);
        for n in 1..=8u32 {
            figure.row(vec![
                format!("layer <{n}> of a long and winding name").into(),
                n.into(),
                16f64.powi(-(n as i32)).into(),
            ]);
        }
        let keys = if kind == Kind::Dots { ["layer", "error"] } else { ["n", "error"] };
        let lines = vec![figure.line("error & bound", keys, ("", ""), (1, Mark::Solid))];
        let plot = Plot { kind, x: Axis::linear("terms"), y: Axis::log("error"), lines };
        (figure, plot)
    }

    /// Every pair of numbers in a path that moves to an absolute place.
    fn places(svg: &str) -> Vec<(f64, f64)> {
        let moves = svg.split(" d=\"M").skip(1);
        let pair = |text: &str| {
            let mut numbers = text.split(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-'));
            Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
        };
        moves.filter_map(pair).collect()
    }

    #[test]
    fn everything_lies_within_the_picture() {
        for kind in [Kind::Curves, Kind::Dots] {
            let (figure, plot) = drawn(kind);
            for size in [360.0, 760.0] {
                let svg = svg(&figure, &plot, "what", size);
                let places = places(&svg);
                assert!(places.len() > 16, "{svg}");
                assert!(places.iter().all(|&(x, y)| (0.0..=size).contains(&x) && (0.0..=800.0).contains(&y)), "{svg}");
                assert_eq!(svg.matches("class=\"mark").count(), 8, "{svg}");
                assert!(!svg.contains("NaN") && !svg.contains("layer <"), "{svg}");
            }
        }
    }

    #[test]
    fn a_smaller_error_lies_lower() {
        let (figure, plot) = drawn(Kind::Curves);
        let svg = svg(&figure, &plot, "what", 760.0);
        let line = svg.split("solid s1\" d=\"M").nth(1).unwrap().split('"').next().unwrap();
        let y: Vec<f64> = line.split('L').map(|p| p.split(' ').nth(1).unwrap().parse().unwrap()).collect();
        assert!(y.len() == 8 && y.windows(2).all(|w| w[1] > w[0] + 1.0), "{line}");
    }

    #[test]
    fn long_names_keep_what_tells_them_apart() {
        let names = ["encoder.layer.11.attention.output", "encoder.layer.2.attention.output"];
        let (left, cut) = margin(&names, 350.0);
        assert!(cut[0].starts_with("11.") && cut[1].starts_with("2.") && cut[0].ends_with("output"), "{cut:?}");
        assert!(cut.iter().all(|name| width(name) <= 140.0) && left <= 152.0, "{cut:?}");
        assert_eq!(margin(&["a.b", "a.c"], 350.0).1, ["a.b", "a.c"]);
        let (_, cut) = margin(&[names[0], names[1], "(none)"], 350.0);
        assert!(cut[0].starts_with("11.") && cut[1].starts_with("2.") && cut[2] == "(none)", "{cut:?}");
    }

    #[test]
    fn labels_that_would_touch_are_left_out() {
        let labels = [0.0003, 0.001, 0.003, 0.01].map(|value: f64| (value, value.to_string())).to_vec();
        let kept = apart_labels(labels, |value| 30.0 * value.log10());
        let texts: Vec<&str> = kept.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["0.0003", "0.01"]);
    }

    #[test]
    fn titles_break_between_words() {
        let lines = wrapped("terms of the series, members of the ensemble", 200.0);
        assert!(lines.len() > 1 && lines.iter().all(|line| width(line) <= 200.0), "{lines:?}");
        assert_eq!(lines.join(" "), "terms of the series, members of the ensemble");
    }
}
