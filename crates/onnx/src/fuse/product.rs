//! A product as its factors, whatever the order in which a graph multiplies and divides them.

use super::view::View;
use crate::node::{input, onnx_op};

/// Most factors of a product, and the deepest nesting.
const MAX_FACTORS: usize = 6;

/// `number * over[0] * over[1] .. / (under[0] * ..)`; numbers among the factors are in `number`.
#[derive(Debug, Default)]
pub(super) struct Product<'a> {
    pub number: f64,
    pub over: Vec<&'a str>,
    pub under: Vec<&'a str>,
}

impl<'a> Product<'a> {
    /// The product that node `at` makes; the nodes that multiply are noted in `nodes`. Factors that are products are taken
    /// apart where nothing else reads them.
    pub fn of_node(view: &View<'a>, at: usize, nodes: &mut Vec<usize>) -> Option<Self> {
        let mut product = Self { number: 1.0, ..Self::default() };
        nodes.push(at);
        product.take_node(view, at, true, 0, nodes)?;
        Some(product)
    }

    /// The same for a value; one that no product makes is its own only factor.
    pub fn of_value(view: &View<'a>, name: &'a str, nodes: &mut Vec<usize>) -> Option<Self> {
        let mut product = Self { number: 1.0, ..Self::default() };
        let mark = nodes.len();
        match view.maker(name, nodes) {
            Some(node) if is_product(onnx_op(node)) => {
                let at = *nodes.last()?;
                product.take_node(view, at, true, 0, nodes)?;
            }
            _ => {
                nodes.truncate(mark);
                product.over.push(view.source(name));
            }
        }
        Some(product)
    }

    fn take_node(&mut self, view: &View<'a>, at: usize, up: bool, depth: usize, nodes: &mut Vec<usize>) -> Option<()> {
        let node = view.node(at);
        let (a, b) = (input(node, 0)?, input(node, 1)?);
        match onnx_op(node) {
            "Mul" => {
                self.take(view, a, up, depth, nodes)?;
                self.take(view, b, up, depth, nodes)
            }
            "Div" => {
                self.take(view, a, up, depth, nodes)?;
                self.take(view, b, !up, depth, nodes)
            }
            "Pow" => {
                let exponent = view.number(b, 1).filter(|&e| e == 2.0 || e == 3.0)?;
                for _ in 0..exponent as usize {
                    self.factor(view.source(a), up)?;
                }
                Some(())
            }
            _ => None,
        }
    }

    fn take(&mut self, view: &View<'a>, name: &'a str, up: bool, depth: usize, nodes: &mut Vec<usize>) -> Option<()> {
        if let Some(number) = view.number(name, 1) {
            self.number *= if up { number } else { 1.0 / number };
            return Some(());
        }
        let mark = nodes.len();
        if depth < MAX_FACTORS && view.has_one_reader(name) {
            let inner = view.maker(name, nodes).filter(|node| is_product(onnx_op(node)));
            let is_power = inner.is_some_and(|node| onnx_op(node) == "Pow");
            let whole =
                !is_power || inner.and_then(|n| view.number(input(n, 1)?, 1)).is_some_and(|e| e == 2.0 || e == 3.0);
            if let Some(&at) = nodes.last().filter(|_| inner.is_some() && whole) {
                return self.take_node(view, at, up, depth + 1, nodes);
            }
        }
        nodes.truncate(mark);
        self.factor(view.source(name), up)
    }

    fn factor(&mut self, name: &'a str, up: bool) -> Option<()> {
        let side = if up { &mut self.over } else { &mut self.under };
        side.push(name);
        (side.len() <= MAX_FACTORS).then_some(())
    }
}

fn is_product(op: &str) -> bool {
    matches!(op, "Mul" | "Div" | "Pow")
}

/// Equal but for the rounding of a constant.
pub(super) fn close(value: f64, wanted: f64) -> bool {
    (value - wanted).abs() <= 1e-3 * wanted.abs()
}
