//! The study as one HTML page.

use std::fmt::Write;

use super::Report;
use crate::page::{escape, figure, marked, page};

/// The page.
pub(super) fn html(report: &Report) -> String {
    let mut body = format!("<h1>{} as a series of integer models</h1>\n", escape(&report.model));
    let limit = report.limit.map_or(String::new(), |limit| format!(", first {limit} samples"));
    let _ = writeln!(
        body,
        "<p>The experiments of FP=xINT on this model: {} expanded layers, {} weights; task {} on {}{limit}. fpxint {}, kernel {}, \
         {} threads.</p>",
        report.layers,
        report.weights,
        report.task,
        escape(&report.data),
        report.version,
        report.kernel,
        report.threads
    );
    body += "<p class=\"muted\"><code>int4x2</code> is two terms of four bits: eight effective bits. Products are integer-product \
             multiply-accumulates relative to one 8-bit product in every layer. Every figure has its numbers below it, as a \
             table and as CSV.</p>\n<nav><ul>";
    for section in &report.sections {
        let _ = write!(body, "<li><a href=\"#{0}\">({0}) {1}</a></li>", section.letter, escape(&section.title));
    }
    body += "</ul></nav>\n";
    for section in &report.sections {
        let letter = section.letter;
        let _ = writeln!(body, "<section id=\"{letter}\">\n<h2>({letter}) {}</h2>", escape(&section.title));
        for text in &section.text {
            let _ = writeln!(body, "<p>{}</p>", marked(text));
        }
        if !section.found.is_empty() {
            let items: String = section.found.iter().map(|found| format!("<li>{}</li>", marked(found))).collect();
            let _ = writeln!(body, "<ul class=\"found\">{items}</ul>");
        }
        for (place, made) in section.figures.iter().enumerate() {
            body += &figure(made, &format!("{letter}{}", place + 1));
        }
        let _ = writeln!(body, "<p class=\"muted\">Made in {:.1} s.</p>\n</section>", section.seconds);
    }
    page(&format!("fpxint study: {}", report.model), &body)
}
