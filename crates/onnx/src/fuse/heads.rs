//! The heads of an attention: how the operands of its products are cut out of values of rank 3.

use super::facts::Dim;
use super::view::View;
use crate::constants::wrap;
use crate::node::{input, int, ints, onnx_op};

/// Longest way from a product to the Reshape that makes the heads.
const MAX_STEPS: usize = 10;

/// Axes of the operands after the Reshape to (batch, sequence, heads, size), in the order in which a product has them.
pub(super) const ROWS: [usize; 4] = [0, 2, 1, 3];
/// The same of a transposed operand.
pub(super) const COLUMNS: [usize; 4] = [0, 2, 3, 1];

/// An operand of an attention's product.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operand<'a> {
    /// (batch, sequence, width), or of several operands side by side.
    pub value: &'a str,
    /// Where it lies in the last axis of a joined value.
    pub part: Option<(i64, i64)>,
    pub heads: i64,
    pub batch: Dim,
    pub sequence: Dim,
    /// Heads by their size, where both are known.
    pub width: Option<i64>,
    /// A number that it is multiplied by.
    pub scale: f64,
}

/// The way back from an operand: where its axes lie in the value at hand.
struct Way {
    axes: Vec<usize>,
    /// Axis that was left with one index.
    part: Option<(usize, i64)>,
    scale: f64,
}

impl<'a> Operand<'a> {
    /// The operand that `name` is, when its axes are `order` of those after the Reshape; nodes are noted in `nodes`.
    pub fn find(view: &View<'a>, name: &'a str, order: [usize; 4], nodes: &mut Vec<usize>) -> Option<Self> {
        let mut way = Way { axes: vec![0, 1, 2, 3], part: None, scale: 1.0 };
        let mut name = name;
        for _ in 0..MAX_STEPS {
            let node = view.maker(name, nodes)?;
            name = match onnx_op(node) {
                "Reshape" => return Self::at_reshape(view, *nodes.last()?, &way, order),
                "Transpose" => {
                    way.transpose(ints(node, "perm")?)?;
                    input(node, 0)?
                }
                op @ ("Mul" | "Div") => {
                    let (a, b) = (input(node, 0)?, input(node, 1)?);
                    let (rest, number) = match view.number(b, way.axes.len()) {
                        Some(number) => (a, if op == "Mul" { number } else { 1.0 / number }),
                        None => (b, view.number(a, way.axes.len()).filter(|_| op == "Mul")?),
                    };
                    way.scale *= number;
                    rest
                }
                "Gather" => {
                    let index = view.facts.input(node, 1).filter(|fact| fact.rank() == Some(0))?.numbers()?;
                    way.pick(wrap(int(node, "axis", 0), 5)?, *index.first()?)?;
                    input(node, 0)?
                }
                "Squeeze" => {
                    let [axis] = super::shapes::axes(&view.facts, node)?[..] else { return None };
                    let (joined, index) = split(view, input(node, 0)?, wrap(axis, 5)?, nodes)?;
                    way.pick(wrap(axis, 5)?, index)?;
                    joined
                }
                _ => return None,
            };
        }
        None
    }

    fn at_reshape(view: &View<'a>, at: usize, way: &Way, order: [usize; 4]) -> Option<Self> {
        let node = view.node(at);
        let value = input(node, 0)?;
        let &[batch, sequence, width] = view.facts.shape(value)? else { return None };
        let made = view.facts.shape(node.output.first()?)?;
        let (wanted, parts, index, heads, size) = match (way.part, made) {
            (None, &[_, _, heads, size]) => (order, 1, 0, heads, size),
            (Some((2, index)), &[_, _, Dim::Known(parts), heads, size]) => {
                (order.map(|axis| if axis < 2 { axis } else { axis + 1 }), parts, index, heads, size)
            }
            _ => return None,
        };
        let index = if index < 0 { index.checked_add(parts)? } else { index };
        if way.axes != wanted || !(0..parts).contains(&index) || !view.facts.is_f32(value) {
            return None;
        }
        let heads = heads.known().filter(|&heads| heads > 0)?;
        let own = size.known().and_then(|size| heads.checked_mul(size)).filter(|&own| own > 0);
        let total = own.and_then(|own| own.checked_mul(parts));
        // Two of three equal dimensions make the third equal: there are as many elements as before.
        let proofs = [made[0] == batch, made[1] == sequence, total.map(Dim::Known) == Some(width)];
        let contradicted = total.zip(width.known()).is_some_and(|(total, width)| total != width);
        if contradicted || proofs.into_iter().filter(|proof| *proof).count() < 2 {
            return None;
        }
        let (part, width) = if way.part.is_some() {
            let own = own?;
            (Some((index.checked_mul(own)?, index.checked_mul(own)?.checked_add(own)?)), Some(own))
        } else {
            (None, own.or(width.known()))
        };
        Some(Self { value, part, heads, batch, sequence, width, scale: way.scale })
    }
}

impl Way {
    fn transpose(&mut self, perm: &[i64]) -> Option<()> {
        let rank = if self.part.is_some() { 5 } else { 4 };
        let back = |axis: usize| perm.get(axis).and_then(|&axis| usize::try_from(axis).ok());
        if perm.len() != rank {
            return None;
        }
        for axis in &mut self.axes {
            *axis = back(*axis)?;
        }
        if let Some((axis, _)) = &mut self.part {
            *axis = back(*axis)?;
        }
        Some(())
    }

    /// Goes back past the choice of one index of an axis of rank 5.
    fn pick(&mut self, axis: usize, index: i64) -> Option<()> {
        if self.part.is_some() {
            return None;
        }
        self.part = Some((axis, index));
        self.axes.iter_mut().filter(|own| **own >= axis).for_each(|own| *own += 1);
        Some(())
    }
}

/// The value that a Split cuts into slices of one along `axis`, of rank 5, and which of them `name` is.
fn split<'a>(view: &View<'a>, name: &'a str, axis: usize, nodes: &mut Vec<usize>) -> Option<(&'a str, i64)> {
    let node = view.made_by(name, "Split", nodes)?;
    let joined = input(node, 0)?;
    let shape = view.facts.shape(joined).filter(|shape| shape.len() == 5)?;
    let whole = shape[axis] == Dim::Known(node.output.len() as i64);
    let single = view.facts.shape(name)?.get(axis) == Some(&Dim::Known(1));
    let own = view.source(name);
    let index = node.output.iter().position(|output| output == own)?;
    (whole && single && wrap(int(node, "axis", 0), 5)? == axis).then_some((joined, index as i64))
}

/// Whether the Reshape `at` brings (batch, sequence, heads, size) back to (batch, sequence, heads * size), where the products
/// had `q` and `v` as operands.
pub(super) fn is_joined(view: &View, at: usize, q: &Operand, v: &Operand) -> bool {
    let made = view.node(at).output.first().and_then(|name| view.facts.shape(name));
    let Some(&[batch, sequence, width]) = made else { return false };
    let whole = v.width.map(Dim::Known) == Some(width);
    if v.width.zip(width.known()).is_some_and(|(own, made)| own != made) {
        return false;
    }
    [batch == q.batch, sequence == q.sequence, whole].into_iter().filter(|proof| *proof).count() >= 2
}
