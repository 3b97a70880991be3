//! Pages: figures as one HTML file that needs no network and no script, light or dark as the reader has it.

mod axis;
pub(crate) mod figure;
mod histogram;
mod plot;

use std::fmt::Write;

use self::figure::{Cell, Figure, Mark, Plot, Show};

const STYLE: &str = include_str!("style.css");
/// Widths that a plot is drawn for: a page that is wide enough, and a phone.
const WIDTHS: [f64; 2] = [760.0, 350.0];
/// Rows beyond which a table is folded away.
const OPEN_ROWS: usize = 12;

/// Text between tags or in an attribute.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            c if c.is_control() && c != '\n' => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// Text in which what stands between backquotes is code.
pub(crate) fn marked(text: &str) -> String {
    let parts = text.split('`').enumerate();
    parts.map(|(i, part)| if i % 2 == 1 { format!("<code>{}</code>", escape(part)) } else { escape(part) }).collect()
}

/// A whole page; `body` is HTML.
pub(crate) fn page(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <link rel=\"icon\" href=\"data:,\">\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
}

/// A figure: its pictures with their legends, its caption, and its numbers, to read and to take away as `file`.csv.
pub(crate) fn figure(figure: &Figure, file: &str) -> String {
    let open = figure.plots.is_empty() && figure.rows.len() <= OPEN_ROWS;
    opened(figure, file, open)
}

/// [`figure()`] whose table is there to see, or folded away.
pub(crate) fn opened(figure: &Figure, file: &str, open: bool) -> String {
    let mut out = format!("<figure id=\"{file}\">\n<h3>{}</h3>\n", escape(&figure.title));
    for plot in &figure.plots {
        if !plot.lines.iter().any(|line| figure.is_drawn(plot, line)) {
            continue;
        }
        out += &legend(plot);
        let label = format!("{}: {} against {}", figure.title, plot.y.title, plot.x.title);
        for width in WIDTHS {
            out += &plot::svg(figure, plot, &label, width);
            out.push('\n');
        }
    }
    let _ = writeln!(out, "<figcaption>{}</figcaption>", marked(&figure.caption));
    let folded = if open { " open" } else { "" };
    let rows = figure.rows.len();
    let _ = writeln!(out, "<details{folded}><summary>Numbers: {rows} rows</summary>\n{}</details>", table(figure));
    out += &download(&figure.csv(), file);
    out + "</figure>\n"
}

/// A link that holds a table as CSV.
pub(crate) fn download(csv: &str, file: &str) -> String {
    format!(
        "<p class=\"take\"><a download=\"{file}.csv\" href=\"data:text/csv;charset=utf-8,{}\">Download {file}.csv</a></p>\n",
        percent_encoded(csv)
    )
}

/// What the lines of a plot are; nothing where there is but one without a name.
fn legend(plot: &Plot) -> String {
    let named: Vec<_> = plot.lines.iter().filter(|line| !line.title.is_empty()).collect();
    if named.is_empty() {
        return String::new();
    }
    let item = |line: &&figure::Line| {
        let colour = line.colour % plot::COLOURS;
        let stroke = match (plot.kind, line.mark) {
            (figure::Kind::Dots | figure::Kind::Histograms, _) | (_, Mark::Points) => String::new(),
            (_, Mark::Solid) => format!("<path class=\"solid s{colour}\" d=\"M1 7H29\"/>"),
            (_, Mark::Dashed | Mark::Limit) => format!("<path class=\"dashed s{colour}\" d=\"M1 7H29\"/>"),
            (_, Mark::Thin) => format!("<path class=\"thin s{colour}\" d=\"M1 7H29\"/>"),
        };
        let shape = match line.mark {
            Mark::Thin | Mark::Limit => String::new(),
            _ => format!("<path class=\"mark s{colour}\" d=\"{}\"/>", plot::mark(line.colour, 15.0, 7.0)),
        };
        let key =
            format!("<svg viewBox=\"0 0 30 14\" width=\"30\" height=\"14\" aria-hidden=\"true\">{stroke}{shape}</svg>");
        format!("<li>{key} {}</li>", escape(&line.title))
    };
    format!("<ul class=\"legend\">{}</ul>\n", named.iter().map(item).collect::<String>())
}

/// The numbers as a table that scrolls sideways where it is wide.
pub(crate) fn table(figure: &Figure) -> String {
    let kind = |show: Show| if show == Show::Text { " class=\"text\"" } else { "" };
    let mut out = "<div class=\"scroll\"><table><thead><tr>".to_owned();
    for column in &figure.columns {
        let _ = write!(out, "<th{}>{}</th>", kind(column.show), escape(&column.title));
    }
    out += "</tr></thead><tbody>\n";
    for row in &figure.rows {
        out += "<tr>";
        for (cell, column) in row.iter().zip(&figure.columns) {
            let shown = match cell {
                Cell::Text(text) => escape(text),
                other => column.show.cell(other),
            };
            let _ = write!(out, "<td{}>{shown}</td>", kind(column.show));
        }
        out += "</tr>\n";
    }
    out + "</tbody></table></div>\n"
}

fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 5 / 4);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b',' => out.push(byte as char),
            byte => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::figure::{Axis, Kind, column};
    use super::*;

    #[test]
    fn a_figure_has_its_numbers_as_table_and_csv() {
        let columns = vec![column("name", "name", Show::Text), column("error", "error <1>", Show::Scientific)];
        let mut made = Figure::new("a & b", "what is \"shown\"", columns);
        made.row(vec!["x".into(), 0.125.into()]);
        made.row(vec!["y".into(), f64::INFINITY.into()]);
        let html = figure(&made, "a1");
        assert!(html.contains("<td>1.25e-1</td>") && html.contains("<td>–</td>"), "{html}");
        assert!(html.contains("a &amp; b") && html.contains("error &lt;1&gt;"), "{html}");
        assert!(html.contains("data:text/csv;charset=utf-8,name,error%0D%0Ax,0.125%0D%0Ay,%0D%0A"), "{html}");
        assert!(!html.contains("<svg"), "{html}");
    }

    #[test]
    fn a_plot_is_drawn_wide_and_narrow() {
        let columns = vec![column("n", "n", Show::Integer), column("error", "error", Show::Scientific)];
        let mut made = Figure::new("t", "c", columns);
        made.row(vec![1.0.into(), 0.5.into()]);
        made.row(vec![2.0.into(), 0.1.into()]);
        let lines = vec![made.line("largest", ["n", "error"], ("", ""), (0, Mark::Solid))];
        made.plots.push(Plot { kind: Kind::Curves, x: Axis::linear("n"), y: Axis::log("error"), lines });
        let html = figure(&made, "a1");
        assert_eq!((html.matches("plot wide").count(), html.matches("plot narrow").count()), (1, 1), "{html}");
        assert!(html.contains("class=\"legend\""), "{html}");
    }

    #[test]
    fn a_page_asks_for_nothing() {
        let page = page("t", "<p>x</p>");
        for part in ["http:", "https:", "<script", "src=", "@import", "url("] {
            assert!(!page.contains(part), "{part}");
        }
        assert!(page.contains("prefers-color-scheme: dark") && page.contains("width=device-width"));
    }
}
