//! Raises the default-domain opset of a model, so that a file may use newer tensor types.
//!
//! Operators whose schema changed between the two opsets are rewritten, one small function each ([`table`]); all other
//! known operators are kept as they are. The outcome is all or nothing: every rewritten graph is drafted beside the
//! model, and the model is touched only when each of its nodes has been carried over.
//!
//! Sources: opsets 7 to 25. Targets: opsets 13 to 25. Graphs in attributes (`If`, `Loop`, `Scan`) are raised with the
//! graph that holds them; nodes of other domains are kept, but graphs in their attributes are raised as well.

use std::fmt;

use crate::proto::{ModelProto, OperatorSetIdProto};

mod constant;
mod edit;
mod facts;
mod graph;
mod inputs;
mod norm;
mod resize;
mod softmax;
mod table;
#[cfg(test)]
mod tests;

/// The oldest opset that is read.
const OLDEST: i64 = 7;
/// The opsets that can be asked for.
const TARGETS: std::ops::RangeInclusive<i64> = 13..=25;
/// The first IR version in which an initialiser need not be a graph input.
const INITIALIZER_IR: i64 = 4;

/// What keeps a model at its opset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unraisable {
    /// Name of the node, of its first output where it has none; empty when the model as a whole is the reason.
    pub node: String,
    /// Operator of the node; empty when the model as a whole is the reason.
    pub op_type: String,
    /// Why it cannot be carried over.
    pub reason: String,
}

impl Unraisable {
    /// The model as a whole is the reason.
    fn model(reason: String) -> Self {
        Self { node: String::new(), op_type: String::new(), reason }
    }
}

impl fmt::Display for Unraisable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.op_type.is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "node `{}` ({}): {}", self.node, self.op_type, self.reason)
        }
    }
}

impl std::error::Error for Unraisable {}

/// Raises the default-domain opset of `model` to `to`, leaving its meaning as it is.
///
/// A model at `to` or above is left alone; nothing is ever lowered. New constants are initialisers whose names derive
/// from the output of the node they serve, so equal models give equal results. The IR version becomes at least 4.
///
/// # Errors
/// [`Unraisable`] when the opset is below 7, `to` is outside 13..=25, or a node cannot be carried over: its operator is
/// not in the table, or it relies on behaviour that newer opsets do not have. The model is then unchanged.
pub fn raise(model: &mut ModelProto, to: i64) -> Result<(), Unraisable> {
    let from = default_opset(model)?;
    if from >= to {
        return Ok(());
    }
    if from < OLDEST {
        return Err(Unraisable::model(format!("opset {from} is older than {OLDEST}, the oldest that is read")));
    }
    if !TARGETS.contains(&to) {
        return Err(Unraisable::model(format!("opset {to} is not one of {}..={}", TARGETS.start(), TARGETS.end())));
    }
    check_no_other_graphs(model, to)?;
    let draft = match &model.graph {
        Some(graph) => Some(graph::draft(graph, from, to)?),
        None => None,
    };
    if let (Some(graph), Some(draft)) = (&mut model.graph, draft) {
        draft.apply(graph);
    }
    for import in model.opset_import.iter_mut().filter(|import| is_default_import(import)) {
        import.version = Some(to);
    }
    model.ir_version = Some(model.ir_version.unwrap_or(0).max(INITIALIZER_IR));
    Ok(())
}

/// Whether `domain` is the one that ONNX itself defines.
fn is_default_domain(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

fn is_default_import(import: &OperatorSetIdProto) -> bool {
    is_default_domain(import.domain())
}

/// The one opset that the model imports for the default domain.
fn default_opset(model: &ModelProto) -> Result<i64, Unraisable> {
    let mut versions = model.opset_import.iter().filter(|import| is_default_import(import)).map(|i| i.version());
    let first =
        versions.next().ok_or_else(|| Unraisable::model("no opset of the default domain is imported".into()))?;
    match versions.find(|&version| version != first) {
        None => Ok(first),
        Some(other) => Err(Unraisable::model(format!("the default domain is imported at opsets {first} and {other}"))),
    }
}

/// Functions and training graphs follow the model's opset, and are not rewritten.
fn check_no_other_graphs(model: &ModelProto, to: i64) -> Result<(), Unraisable> {
    if !model.training_info.is_empty() {
        return Err(Unraisable::model("training graphs are not raised".into()));
    }
    let older = |import: &OperatorSetIdProto| is_default_import(import) && import.version() < to;
    match model.functions.iter().find(|function| function.opset_import.iter().any(older)) {
        None => Ok(()),
        Some(function) => {
            let reason = format!("the function `{}` defined in the model is not raised", function.name());
            Err(Unraisable::model(reason))
        }
    }
}
