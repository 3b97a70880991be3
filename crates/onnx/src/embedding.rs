//! Look-ups in constant tables, which are no products and so stay as they are.

use crate::constants::Constant;
use crate::index::Index;
use crate::layers::plain_name;
use crate::model::Model;
use crate::node::{input, onnx_op};
use crate::tensor::{byte_len, is_float};

/// A look-up of rows in a constant table of floats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Embedding {
    /// Name of the node.
    pub name: String,
    /// Rows and columns of the table.
    pub shape: [usize; 2],
    /// Bytes that the table takes in the file.
    pub bytes: u64,
    /// The value that says which rows.
    pub indices: String,
}

impl Model {
    /// The Gather nodes that look rows up in a constant table of floats, in the order of the graph.
    pub fn embeddings(&self) -> Vec<Embedding> {
        let graph = self.graph();
        let index = Index::new(graph);
        let lookup = |(at, node): (usize, &_)| {
            let table = Some(node).filter(|node| index.is_live(at) && onnx_op(node) == "Gather");
            let table = Constant::find(&index, input(table?, 0)?).filter(|table| is_float(table.dtype))?;
            let &[rows, columns] = table.shape.as_slice() else { return None };
            let bytes = table.stored(graph).and_then(byte_len).unwrap_or(0);
            let indices = input(node, 1)?.to_owned();
            Some(Embedding { name: plain_name(node), shape: [rows, columns], bytes, indices })
        };
        graph.node.iter().enumerate().filter_map(lookup).collect()
    }
}
