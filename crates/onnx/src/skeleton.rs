//! The graph around the layers: ONNX in which each layer is one node of domain `fpxint` that names it by its index.
//!
//! * `FpxConv`: `layer`, `spatial_rank`, `channels_in`, `channels_out`, `groups` (ints); `kernel`, `strides`, `dilations`
//!   (two ints each); `pads` (top, left, bottom, right) or `auto_pad` (`SAME_UPPER`, `SAME_LOWER`).
//! * `FpxMatMul`, for MatMul and Gemm: `layer`, `k`, `n`; `y = x W + bias` over the last axis of `x`.
//!
//! * `FpxRotation`: `block`; what a layer reads that is rotated (`rotation`).
//!
//! Each has one input and one output, both FLOAT. Weights, bias and all that is folded into them are gone. Attention,
//! normalisations, GELU and SiLU are one node each, as [`fuse`](crate::fuse()) makes them.

use std::collections::HashSet;
use std::io;

use fpxint::{Geometry, Padding};

use crate::Error;
use crate::assemble::{in_float, rebuild_named};
use crate::dims;
use crate::external::of_stream;
use crate::fuse::fuse;
use crate::layers::Plan;
use crate::model::Model;
use crate::node::{int_attribute, ints_attribute, make, string_attribute};
use crate::proto::{ModelProto, NodeProto, OperatorSetIdProto};
use crate::rotation::Turns;
use crate::stream::Parts;
use crate::widen;

/// Domain of the nodes that stand for layers.
pub const DOMAIN: &str = "fpxint";

/// The model without its layers' weights, as ONNX bytes. Tensors of other files that it still needs are in it.
///
/// # Errors
/// [`Error::ExternalData`] where such a tensor cannot be read.
pub fn skeleton(model: &Model) -> Result<Vec<u8>, Error> {
    let turns = Turns::new(model, |_| true);
    let (mut graph, _) = rebuild_named(model, |layer, plan, names| {
        Some(in_float(plan, layer, names, |x, y| {
            let (mut nodes, x) = turns.own(layer, names, x);
            nodes.push(layer_node(layer, plan, &x, y));
            nodes
        }))
    });
    dims::make_plain(&mut graph);
    widen::widen(&mut graph);
    fuse(&mut graph, model.opset());
    let mut names = HashSet::new();
    for node in &mut graph.node {
        node.doc_string = None;
        node.metadata_props.clear();
        // A reader may want names to be unique; a nameless node goes by its output.
        node.name = node.name.take().filter(|name| names.insert(name.clone()));
    }
    let mut opset_import = model.proto.opset_import.clone();
    opset_import.retain(|set| set.domain.as_deref() != Some(DOMAIN));
    opset_import.push(OperatorSetIdProto { domain: Some(DOMAIN.to_owned()), version: Some(1) });
    let skeleton = ModelProto {
        ir_version: model.proto.ir_version,
        opset_import,
        producer_name: Some("fpxint".to_owned()),
        graph: Some(graph),
        functions: model.proto.functions.clone(),
        ..ModelProto::default()
    };
    let parts = Parts::new(skeleton, |tensor| model.elsewhere(tensor))?;
    let failed = |source| Error::Io { path: model.file.clone().into(), source };
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(parts.len() as usize).map_err(|e| failed(io::Error::other(e)))?;
    parts.write(&mut bytes).map_err(|e| of_stream(e, failed))?;
    Ok(bytes)
}

fn layer_node(layer: usize, plan: &Plan, x: &str, y: &str) -> NodeProto {
    let sizes = |pairs: &[(&str, usize)]| {
        pairs.iter().map(|&(name, value)| int_attribute(name, value as i64)).collect::<Vec<_>>()
    };
    let (op_type, attributes) = match &plan.geometry {
        Geometry::MatMul(g) => ("FpxMatMul", sizes(&[("layer", layer), ("k", g.k), ("n", g.n)])),
        Geometry::Conv(g) => {
            let mut attributes = sizes(&[
                ("layer", layer),
                ("spatial_rank", g.spatial_rank),
                ("channels_in", g.channels_in),
                ("channels_out", g.channels_out),
                ("groups", g.groups),
            ]);
            attributes.push(ints_attribute("kernel", &g.kernel));
            attributes.push(ints_attribute("strides", &g.strides));
            attributes.push(ints_attribute("dilations", &g.dilations));
            attributes.push(match &g.padding {
                Padding::Explicit(pads) => ints_attribute("pads", pads),
                Padding::SameUpper => string_attribute("auto_pad", "SAME_UPPER"),
                Padding::SameLower => string_attribute("auto_pad", "SAME_LOWER"),
            });
            ("FpxConv", attributes)
        }
    };
    let mut node = make(DOMAIN, op_type, &[x], y);
    node.name = Some(plan.name.clone());
    node.attribute = attributes;
    node
}
