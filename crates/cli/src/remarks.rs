//! What is said of an expanded model beyond its numbers: what runs on the host, and what to look at.

use std::collections::BTreeMap;

use fpxint_runtime::HostNode;
use serde::Serialize;

use crate::expansion::LayerReport;
use crate::metrics::weighted_mean;

/// Nodes of one operator that the host runs.
#[derive(Debug, Serialize)]
pub(crate) struct Host {
    pub operator: String,
    pub count: usize,
    /// Whether they have the same bits on every CPU.
    pub exact: bool,
    /// Names of the nodes, in the order in which they run.
    pub nodes: Vec<String>,
}

/// Fewest effective bits of activations that a network commonly keeps its accuracy with.
const FEW_BITS: u32 = 6;
/// Share of weights beyond which a saturation part is not sparse.
const MOST_SPARSE: f64 = 0.01;
/// Products that take about as long as FP32 does, on a CPU that multiplies four bytes a lane at once: docs/benchmarks.md.
const FP32_PRODUCTS: f64 = 3.5;
/// Share of the expected error beyond which a layer dominates it.
const MOST_ERROR: f64 = 0.5;
/// Layers that a warning names.
const NAMED: usize = 4;

/// Nodes by operator, the most frequent first.
pub(crate) fn by_operator(nodes: Vec<HostNode>) -> Vec<Host> {
    let mut kinds: BTreeMap<String, Vec<HostNode>> = BTreeMap::new();
    for node in nodes {
        kinds.entry(node.operator.clone()).or_default().push(node);
    }
    let host = |(operator, nodes): (String, Vec<HostNode>)| Host {
        operator,
        count: nodes.len(),
        exact: nodes.iter().all(|node| node.exact),
        nodes: nodes.into_iter().map(|node| node.name).collect(),
    };
    let mut hosts: Vec<Host> = kinds.into_iter().map(host).collect();
    hosts.sort_by_key(|host| std::cmp::Reverse(host.count));
    hosts
}

/// One line a cause, with its remedy.
pub(crate) fn warnings(layers: &[&LayerReport], host: &[Host]) -> Vec<String> {
    let mut warnings = Vec::new();
    for (precision, group) in grouped(layers, |l| (l.activation_bits < FEW_BITS).then(|| l.activations.clone())) {
        let bits = group[0].activation_bits;
        warnings.push(format!(
            "activations of {precision} have {bits} bits in all, which seldom keeps accuracy, in {}: give them {FEW_BITS} \
             or more, as in --activations int4x2",
            named(&group)
        ));
    }
    // Planned layers have what was asked for.
    for (cost, group) in grouped(layers, |l| (l.products > 1 && l.added.is_none()).then(|| Cost::of(l))) {
        warnings.push(format!(
            "{} products a layer, because weights of {} bits take {} and activations of {} take {}, in {}: {} bits of \
             weights and 8 of activations are one product",
            cost.limbs[0] * cost.limbs[1],
            cost.bits[0],
            limbs(cost.limbs[0]),
            cost.bits[1],
            limbs(cost.limbs[1]),
            named(&group),
            cost.limb_bits
        ));
    }
    let products = weighted_mean(layers.iter().map(|l| (f64::from(l.products), l.macs as f64)));
    if products > FP32_PRODUCTS {
        warnings.push(format!(
            "{products:.1} products in the mean are likely slower than FP32, which takes as long as {FP32_PRODUCTS} at best: \
             use fewer bits, or let --target-products choose"
        ));
    }
    for (_, group) in grouped(layers, |l| (l.sparse_fraction > MOST_SPARSE).then_some(())) {
        warnings.push(format!(
            "the clip is too tight, with more than 1 % of the weights beyond the terms, in {}: use another --clip, or give \
             them another term",
            named(&group)
        ));
    }
    let all: f64 = layers.iter().filter_map(|layer| layer.added).sum();
    for layer in layers.iter().filter(|l| layers.len() > 2 && l.added.is_some_and(|added| added > MOST_ERROR * all)) {
        warnings.push(format!(
            "{} adds {:.0} % of the expected error: give it another term in a plan (--plan FILE), or leave it in FP32 \
             (--exclude)",
            layer.name,
            100.0 * layer.added.unwrap_or(0.0) / all
        ));
    }
    let nodes: usize = host.iter().map(|host| host.count).sum();
    if nodes > layers.len() {
        warnings.push(format!(
            "the host runs {nodes} nodes beside {} layers, and may take most of the time: `fpxint bench --profile` shows \
             its share by operator",
            layers.len()
        ));
    }
    warnings
}

