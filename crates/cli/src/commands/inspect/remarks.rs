//! What `inspect` says of a model beyond its numbers: what runs on the host, and what to look at.

use std::collections::BTreeMap;

use fpxint_runtime::HostNode;
use serde::Serialize;

use super::Layer;

/// Nodes of one operator that the host runs.
#[derive(Debug, Serialize)]
pub(super) struct Host {
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
/// Layers that a warning names.
const NAMED: usize = 4;

/// Nodes by operator, the most frequent first.
pub(super) fn by_operator(nodes: Vec<HostNode>) -> Vec<Host> {
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
pub(super) fn warnings(layers: &[Layer], host: &[Host]) -> Vec<String> {
    let mut warnings = Vec::new();
    for (precision, group) in grouped(layers, |l| (l.activation_bits < FEW_BITS).then(|| l.report.activations.clone()))
    {
        let bits = group[0].activation_bits;
        warnings.push(format!(
            "activations of {precision} have {bits} bits in all, which seldom keeps accuracy, in {}: give them {FEW_BITS} \
             or more, as in --activations int4x2",
            named(&group)
        ));
    }
    for (cost, group) in grouped(layers, |l| (l.report.products > 1).then(|| Cost::of(l))) {
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
    for (_, group) in grouped(layers, |l| (l.report.sparse_fraction > MOST_SPARSE).then_some(())) {
        warnings.push(format!(
            "more than 1 % of the weights lie beyond the terms in {}: clip less, or give them another term",
            named(&group)
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
    fn of(layer: &Layer) -> Self {
        let of_activations = layer.activation_bits.div_ceil(8);
        let of_weights = layer.report.products / of_activations;
        let limb_bits = if layer.depthwise { 16 } else { 8 };
        Self { bits: [layer.weight_bits, layer.activation_bits], limbs: [of_weights, of_activations], limb_bits }
    }
}

fn limbs(count: u32) -> String {
    if count == 1 { "one integer".to_owned() } else { format!("{count} integers") }
}

/// Layers by what `key` gives for them, in the order of the graph.
fn grouped<K: PartialEq>(layers: &[Layer], key: impl Fn(&Layer) -> Option<K>) -> Vec<(K, Vec<&Layer>)> {
    let mut groups: Vec<(K, Vec<&Layer>)> = Vec::new();
    for layer in layers {
        let Some(key) = key(layer) else { continue };
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, group)) => group.push(layer),
            None => groups.push((key, vec![layer])),
        }
    }
    groups
}

/// The first few names of a group, and how many there are beyond them.
fn named(group: &[&Layer]) -> String {
    let names: Vec<&str> = group.iter().take(NAMED).map(|layer| layer.report.name.as_str()).collect();
    let more = group.len() - names.len();
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{more}", names.join(", "))
}
