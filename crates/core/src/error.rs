//! What can go wrong while expanding: always a property of the data or the settings, never a panic.

use thiserror::Error;

/// An expansion that cannot be made.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum Error {
    /// A weight is NaN or infinite.
    #[error("tensor `{tensor}` holds {value} at element {index}; a series needs finite weights")]
    NonFinite {
        /// Name of the tensor (the layer's name for folded weights).
        tensor: String,
        /// First offending element, in row-major order.
        index: usize,
        /// The value found.
        value: f32,
    },
    /// A precision outside what the series supports.
    #[error("precision int{bits}x{order}: {reason}")]
    Precision {
        /// Bits per term.
        bits: u32,
        /// Number of terms.
        order: u32,
        /// The rule broken.
        reason: &'static str,
    },
    /// A precision that could not be parsed.
    #[error("`{}` is not a precision: write int<bits>x<terms>, as in int4x2", shown(.0))]
    Syntax(String),
    /// Dimensions that do not multiply to the number of values, or an axis beyond them.
    #[error("tensor `{tensor}`: {len} values do not fit shape {shape:?} with channel axis {axis:?}")]
    Shape {
        /// Name of the tensor.
        tensor: String,
        /// Number of values.
        len: usize,
        /// Declared dimensions.
        shape: Vec<usize>,
        /// Channel axis.
        axis: Option<usize>,
    },
    /// A prefix longer than the series.
    #[error("{asked} weight terms asked for, but `{tensor}` has {order}")]
    Order {
        /// Name of the tensor or layer.
        tensor: String,
        /// Terms asked for.
        asked: u32,
        /// Terms there are.
        order: u32,
    },
    /// A region of basis models with something between its layers that does not commute with addition.
    #[error("layer `{layer}` rounds its input, which is not linear: partial sums must be added before it")]
    NonLinear {
        /// Name of the layer.
        layer: String,
    },
    /// A region of no layers of the model.
    #[error("layers {layers:?} of {count} are no region")]
    NoRegion {
        /// What was asked for.
        layers: std::ops::Range<usize>,
        /// Layers there are.
        count: usize,
    },
    /// A goal that no plan reaches.
    #[error("{0}")]
    Goal(String),
    /// Terms read back that no expansion can have produced.
    #[error("tensor `{tensor}` is not a series: {reason}")]
    NotASeries {
        /// Name of the tensor.
        tensor: String,
        /// The rule broken.
        reason: String,
    },
}

/// A text of unknown origin as a message shows it: escaped, and cut where it is long.
fn shown(text: &str) -> String {
    text.chars().take(40).flat_map(char::escape_debug).collect()
}
