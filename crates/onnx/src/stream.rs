//! A model as a stream of protobuf: the bytes that encoding it whole would give, with the data of initialisers produced one
//! tensor at a time.
//!
//! ```text
//! model head | key, length | nodes, name | initialiser: head, raw_data, tail | .. | rest of the graph | model tail
//! ```
//!
//! Protobuf fields are encoded by number, so everything before and after `graph` and `raw_data` is a message of its own.
//! Data may instead go to a file beside the model, each tensor at a multiple of [`ALIGNMENT`].

use std::io::{self, Write};
use std::mem::take;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len, message};

use crate::encode::Terms;
use crate::external::Place;
use crate::proto::tensor_proto::DataLocation;
use crate::proto::{GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto};
use crate::tensor;

/// Multiple at which tensors begin in a file beside the model: a page, as ONNX recommends.
pub(crate) const ALIGNMENT: u64 = 4096;
/// Least size of a tensor that leaves the model.
const MIN_OUTSIDE: u64 = 1 << 10;

const GRAPH: u32 = 7;
const NODE: u32 = 1;
const INITIALISER: u32 = 5;
const RAW_DATA: u32 = 9;

/// Data of an initialiser.
#[derive(Debug, Clone)]
pub(crate) enum Data<'a> {
    /// In memory.
    Held(Bytes),
    /// Term `term` of a layer, packed in `bits`.
    Term { terms: Arc<Terms<'a>>, term: usize, bits: u32 },
    /// In another file.
    Elsewhere(Place),
}

impl Data<'_> {
    fn len(&self) -> u64 {
        match self {
            Self::Held(bytes) => bytes.len() as u64,
            Self::Term { terms, bits, .. } => terms.len(*bits) as u64,
            Self::Elsewhere(place) => place.length,
        }
    }

    fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Held(bytes) => to.write_all(bytes),
            Self::Term { terms, term, bits } => to.write_all(&terms.packed(*term, *bits)?),
            Self::Elsewhere(place) => place.copy(to),
        }
    }
}

/// An initialiser: the fields before `raw_data`, that, and the fields after it.
struct Initialiser<'a> {
    head: TensorProto,
    data: Option<Data<'a>>,
    tail: TensorProto,
}

/// A model taken apart.
pub(crate) struct Parts<'a> {
    head: ModelProto,
    nodes: Vec<NodeProto>,
    name: GraphProto,
    initialisers: Vec<Initialiser<'a>>,
    rest: GraphProto,
    tail: ModelProto,
}

/// Tensors that left a model, with the offset of each.
pub(crate) struct Outside<'a> {
    tensors: Vec<(u64, Data<'a>)>,
    /// Size of the file.
    pub bytes: u64,
}

impl<'a> Parts<'a> {
    /// Takes a model apart. `produce` gives the data of initialisers that do not hold theirs.
    pub fn new<E>(
        mut proto: ModelProto,
        mut produce: impl FnMut(&TensorProto) -> Result<Option<Data<'a>>, E>,
    ) -> Result<Self, E> {
        let mut graph = proto.graph.take().unwrap_or_default();
        let tail = ModelProto {
            opset_import: take(&mut proto.opset_import),
            metadata_props: take(&mut proto.metadata_props),
            training_info: take(&mut proto.training_info),
            functions: take(&mut proto.functions),
            configuration: take(&mut proto.configuration),
            ..ModelProto::default()
        };
        let mut initialisers = Vec::with_capacity(graph.initializer.len());
        for mut head in take(&mut graph.initializer) {
            let produced = produce(&head)?;
            if produced.is_some() {
                (head.data_location, head.external_data) = (None, Vec::new());
            }
            let data = produced.or_else(|| head.raw_data.take().map(Data::Held));
            let tail = TensorProto {
                double_data: take(&mut head.double_data),
                uint64_data: take(&mut head.uint64_data),
                doc_string: head.doc_string.take(),
                external_data: take(&mut head.external_data),
                data_location: head.data_location.take(),
                metadata_props: take(&mut head.metadata_props),
                ..TensorProto::default()
            };
            initialisers.push(Initialiser { head, data, tail });
        }
        let nodes = take(&mut graph.node);
        let name = GraphProto { name: graph.name.take(), ..GraphProto::default() };
        Ok(Self { head: proto, nodes, name, initialisers, rest: graph, tail })
    }

