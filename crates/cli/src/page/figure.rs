//! Figures: a table of numbers, and what of it is drawn. Whatever a page shows, writes as CSV or draws comes from the same cells.

use serde::{Deserialize, Serialize};

/// One value of a table; what is not finite is missing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Cell {
    Number(f64),
    Text(String),
    Missing,
}

impl Cell {
    /// The number, if it is a finite one.
    pub(crate) fn number(&self) -> Option<f64> {
        if let Self::Number(value) = self { Some(*value).filter(|value| value.is_finite()) } else { None }
    }

    /// The text, or nothing.
    pub(crate) fn text(&self) -> &str {
        if let Self::Text(text) = self { text } else { "" }
    }
}

impl From<f64> for Cell {
    fn from(value: f64) -> Self {
        if value.is_finite() { Self::Number(value) } else { Self::Missing }
    }
}

impl From<Option<f64>> for Cell {
    fn from(value: Option<f64>) -> Self {
        value.map_or(Self::Missing, Self::from)
    }
}

impl From<u32> for Cell {
    fn from(value: u32) -> Self {
        Self::Number(f64::from(value))
    }
}

impl From<usize> for Cell {
    fn from(value: usize) -> Self {
        Self::Number(value as f64)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// How the numbers of a column are written for people; CSV has them in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Show {
    Text,
    Integer,
    /// With so many decimals.
    Fixed(u8),
    /// A share of one, as a percentage with so many decimals.
    Percent(u8),
    Scientific,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Column {
    /// Its name in JSON and CSV.
    pub key: String,
    /// Its name for people, with the unit where it has one.
    pub title: String,
    pub show: Show,
}

/// Shorthand for a [`Column`].
pub(crate) fn column(key: &str, title: &str, show: Show) -> Column {
    Column { key: key.to_owned(), title: title.to_owned(), show }
}

impl Show {
    /// A cell as people read it.
    pub(crate) fn cell(self, cell: &Cell) -> String {
        let Cell::Number(value) = *cell else {
            return if *cell == Cell::Missing { "–".to_owned() } else { cell.text().to_owned() };
        };
        match self {
            Self::Text => format!("{value}"),
            Self::Integer => format!("{value:.0}"),
            Self::Fixed(decimals) => format!("{value:.*}", usize::from(decimals)),
            Self::Percent(decimals) => format!("{:.*} %", usize::from(decimals), 100.0 * value),
            Self::Scientific => format!("{value:.2e}"),
        }
    }
}

/// What an axis measures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Axis {
    /// With the unit.
    pub title: String,
    pub log: bool,
    /// Shares of one, labelled in per cent.
    pub percent: bool,
}

impl Axis {
    pub(crate) fn linear(title: &str) -> Self {
        Self { title: title.to_owned(), log: false, percent: false }
    }

    pub(crate) fn log(title: &str) -> Self {
        Self { log: true, ..Self::linear(title) }
    }

    pub(crate) fn percent(title: &str) -> Self {
        Self { percent: true, ..Self::linear(title) }
    }
}

/// How a line is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Mark {
    /// A line with a mark at every point.
    Solid,
    /// A dashed line with a mark at every point.
    Dashed,
    /// A dashed line alone, for bounds and references.
    Limit,
    /// One of many lines, faint.
    Thin,
    /// Marks alone.
    Points,
}

/// Rows of two columns, drawn as one line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// Its name in the legend; empty where another line of the same colour has it.
    pub title: String,
    pub x: usize,
    pub y: usize,
    pub rows: Vec<usize>,
    /// Place in the palette.
    pub colour: usize,
    pub mark: Mark,
}

/// What is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// Curves over a numeric x.
    Curves,
    /// One line of the picture a row: the text of column x names it, y is measured from left to right.
    Dots,
    /// One histogram for every text of column x; y is the height of a bar, and the columns `from` and `to` are its ends.
    Histograms,
}

/// A picture of some columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plot {
    pub kind: Kind,
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<Line>,
}

/// A table with its pictures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub title: String,
    /// What it shows and how it was measured.
    pub caption: String,
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Cell>>,
    pub plots: Vec<Plot>,
}

impl Figure {
    pub(crate) fn new(title: &str, caption: &str, columns: Vec<Column>) -> Self {
        let (title, caption) = (title.to_owned(), caption.to_owned());
        Self { title, caption, columns, rows: Vec::new(), plots: Vec::new() }
    }

