//! What a file can do wrong. Every message is one line that names the file, the node or tensor, and what to do.

use std::{io, path::PathBuf};

use thiserror::Error;

/// A model that cannot be read, or an artefact that cannot be written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be opened or read.
    #[error("{path:?} cannot be read: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The bytes are no ONNX model.
    #[error("{file}: not an ONNX model ({reason}); give fpxint a file exported as ONNX")]
    NotOnnx {
        /// The file.
        file: String,
        /// What is missing or malformed.
        reason: String,
    },
    /// Something exceeds a limit of [`crate::Limits`].
    #[error("{file}: {what} is beyond the limit of {limit}; split the model or raise the limit")]
    Limit {
        /// The file.
        file: String,
        /// What is too large.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// A tensor whose data do not fill its dimensions.
    #[error("{file}: tensor {tensor} needs {expected} {unit} but holds {found}; the file is cut off or damaged")]
    Truncated {
        /// The file.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// What the dimensions need.
        expected: u64,
        /// What there is.
        found: u64,
        /// `bytes` or `values`.
        unit: &'static str,
    },
    /// A weight of a data type that stands for no number fpxint reads.
    #[error("{file}: weight {tensor} has data type {dtype}; export the model in FP32, FP16 or BF16")]
    DataType {
        /// The file.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// ONNX name or number of the type.
        dtype: String,
    },
    /// A negative dimension, or dimensions whose product overflows.
    #[error("{file}: tensor {tensor} has impossible dimensions {dims}; export the model again")]
    Dimension {
        /// The file.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// The dimensions.
        dims: String,
    },
    /// A node has an attribute that no host may see.
    #[error("{file}: {node}: {reason}; export the model again")]
    Attribute {
        /// The file.
        file: String,
        /// The node.
        node: String,
        /// What is wrong.
        reason: String,
    },
    /// Two values of one name.
    #[error("{file}: value {value} is defined twice; export the model again")]
    Duplicate {
        /// The file.
        file: String,
        /// Name of the value.
        value: String,
    },
    /// A value that nothing defines.
    #[error("{file}: {node} reads {value}, which nothing defines; export the model again")]
    Undefined {
        /// The file.
        file: String,
        /// The node, or the graph's outputs.
        node: String,
        /// Name of the value.
        value: String,
    },
    /// A node before the one whose output it reads.
    #[error("{file}: {node} reads {value} before it is computed; sort the graph topologically")]
    Unsorted {
        /// The file.
        file: String,
        /// The node.
        node: String,
        /// Name of the value.
        value: String,
    },
    /// A node that depends on its own output.
    #[error("{file}: {node} depends on its own output; export the model again")]
    Cyclic {
        /// The file.
        file: String,
        /// The node.
        node: String,
    },
    /// A model that another tool quantised.
    #[error("{file}: is already quantised ({node} is a {op}): give fpxint the FP32 model")]
    AlreadyQuantised {
        /// The file.
        file: String,
        /// The node.
        node: String,
        /// Its operator.
        op: String,
    },
    /// A tensor kept in another file that is not there, is not allowed, or does not hold it.
    #[error("{file}: the data of tensor {tensor} cannot be read from {data}: {reason}")]
    ExternalData {
        /// The file.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// The other file, as the tensor names it.
        data: String,
        /// What is wrong.
        reason: String,
    },
    /// No operator set, or one older than 7.
    #[error("{file}: operator set {opset} is older than 7; convert the model with onnx.version_converter")]
    OpsetTooOld {
        /// The file.
        file: String,
        /// Version of the default operator set.
        opset: i64,
    },
    /// An artefact of a later format.
    #[error("{file}: written by a newer fpxint (format {version}); update fpxint to read it")]
    Newer {
        /// The file.
        file: String,
        /// Its `fpxint.version`.
        version: String,
    },
    /// An artefact that contradicts itself.
    #[error("{file}: broken artefact at {name}: {reason}; quantise the original model again")]
    Artefact {
        /// The file.
        file: String,
        /// Node, tensor or metadata key.
        name: String,
        /// The contradiction.
        reason: String,
    },
    /// A value that cannot be made an output of the graph.
    #[error("{file}: value {value} cannot be an output of the graph: {reason}")]
    Exposed {
        /// The file.
        file: String,
        /// Name of the value.
        value: String,
        /// Why not.
        reason: String,
    },
    /// An expansion that cannot be made.
    #[error(transparent)]
    Expand(#[from] fpxint::Error),
    /// Scales in blocks need an operator set that the model cannot be raised to.
    #[error(
        "{path:?} cannot hold scales of groups of inputs, which need operator set 21: {reason}; use one scale a channel"
    )]
    Blocks {
        /// The target.
        path: PathBuf,
        /// The node in the way.
        reason: String,
    },
    /// The artefact cannot be written; nothing was left behind and an existing file is untouched.
    #[error("{path:?} cannot be written: {source}")]
    Write {
        /// The target.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A name from a file as a message shows it: quoted, on one line, at most 120 characters.
pub(crate) fn shown(name: &str) -> String {
    let mut text = String::from("`");
    for (i, c) in name.chars().enumerate() {
        if i == 120 {
            text.push_str("..");
            break;
        }
        text.extend(c.escape_debug());
    }
    text.push('`');
    text
}
