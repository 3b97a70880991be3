//! Caps that keep a hostile file from taking the machine's memory.

/// What a file may hold. The defaults admit every file that ONNX itself can express in one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Size of the file; protobuf cannot go beyond 2 GiB - 1.
    pub max_file_bytes: u64,
    /// Nodes, those of nested graphs included.
    pub max_nodes: u64,
    /// Protobuf records of any kind except the numbers of tensors: what bounds the memory of the decoded graph.
    pub max_records: u64,
    /// Elements of one tensor.
    pub max_tensor_elements: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_file_bytes: (1 << 31) - 1, max_nodes: 1 << 20, max_records: 1 << 23, max_tensor_elements: 1 << 31 }
    }
}
