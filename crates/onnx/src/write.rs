//! Writes an artefact: plain ONNX in which each expanded weight is the sum of its scaled integer terms.
//!
//! ```text
//! Add( .. Add(DQ(M_1, scale_1), DQ(M_2, scale_2)) .., DQ(M_n, scale_n))      left-associated; DQ(S, scale_1) before all
//! ```
//!
//! INT4 tensors need operator set 21 and INT2 tensors 25, and a file cannot mix sets, so the whole model is raised. Where
//! an operator cannot be carried over, the terms take the next wider type, down to INT8 in operator set 13; and where not
//! even that is reachable, to `Mul(Cast(INT8), scale)`, which every set has. The digits stay the same throughout.
//!
//! `S` is the saturation part of a weight that was clipped: INT8, the `sparse_value` of a Constant; without DequantizeLinear a
//! sparse initialiser.
//!
//! The bytes are a function of the model and the encoded layers alone.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use fpxint::{ActivationClip, Rounding};

use crate::artefact::{ATTENTION_KEY, LAYER_KEY, Record, VERSION, VERSION_KEY};
use crate::assemble::{Names, in_float, rebuild_named};
use crate::encode::EncodedLayer;
use crate::error::shown;
use crate::external::of_stream;
use crate::layers::Plan;
use crate::model::Model;
use crate::node::make;
use crate::persist::persist;
use crate::proto::{GraphProto, ModelProto, NodeProto, StringStringEntryProto};
use crate::rotation::Turns;
use crate::stream::{Data, Outside, Parts};
use crate::terms::add_terms;
use crate::{Error, Unraisable, check, raise};

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Size of the file, or of both.
    pub bytes: u64,
    /// The file of large tensors beside it, where one file could not hold them.
    pub data: Option<PathBuf>,
    /// Version of ONNX's operator set in it.
    pub opset: i64,
    /// Version of its intermediate representation.
    pub ir_version: i64,
    /// Narrowest type of its terms: `INT2`, `INT4` or `INT8`.
    pub storage: &'static str,
    /// Why the terms are stored wider than they need be: the node that keeps the operator set low.
    pub note: Option<String>,
}

/// A form of the terms, and what it asks of the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form {
    /// Narrowest type a digit is stored in.
    pub bits: u32,
    pub opset: i64,
    pub ir_version: i64,
    /// DequantizeLinear, or else Mul and Cast.
    pub dequantize: bool,
}

/// From the narrowest to the one that any model takes.
const FORMS: [Form; 4] = [
    Form { bits: 2, opset: 25, ir_version: 13, dequantize: true },
    Form { bits: 4, opset: 21, ir_version: 10, dequantize: true },
    Form { bits: 8, opset: 13, ir_version: 4, dequantize: true },
    Form { bits: 8, opset: 7, ir_version: 4, dequantize: false },
];

/// Scales in blocks need the operator set of INT4, whatever type their terms have.
const BLOCKS: Form = FORMS[1];

/// Version of the intermediate representation that has sparse initialisers.
const SPARSE_IR: i64 = 5;

/// Largest file protobuf can be.
const MAX_BYTES: u64 = (1 << 31) - 1;

/// Writes `model` with the weights of `layers` replaced by their terms; a layer of the model that is not among them stays
/// as it is. Where one file cannot hold it, large tensors go to a second one beside it, `<name>.data`.
///
/// The files appear whole or not at all: they are written beside their place, synced and renamed. Tensors are streamed, so
/// that no more than one of them is in memory beside `model` and `layers`.
///
/// # Errors
/// [`Error::Write`], [`Error::ExternalData`] and, where layers have scales in blocks, [`Error::Blocks`]; then nothing is left
/// behind and existing files are untouched.
///
/// # Panics
/// If an encoded layer is none of the model's: a mistake of the caller.
pub fn write(model: &Model, layers: &[EncodedLayer], path: &Path) -> Result<Written, Error> {
    write_within(model, layers, path, MAX_BYTES)
}

/// What [`write()`] would write to `path`, where nothing is changed.
///
/// # Errors
/// Those of [`write()`] that need no writing.
pub fn preview(model: &Model, layers: &[EncodedLayer], path: &Path) -> Result<Written, Error> {
    assemble(model, layers, path, MAX_BYTES, &|_, _| Ok(()))
}

/// [`write()`] with another limit on the size of one file; for tests.
///
/// # Errors
/// As [`write()`].
#[doc(hidden)]
pub fn write_within(model: &Model, layers: &[EncodedLayer], path: &Path, limit: u64) -> Result<Written, Error> {
    assemble(model, layers, path, limit, &|parts, outside| match outside {
        Some((place, outside)) => persist(path, &|to| parts.write(to), Some((place, &|to| outside.write(to)))),
        None => persist(path, &|to| parts.write(to), None),
    })
}