    /// Adds a row; its index.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) -> usize {
        assert_eq!(cells.len(), self.columns.len(), "a cell a column");
        self.rows.push(cells);
        self.rows.len() - 1
    }

    /// Index of the column with a key.
    pub(crate) fn at(&self, key: &str) -> usize {
        self.columns.iter().position(|column| column.key == key).expect("a column of the figure")
    }

    /// A line over all rows whose cell in column `by` is `value`; over all rows where `by` is empty.
    pub(crate) fn line(&self, title: &str, keys: [&str; 2], of: (&str, &str), style: (usize, Mark)) -> Line {
        let holds = |row: &Vec<Cell>| of.0.is_empty() || row[self.at(of.0)].text() == of.1;
        let rows = (0..self.rows.len()).filter(|&row| holds(&self.rows[row])).collect();
        let [x, y] = keys.map(|key| self.at(key));
        Line { title: title.to_owned(), x, y, rows, colour: style.0, mark: style.1 }
    }

    /// The points of a line that can be drawn.
    pub(crate) fn points(&self, plot: &Plot, line: &Line) -> Vec<(f64, f64)> {
        let drawn = |axis: &Axis, value: &f64| !axis.log || *value > 0.0;
        let point = |&row: &usize| {
            let x = self.rows[row][line.x].number().filter(|x| drawn(&plot.x, x))?;
            let y = self.rows[row][line.y].number().filter(|y| drawn(&plot.y, y))?;
            Some((x, y))
        };
        line.rows.iter().filter_map(point).collect()
    }

    /// Whether a line has anything that can be drawn.
    pub(crate) fn is_drawn(&self, plot: &Plot, line: &Line) -> bool {
        match plot.kind {
            Kind::Curves => !self.points(plot, line).is_empty(),
            Kind::Dots | Kind::Histograms => line.rows.iter().any(|&row| self.rows[row][line.y].number().is_some()),
        }
    }

    /// The table as CSV: numbers in full, one line a row.
    pub(crate) fn csv(&self) -> String {
        let quoted = |text: &str| match text.contains(['"', ',', '\n', '\r']) {
            true => format!("\"{}\"", text.replace('"', "\"\"")),
            false => text.to_owned(),
        };
        let number = |value: f64| match value.abs() {
            size if size != 0.0 && !(1e-4..1e15).contains(&size) => format!("{value:e}"),
            _ => format!("{value}"),
        };
        let cell = |cell: &Cell| match cell {
            Cell::Number(value) => number(*value),
            other => quoted(other.text()),
        };
        let keys: Vec<String> = self.columns.iter().map(|column| quoted(&column.key)).collect();
        let rows = self.rows.iter().map(|row| row.iter().map(cell).collect::<Vec<_>>().join(","));
        let lines: Vec<String> = std::iter::once(keys.join(",")).chain(rows).collect();
        lines.join("\r\n") + "\r\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure() -> Figure {
        let columns = vec![column("name", "name", Show::Text), column("error", "error", Show::Scientific)];
        let mut figure = Figure::new("t", "c", columns);
        figure.row(vec!["a, \"b\"".into(), 1.5e-7.into()]);
        figure.row(vec!["c".into(), f64::NAN.into()]);
        figure
    }

    #[test]
    fn csv_has_numbers_in_full() {
        assert_eq!(figure().csv(), "name,error\r\n\"a, \"\"b\"\"\",1.5e-7\r\nc,\r\n");
    }

    #[test]
    fn cells_survive_json() {
        let figure = figure();
        let text = serde_json::to_string(&figure).unwrap();
        assert_eq!(serde_json::from_str::<Figure>(&text).unwrap(), figure);
    }

    #[test]
    fn what_a_scale_cannot_hold_is_not_drawn() {
        let mut figure = Figure::new("t", "c", vec![column("x", "x", Show::Integer), column("y", "y", Show::Fixed(1))]);
        for (x, y) in [(1.0, 2.0), (2.0, 0.0), (3.0, -1.0), (4.0, 5.0)] {
            figure.row(vec![x.into(), y.into()]);
        }
        let line = figure.line("", ["x", "y"], ("", ""), (0, Mark::Solid));
        let plot = Plot { kind: Kind::Curves, x: Axis::linear("x"), y: Axis::log("y"), lines: vec![] };
        assert_eq!(figure.points(&plot, &line), [(1.0, 2.0), (4.0, 5.0)]);
    }
}