    /// Size of the model.
    pub fn len(&self) -> u64 {
        let around = self.head.encoded_len() + self.tail.encoded_len();
        around as u64 + field_len(GRAPH, self.graph_len())
    }

    fn graph_len(&self) -> u64 {
        let nodes = message::encoded_len_repeated(NODE, &self.nodes);
        let around = nodes + self.name.encoded_len() + self.rest.encoded_len();
        around as u64 + self.initialisers.iter().map(|t| field_len(INITIALISER, t.len())).sum::<u64>()
    }

    /// Writes the model.
    pub fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(&self.head.encode_to_vec())?;
        open_field(GRAPH, self.graph_len(), to)?;
        for node in &self.nodes {
            open_field(NODE, node.encoded_len() as u64, to)?;
            to.write_all(&node.encode_to_vec())?;
        }
        to.write_all(&self.name.encode_to_vec())?;
        for initialiser in &self.initialisers {
            open_field(INITIALISER, initialiser.len(), to)?;
            initialiser.write(to)?;
        }
        to.write_all(&self.rest.encode_to_vec())?;
        to.write_all(&self.tail.encode_to_vec())
    }

    /// Moves all large tensors to a file beside the model, called `location`.
    pub fn move_out(&mut self, location: &str) -> Outside<'a> {
        let mut outside = Outside { tensors: Vec::new(), bytes: 0 };
        for initialiser in &mut self.initialisers {
            let data = match initialiser.data.take() {
                Some(data) => data,
                None => match initialiser.typed_data() {
                    Some(data) => data,
                    None => continue,
                },
            };
            if data.len() < MIN_OUTSIDE {
                initialiser.data = Some(data);
                continue;
            }
            let offset = outside.bytes.next_multiple_of(ALIGNMENT);
            let entry =
                |key: &str, value: String| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) };
            initialiser.tail.external_data = vec![
                entry("location", location.to_owned()),
                entry("offset", offset.to_string()),
                entry("length", data.len().to_string()),
            ];
            initialiser.tail.data_location = Some(DataLocation::External as i32);
            outside.bytes = offset + data.len();
            outside.tensors.push((offset, data));
        }
        outside
    }
}

impl Initialiser<'_> {
    fn len(&self) -> u64 {
        let data = self.data.as_ref().map_or(0, |data| field_len(RAW_DATA, data.len()));
        (self.head.encoded_len() + self.tail.encoded_len()) as u64 + data
    }

    fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(&self.head.encode_to_vec())?;
        if let Some(data) = &self.data {
            open_field(RAW_DATA, data.len(), to)?;
            data.write(to)?;
        }
        to.write_all(&self.tail.encode_to_vec())
    }

    /// Takes large data out of the typed fields; `None` leaves them.
    fn typed_data(&mut self) -> Option<Data<'static>> {
        if tensor::byte_len(&self.head)? < MIN_OUTSIDE {
            return None;
        }
        let double_data = take(&mut self.tail.double_data);
        let typed = TensorProto { double_data, ..self.head.clone() };
        let Some(raw) = tensor::raw_of_typed(&typed) else {
            self.tail.double_data = typed.double_data;
            return None;
        };
        (self.head.float_data, self.head.int64_data) = (Vec::new(), Vec::new());
        self.head.int32_data = Vec::new();
        Some(Data::Held(raw.into()))
    }
}

impl Outside<'_> {
    /// Writes the file beside the model.
    pub fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        let mut at = 0;
        for (offset, data) in &self.tensors {
            to.write_all(&vec![0; (offset - at) as usize])?;
            data.write(to)?;
            at = offset + data.len();
        }
        Ok(())
    }
}

/// Size of a field whose value has `length` bytes.
fn field_len(tag: u32, length: u64) -> u64 {
    (key_len(tag) + encoded_len_varint(length)) as u64 + length
}

fn open_field(tag: u32, length: u64, to: &mut dyn Write) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(16);
    encode_key(tag, WireType::LengthDelimited, &mut bytes);
    encode_varint(length, &mut bytes);
    to.write_all(&bytes)
}