/// What becomes of an artefact's file and of the one beside it.
type Keep<'a> = dyn Fn(&Parts, Option<(&Path, &Outside)>) -> io::Result<()> + 'a;

/// Takes the model's artefact apart for files of at most `limit` bytes, and `keep`s it.
fn assemble(model: &Model, layers: &[EncodedLayer], path: &Path, limit: u64, keep: &Keep) -> Result<Written, Error> {
    let made = artefact(model, layers);
    let Artefact { proto, form, note, terms } =
        made.map_err(|obstacle| Error::Blocks { path: path.to_owned(), reason: cause(&obstacle) })?;
    let failed = |source| of_stream(source, |source| Error::Write { path: path.to_owned(), source });
    let (opset, ir_version) = (check::opset(&proto).unwrap_or(0), proto.ir_version.unwrap_or(0));
    let mut parts = Parts::new(proto, |tensor| match terms.get(tensor.name()) {
        Some(term) => Ok(Some(term.clone())),
        None => model.elsewhere(tensor),
    })?;
    let mut data = None;
    let mut bytes = parts.len();
    if bytes > limit {
        let (place, location) = beside(path).map_err(failed)?;
        let outside = parts.move_out(&location);
        if parts.len() > MAX_BYTES {
            return Err(failed(io::Error::other("its graph alone is beyond 2 GiB, which protobuf cannot hold")));
        }
        bytes = parts.len() + outside.bytes;
        keep(&parts, Some((&place, &outside))).map_err(failed)?;
        data = Some(place);
    } else {
        keep(&parts, None).map_err(failed)?;
    }
    let narrowest = layers.iter().map(|layer| layer.storage.max(form.bits)).min().unwrap_or(8);
    let storage = match narrowest {
        2 => "INT2",
        4 => "INT4",
        _ => "INT8",
    };
    Ok(Written { bytes, data, opset, ir_version, storage, note })
}

/// The file of tensors beside an artefact, and its name.
fn beside(path: &Path) -> io::Result<(PathBuf, String)> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name =
        name.ok_or_else(|| io::Error::other("its name is not in Unicode, as ONNX needs it for a second file"))?;
    let location = format!("{name}.data");
    Ok((path.with_file_name(&location), location))
}

/// An artefact whose terms are yet to be packed.
struct Artefact<'a> {
    proto: ModelProto,
    /// The form its terms take.
    form: Form,
    /// Why not a narrower one.
    note: Option<String>,
    /// The data of its terms, by name.
    terms: HashMap<String, Data<'a>>,
}

fn artefact<'a>(model: &'a Model, layers: &'a [EncodedLayer]) -> Result<Artefact<'a>, Unraisable> {
    let by_name: HashMap<&str, &EncodedLayer> = layers.iter().map(|layer| (layer.name.as_str(), layer)).collect();
    let encoded: Vec<Option<&EncodedLayer>> =
        model.plans.iter().map(|plan| by_name.get(plan.name.as_str()).copied()).collect();
    assert_eq!(encoded.iter().flatten().count(), layers.len(), "every encoded layer is one of the model's");
    for (plan, layer) in model.plans.iter().zip(&encoded) {
        assert!(layer.is_none_or(|l| l.geometry == plan.geometry), "the layer {} has another geometry", plan.name);
    }
    let narrowest = layers.iter().map(|layer| layer.storage).min().unwrap_or(8);
    let (mut proto, names) = stripped(model, &encoded);
    let blocked = layers.iter().any(|layer| layer.block.is_some());
    let (form, obstacle) = if layers.is_empty() { (FORMS[3], None) } else { lift(&mut proto, narrowest, blocked)? };
    let is_sparse = !form.dequantize && layers.iter().any(|layer| !layer.saturation.is_empty());
    let ir_version = if is_sparse { form.ir_version.max(SPARSE_IR) } else { form.ir_version };
    proto.ir_version = Some(proto.ir_version.unwrap_or(0).max(ir_version));
    let terms = add_terms(&mut proto, model, &encoded, &names, form);
    proto.metadata_props = metadata(model, &encoded);
    let note = obstacle.map(|unraisable| note(&unraisable, form, check::opset(&proto).unwrap_or(0)));
    Ok(Artefact { proto, form, note, terms })
}

fn note(unraisable: &Unraisable, form: Form, opset: i64) -> String {
    format!("terms are stored as INT{} in operator set {opset}: {}", form.bits, cause(unraisable))
}

/// The node that keeps the operator set low, and why.
fn cause(unraisable: &Unraisable) -> String {
    let node = match (unraisable.node.as_str(), unraisable.op_type.as_str()) {
        ("", "") => "the model".to_owned(),
        (node, op) => format!("node {} ({})", shown(node), shown(op)),
    };
    let reason = unraisable.reason.escape_debug();
    format!("{node} cannot be raised, {reason}")
}

