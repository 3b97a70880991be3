//! How right an answer to a question is, as SQuAD measures it.
//!
//! Answers are compared as lists of words: lower case, without ASCII punctuation, without the articles a, an and the. F1 is the
//! harmonic mean of the shares of words in common. An answer is worth as much as against the right answer it is closest to; where
//! there is none, the empty answer is right.

/// The words that count.
fn words(text: &str) -> Vec<String> {
    let bare: String = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    // Articles are whole runs of letters and digits, words whatever stands between blanks: other signs end only the former.
    let mut left = String::with_capacity(bare.len());
    let mut rest = bare.as_str();
    while let Some(first) = rest.chars().next() {
        let inside = first.is_alphanumeric();
        let end = rest.find(|c: char| c.is_alphanumeric() != inside).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        left.push_str(if ["a", "an", "the"].contains(&run) { " " } else { run });
        rest = after;
    }
    left.split_whitespace().map(str::to_owned).collect()
}

/// How right an answer is: F1, and whether it is exactly right.
pub(super) fn score(answer: &str, right: &[String]) -> (f64, bool) {
    let answer = words(answer);
    let mut right: Vec<_> = right.iter().map(|text| words(text)).filter(|words| !words.is_empty()).collect();
    if right.is_empty() {
        right.push(Vec::new());
    }
    let best = right.iter().map(|right| f1(&answer, right)).fold(0.0, f64::max);
    (best, right.contains(&answer))
}

fn f1(answer: &[String], right: &[String]) -> f64 {
    if answer.is_empty() || right.is_empty() {
        return f64::from(u8::from(answer == right));
    }
    let mut unmatched: Vec<_> = right.iter().collect();
    let mut common = 0;
    for word in answer {
        if let Some(place) = unmatched.iter().position(|other| *other == word) {
            unmatched.swap_remove(place);
            common += 1;
        }
    }
    2.0 * f64::from(common) / (answer.len() + right.len()) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_punctuation_articles_and_blanks_do_not_count() {
        assert_eq!(words("  The  U.S.A.'s \t(an) Army!"), ["usas", "army"]);
        assert_eq!(words("the–end, a theatre"), ["–end", "theatre"]);
        assert_eq!(words("An a THE."), [""; 0]);
        assert_eq!(words("Größe 4,5 €"), ["größe", "45", "€"]);
    }

    #[test]
    fn the_closest_right_answer_counts() {
        let right = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        assert_eq!(score("The Denver Broncos", &right(&["Denver Broncos", "Broncos"])), (1.0, true));
        let (f1, exact) = score("the the red red car", &right(&["a red car park", "blue"]));
        // Words in common: red, car; of three given and three right.
        assert!((f1 - 2.0 / 3.0).abs() < 1e-12 && !exact);
        assert_eq!(score("green", &right(&["red", "blue"])), (0.0, false));
    }

    #[test]
    fn no_answer_is_right_where_there_is_none() {
        assert_eq!(score("", &[]), (1.0, true));
        assert_eq!(score("the", &[]), (1.0, true));
        assert_eq!(score("word", &[]), (0.0, false));
        assert_eq!(score("", &["word".to_owned()]), (0.0, false));
        assert_eq!(score("word", &["the".to_owned(), "word".to_owned()]), (1.0, true));
    }
}