/// Why a layer needs more than one product.
#[derive(Debug, PartialEq)]
struct Cost {
    /// Bits of weights and activations.
    bits: [u32; 2],
    /// Integers that each is held in; a product for every pair.
    limbs: [u32; 2],
    /// Bits of one integer of the weights: 16 in depthwise layers.
    limb_bits: u32,
}

impl Cost {
    fn of(layer: &LayerReport) -> Self {
        let of_activations = layer.activation_bits.div_ceil(8);
        let of_weights = layer.products / of_activations;
        let limb_bits = if layer.depthwise { 16 } else { 8 };
        Self { bits: [layer.weight_bits, layer.activation_bits], limbs: [of_weights, of_activations], limb_bits }
    }
}

fn limbs(count: u32) -> String {
    if count == 1 { "one integer".to_owned() } else { format!("{count} integers") }
}

/// Layers by what `key` gives for them, in the order of the graph.
fn grouped<'a, K: PartialEq>(
    layers: &[&'a LayerReport],
    key: impl Fn(&LayerReport) -> Option<K>,
) -> Vec<(K, Vec<&'a LayerReport>)> {
    let mut groups: Vec<(K, Vec<&LayerReport>)> = Vec::new();
    for &layer in layers {
        let Some(key) = key(layer) else { continue };
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, group)) => group.push(layer),
            None => groups.push((key, vec![layer])),
        }
    }
    groups
}

/// The first few names of a group, and how many there are beyond them.
fn named(group: &[&LayerReport]) -> String {
    let names: Vec<&str> = group.iter().take(NAMED).map(|layer| layer.name.as_str()).collect();
    let more = group.len() - names.len();
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{more}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str, products: u32, sparse_fraction: f64, added: f64) -> LayerReport {
        let added = Some(added).filter(|&added| added > 0.0);
        LayerReport {
            name: name.to_owned(),
            op: "Conv",
            weights: "int4x2".to_owned(),
            activations: "int4x2".to_owned(),
            bound: 0.0,
            max_error: None,
            weight_bits: 8 * products,
            activation_bits: 8,
            sparse_fraction,
            asymmetric: false,
            rotation: None,
            unclipped: None,
            products,
            mean_bits: 8.0,
            expected_error: None,
            certified_error: None,
            added,
            depthwise: false,
            macs: 100,
        }
    }

    #[test]
    fn a_clip_a_dominating_layer_and_a_slow_model_are_named() {
        let of = |layers: &[LayerReport]| warnings(&layers.iter().collect::<Vec<_>>(), &[]);
        let sound = [layer("a", 1, 0.01, 0.1), layer("b", 1, 0.0, 0.1), layer("c", 1, 0.0, 0.2)];
        assert_eq!(of(&sound), [""; 0]);
        let clipped = [layer("a", 1, 0.011, 0.1), layer("b", 1, 0.0, 0.1), layer("c", 1, 0.0, 0.2)];
        let [tight] = &of(&clipped)[..] else { panic!() };
        assert!(tight.contains("beyond the terms, in a: use another --clip"), "{tight}");
        let [most] = &of(&[layer("a", 1, 0.0, 0.1), layer("b", 1, 0.0, 0.1), layer("c", 1, 0.0, 0.3)])[..] else {
            panic!()
        };
        assert!(most.starts_with("c adds 60 % of the expected error: give it another term"), "{most}");
        assert_eq!(of(&[layer("a", 1, 0.0, 0.1), layer("b", 1, 0.0, 0.9)]), [""; 0], "one of two is not worth a word");
        let four = [layer("a", 4, 0.0, 0.0), layer("b", 4, 0.0, 0.0), layer("c", 3, 0.0, 0.0)];
        let [many, _, slow] = &of(&four)[..] else { panic!() };
        assert!(
            many.starts_with("4 products a layer") && slow.starts_with("3.7 products in the mean"),
            "{many}; {slow}"
        );
    }
}