/// Raises a model to the narrowest form it can take; says what kept it from a narrower one. `Err` where terms in blocks keep
/// it from all.
fn lift(proto: &mut ModelProto, narrowest: u32, blocked: bool) -> Result<(Form, Option<Unraisable>), Unraisable> {
    let mut obstacle = None;
    for mut form in FORMS.into_iter().filter(|form| form.bits >= narrowest && (form.dequantize || !blocked)) {
        if blocked && form.opset < BLOCKS.opset {
            (form.opset, form.ir_version) = (BLOCKS.opset, BLOCKS.ir_version);
        }
        if check::opset(proto).is_some_and(|opset| opset >= form.opset) {
            return Ok((form, obstacle));
        }
        match raise(proto, form.opset) {
            Ok(()) => return Ok((form, obstacle)),
            Err(unraisable) => _ = obstacle.get_or_insert(unraisable),
        }
    }
    match obstacle {
        Some(obstacle) if blocked => Err(obstacle),
        obstacle => Ok((FORMS[3], obstacle)),
    }
}

/// The model with each encoded layer reading a weight that is not there yet.
fn stripped(model: &Model, encoded: &[Option<&EncodedLayer>]) -> (ModelProto, Names) {
    let turns = Turns::new(model, |i| encoded[i].is_some());
    let (graph, names) = rebuild_named(model, |i, plan, names| {
        let layer = encoded[i]?;
        let build = |x: &str, y: &str| layer_nodes(&turns, plan, layer.bias.is_some(), i, names, [x, y]);
        Some(in_float(plan, i, names, build))
    });
    (made_of(model, graph), names)
}

/// A model of ours with this graph, and all else as in `model`.
pub(crate) fn made_of(model: &Model, graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: model.proto.ir_version,
        opset_import: model.proto.opset_import.clone(),
        producer_name: Some("fpxint".to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        domain: model.proto.domain.clone(),
        model_version: model.proto.model_version,
        doc_string: model.proto.doc_string.clone(),
        graph: Some(graph),
        functions: model.proto.functions.clone(),
        ..ModelProto::default()
    }
}

/// The node itself with the folded bias, and before it what turns its input; a MatMul adds the bias afterwards.
pub(crate) fn layer_nodes(
    turns: &Turns<'_>,
    plan: &Plan,
    has_bias: bool,
    i: usize,
    names: &Names,
    [x, y]: [&str; 2],
) -> Vec<NodeProto> {
    let bias = has_bias.then(|| names.of(i, "bias"));
    let (mut nodes, x) = turns.plain(i, names, x);
    let mut node = turns.model.graph().node[plan.node].clone();
    node.name = Some(plan.name.clone());
    node.input = vec![x, names.of(i, "weight")];
    node.output = vec![y.to_owned()];
    node.attribute.retain(|a| !(plan.op_type == "Gemm" && matches!(a.name.as_deref(), Some("alpha" | "beta"))));
    match bias {
        Some(bias) if plan.op_type == "MatMul" => {
            let product = names.of(i, "product");
            node.output = vec![product.clone()];
            let mut add = make("", "Add", &[&product, &bias], y);
            add.name = Some(bias);
            nodes.extend([node, add]);
        }
        bias => {
            node.input.extend(bias);
            nodes.push(node);
        }
    }
    nodes
}

/// The model's own metadata, then ours in order of the layers.
fn metadata(model: &Model, encoded: &[Option<&EncodedLayer>]) -> Vec<StringStringEntryProto> {
    let entry = |key: String, value: String| StringStringEntryProto { key: Some(key), value: Some(value) };
    let foreign = |e: &&StringStringEntryProto| {
        e.key.as_deref().is_none_or(|key| key != VERSION_KEY && key != ATTENTION_KEY && !key.starts_with(LAYER_KEY))
    };
    let mut entries: Vec<_> = model.proto.metadata_props.iter().filter(foreign).cloned().collect();
    entries.push(entry(VERSION_KEY.to_owned(), VERSION.to_string()));
    entries.extend(model.attention().map(|attention| entry(ATTENTION_KEY.to_owned(), attention.to_string())));
    for (i, layer) in encoded.iter().enumerate().filter_map(|(i, layer)| Some((i, (*layer)?))) {
        let record = Record {
            name: layer.name.clone(),
            weights: layer.weights.to_string(),
            activations: layer.activations.to_string(),
            bounds: layer.bounds.clone(),
            means: layer.means.clone(),
            activation_clip: Some(layer.activation_clip)
                .filter(|clip| *clip != ActivationClip::None)
                .map(|clip| clip.name().to_owned()),
            rounding: Some(layer.rounding).filter(|r| *r != Rounding::Nearest).map(|r| r.name().to_owned()),
        };
        let json = serde_json::to_string(&record).expect("a record of strings and numbers is JSON");
        entries.push(entry(format!("{LAYER_KEY}{i:05}"), json));
    }
    entries
}
