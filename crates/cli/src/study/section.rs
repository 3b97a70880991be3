//! A section of a study: what it asks, what was found, and its figures.

use serde::{Deserialize, Serialize};

use crate::page::figure::Figure;

/// A section as it is kept, printed as JSON and shown on the page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Section {
    /// `a` to `j`.
    pub letter: char,
    pub title: String,
    /// What the paper says, and how it is measured here.
    pub text: Vec<String>,
    /// What the numbers say.
    pub found: Vec<String>,
    pub figures: Vec<Figure>,
    /// Time that making it took.
    pub seconds: f64,
}

impl Section {
    /// A section whose letter, title and time are still to come.
    pub(crate) fn of(text: &[&str], found: Vec<String>, figures: Vec<Figure>) -> Self {
        let text = text.iter().map(|text| (*text).to_owned()).collect();
        Self { letter: ' ', title: String::new(), text, found, figures, seconds: 0.0 }
    }
}
