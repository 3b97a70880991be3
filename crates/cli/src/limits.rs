//! Flags that bound what a model may hold.

use clap::Args;
use fpxint_onnx::Limits;

/// What a model may hold; the defaults admit every file that ONNX can express in one piece.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitFlags {
    /// Refuse models of more bytes in all, those of other files included [default: 64 GiB]
    #[arg(long, global = true, value_name = "N", hide_short_help = true)]
    pub max_bytes: Option<u64>,
    /// Refuse models with a tensor of more elements [default: 2147483648]
    #[arg(long, global = true, value_name = "N", hide_short_help = true)]
    pub max_tensor_elements: Option<u64>,
    /// Refuse models of more nodes, those of nested graphs included [default: 1048576]
    #[arg(long, global = true, value_name = "N", hide_short_help = true)]
    pub max_nodes: Option<u64>,
    /// Refuse models whose messages are nested deeper [default: 100, which is also the most]
    #[arg(long, global = true, value_name = "N", hide_short_help = true, value_parser = clap::value_parser!(u32).range(..=100))]
    pub max_nesting: Option<u32>,
}

impl LimitFlags {
    /// The limits that the flags state, and the defaults of the others.
    pub fn limits(&self) -> Limits {
        let default = Limits::default();
        let bytes = self.max_bytes.unwrap_or(default.max_total_bytes);
        Limits {
            max_file_bytes: bytes.min(default.max_file_bytes),
            max_total_bytes: bytes,
            max_nodes: self.max_nodes.unwrap_or(default.max_nodes),
            max_tensor_elements: self.max_tensor_elements.unwrap_or(default.max_tensor_elements),
            max_nesting: self.max_nesting.unwrap_or(default.max_nesting),
            ..default
        }
    }
}
