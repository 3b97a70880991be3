//! The part of a paragraph that answers a question, from scores for where it starts and ends.
//!
//! ```text
//! best over windows and i <= j < i + 30, i and j in the paragraph, of start[i] + end[j]
//! ```
//!
//! Where questions may have no answer, there is none if the score of the window's first token ([CLS]), `start[0] + end[0]`, at
//! its least over the windows, exceeds the best of a span.

/// Most tokens of an answer.
const LONGEST: usize = 30;

/// What one window says of a question.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    /// Score and place of the best span, in bytes of the paragraph; `None` where the window has none of its tokens.
    span: Option<(f64, usize, usize)>,
    /// Score of there being no answer.
    null: f64,
}

impl Candidate {
    /// The best span of a window. `places` holds the place of every token in the paragraph, `None` for tokens outside it;
    /// `start` and `end` have at least as many scores.
    pub(super) fn of(start: &[f32], end: &[f32], places: &[Option<(usize, usize)>]) -> Self {
        let score = |i: usize, j: usize| f64::from(start[i]) + f64::from(end[j]);
        let mut span: Option<(f64, usize, usize)> = None;
        for (i, place) in places.iter().enumerate() {
            let Some((from, _)) = *place else { continue };
            for (j, place) in places.iter().enumerate().skip(i).take(LONGEST) {
                let Some((_, to)) = *place else { break };
                let score = score(i, j);
                if span.is_none_or(|(best, ..)| score > best) {
                    span = Some((score, from, to));
                }
            }
        }
        Self { span, null: score(0, 0) }
    }
}

/// The answer that the windows of a question on `context` give; empty for none, which there is always one unless `nullable`.
pub(super) fn answer(windows: &[Candidate], context: &str, nullable: bool) -> String {
    let spans = windows.iter().filter_map(|window| window.span);
    let best = spans.reduce(|best, span| if span.0 > best.0 { span } else { best });
    let null = windows.iter().map(|window| window.null).fold(f64::INFINITY, f64::min);
    match best {
        Some((score, from, to)) if !(nullable && null > score) => context.get(from..to).unwrap_or_default().to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: &str = "one two three";
    /// [CLS] question [SEP] one two three [SEP]
    const PLACES: [Option<(usize, usize)>; 7] = [None, None, None, Some((0, 3)), Some((4, 7)), Some((8, 13)), None];

    fn best(start: [f32; 7], end: [f32; 7]) -> Candidate {
        Candidate::of(&start, &end, &PLACES)
    }

    #[test]
    fn only_spans_of_the_paragraph_count() {
        let two_three = best([9., 9., 9., 0., 5., 1., 9.], [9., 9., 9., 7., 1., 3., 9.]);
        assert_eq!(two_three, Candidate { span: Some((8.0, 4, 13)), null: 18.0 });
        assert_eq!(answer(&[two_three], CONTEXT, false), "two three");
        assert_eq!(answer(&[two_three], CONTEXT, true), "");
        let none = Candidate::of(&[0.; 3], &[0.; 3], &[None; 3]);
        assert_eq!((none.span, answer(&[none], CONTEXT, false).as_str()), (None, ""));
    }

    #[test]
    fn the_best_window_answers() {
        let one = best([0., 0., 0., 4., 0., 0., 0.], [0., 0., 0., 4., 0., 0., 0.]);
        let three = best([3.0, 0., 0., 0., 0., 5., 0.], [3.5, 0., 0., 0., 0., 5., 0.]);
        assert_eq!(answer(&[one, three], CONTEXT, false), "three");
        // The windows disagree about whether there is an answer; the one that is surer of it counts.
        assert_eq!(answer(&[one, three], CONTEXT, true), "three");
        let no = Candidate { null: 10.5, ..three };
        assert_eq!((answer(&[no], CONTEXT, true).as_str(), answer(&[no, one], CONTEXT, true).as_str()), ("", "three"));
        assert_eq!(answer(&[], CONTEXT, true), "");
    }

    #[test]
    fn spans_have_at_most_thirty_tokens() {
        let places: Vec<_> = (0..40).map(|i| Some((i, i + 1))).collect();
        let (mut start, mut end) = (vec![0f32; 40], vec![0f32; 40]);
        (start[2], end[2 + LONGEST], end[1 + LONGEST]) = (10.0, 10.0, 9.0);
        assert_eq!(Candidate::of(&start, &end, &places).span, Some((19.0, 2, 2 + LONGEST)));
    }
}
