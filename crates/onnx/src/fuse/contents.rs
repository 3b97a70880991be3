//! The elements of short integer vectors, through the operators that compute shapes.

use super::facts::{Dim, Fact, Facts, MAX_CONTENT};
use crate::constants::wrap;
use crate::node::{int, ints};
use crate::proto::{NodeProto, tensor_proto::DataType};

/// Elements of the first output of a node; `None` where they are not followed.
pub(super) fn content(facts: &Facts, node: &NodeProto, op: &str) -> Option<Vec<Dim>> {
    let own = |i: usize| facts.input(node, i)?.content.clone();
    match op {
        "Shape" => {
            let shape = facts.input(node, 0)?.shape.as_ref()?;
            let (start, end) = (int(node, "start", 0), int(node, "end", i64::MAX));
            let range = bounds(start, end, shape.len());
            Some(shape.get(range)?.to_vec())
        }
        "Identity" | "Cast" | "Squeeze" | "Unsqueeze" | "Reshape" => own(0),
        "Gather" => {
            let (data, indices) = (own(0)?, facts.input(node, 1)?.numbers()?);
            let vector = facts.input(node, 0)?.rank() == Some(1) && matches!(int(node, "axis", 0), 0 | -1);
            let pick = |&i: &i64| data.get(wrap(i, data.len())?).copied();
            vector.then(|| indices.iter().map(pick).collect::<Option<Vec<_>>>()).flatten()
        }
        "Slice" => {
            let data = own(0)?;
            let [(_, start, end)] = slices(facts, node)?[..] else { return None };
            Some(data.get(bounds(start, end, data.len()))?.to_vec())
        }
        "Concat" => {
            let mut all = Vec::new();
            for i in 0..node.input.len().min(MAX_CONTENT + 1) {
                all.extend(own_or_fresh(facts, facts.input(node, i)?)?);
            }
            (all.len() <= MAX_CONTENT && node.input.len() <= MAX_CONTENT).then_some(all)
        }
        "Add" | "Sub" | "Mul" | "Div" => arithmetic(facts, node, op),
        _ => None,
    }
}

/// Elements of an integer vector; new symbols where only their number is known.
fn own_or_fresh(facts: &Facts, fact: &Fact) -> Option<Vec<Dim>> {
    if let Some(content) = &fact.content {
        return Some(content.clone());
    }
    let [len] = fact.shape.as_deref()? else { return None };
    let len = usize::try_from(len.known()?).ok().filter(|&len| len <= MAX_CONTENT)?;
    Some((0..len).map(|_| facts.fresh()).collect())
}

/// Integers element by element; one element goes with any number of them.
fn arithmetic(facts: &Facts, node: &NodeProto, op: &str) -> Option<Vec<Dim>> {
    let (lhs, rhs) = (facts.input(node, 0)?, facts.input(node, 1)?);
    let integer = |fact: &Fact| fact.dtype == DataType::Int64 as i32 || fact.dtype == DataType::Int32 as i32;
    let (a, b) = (lhs.content.as_ref()?, rhs.content.as_ref()?);
    let len = a.len().max(b.len());
    let fits = |n: usize| n == len || n == 1;
    if !integer(lhs) || !integer(rhs) || !fits(a.len()) || !fits(b.len()) {
        return None;
    }
    let compute = |a: i64, b: i64| match op {
        "Add" => a.checked_add(b),
        "Sub" => a.checked_sub(b),
        "Mul" => a.checked_mul(b),
        _ => a.checked_div(b),
    };
    let at = |values: &[Dim], i: usize| values.get(if values.len() == 1 { 0 } else { i }).copied();
    let element = |i: usize| {
        let known = (at(a, i)?.known(), at(b, i)?.known());
        Some(match known {
            (Some(a), Some(b)) => Dim::Known(compute(a, b)?),
            _ => facts.fresh(),
        })
    };
    (0..len).map(element).collect()
}

/// `start..end` of a vector, negative ones from its end, cut to it.
pub(super) fn bounds(start: i64, end: i64, len: usize) -> std::ops::Range<usize> {
    let cut = |at: i64| {
        let at = if at < 0 { at.saturating_add(len as i64) } else { at };
        usize::try_from(at).unwrap_or(0).min(len)
    };
    cut(start)..cut(end).max(cut(start))
}

/// Axis, start and end of each slice of a Slice with steps of one.
pub(super) fn slices(facts: &Facts, node: &NodeProto) -> Option<Vec<(i64, i64, i64)>> {
    let numbers = |i: usize| facts.input(node, i).and_then(Fact::numbers);
    let (starts, ends, axes) = match ints(node, "starts") {
        Some(starts) => (starts.to_vec(), ints(node, "ends")?.to_vec(), ints(node, "axes").map(<[i64]>::to_vec)),
        None => {
            let axes = if facts.input(node, 3).is_some() { Some(numbers(3)?) } else { None };
            let unit = facts.input(node, 4).is_none() || numbers(4)?.iter().all(|&step| step == 1);
            if !unit {
                return None;
            }
            (numbers(1)?, numbers(2)?, axes)
        }
    };
    let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let same = starts.len() == ends.len() && starts.len() == axes.len();
    same.then(|| axes.into_iter().zip(starts).zip(ends).map(|((axis, start), end)| (axis, start, end)).collect())
}
