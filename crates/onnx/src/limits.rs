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
    /// Size of the file and of what its tensors take in other files.
    pub max_total_bytes: u64,
    /// Depth of records within records; the decoder takes no more than 100, whatever is stated here.
    pub max_nesting: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_file_bytes: (1 << 31) - 1,
            max_nodes: 1 << 20,
            max_records: 1 << 23,
            max_tensor_elements: 1 << 31,
            max_total_bytes: 64 << 30,
            max_nesting: 100,
        }
    }
}
