//! Model expansion (eq. 5 to 8): which basis models a worker runs, and the integers of its weights.
//!
//! Basis model `(i, j)` is the same graph with weights `W_i` and activations `A_j`. All partial sums of a layer are in the unit
//! `scale_wn * scale_am`, so a member is shifted beforehand (AbelianMul, definition 2) and AbelianAdd is integer addition.
//! Bias, residual and non-linearity run once, on the total (definition 1).

use std::ops::RangeInclusive;

use crate::{Error, Series, limbs::drop_digits};

/// The weight terms that one worker owns, `1 ..= n`; who owns `W_i` multiplies it with all activation terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// Owned terms.
    pub weight_terms: RangeInclusive<u32>,
}

/// The integers `sum_(i in members) 2^(X (n - i)) W_i`, in the unit `scale_n` of the whole series (eq. 5); with blocks, of the
/// channel's finest one.
///
/// # Errors
/// [`Error::Order`] unless the terms are a non-empty range within `1 ..= n`; `name` names the layer.
pub fn basis_weight(name: &str, series: &Series, members: &Members) -> Result<Vec<i32>, Error> {
    let (bits, order) = (series.precision().bits(), series.precision().order());
    let (first, last) = (*members.weight_terms.start(), *members.weight_terms.end());
    if first == 0 || first > last || last > order {
        let asked = if first == 0 { first } else { last };
        return Err(Error::Order { tensor: name.to_owned(), asked, order });
    }
    let upto = |terms: u32| {
        let dropped = order - terms;
        let (drop, low) = (drop_digits(bits, dropped), bits * dropped);
        move |q: i32| if terms == 0 { 0 } else { drop(i64::from(q)) << low }
    };
    let (before, all) = (upto(first - 1), upto(last));
    let mut q: Vec<i32> = series.q().iter().map(|&q| (all(q) - before(q)) as i32).collect();
    series.lift(&mut q);
    Ok(q)
}

#[cfg(test)]
mod tests;
