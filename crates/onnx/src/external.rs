//! Initialisers whose data lie in other files of the model's folder.
//!
//! A tensor names its file, and optionally offset and length, in `external_data`. Place and size are checked when the model
//! is read; the data are read when they are needed. Vectors (bias, scales, shapes) are taken into the graph at once,
//! because finding the layers looks at them; they are a small part of any model.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

use crate::constants::Constant;
use crate::error::shown;
use crate::proto::tensor_proto::DataLocation;
use crate::proto::{GraphProto, ModelProto, TensorProto};
use crate::{Error, Limits, tensor};

/// Longest vector that is taken into the graph when it is read, in bytes.
const MAX_VECTOR: u64 = 1 << 24;

/// A file that tensors lie in.
#[derive(Debug, Clone)]
struct Known {
    path: PathBuf,
    bytes: u64,
}

/// The files that a model's tensors lie in.
#[derive(Debug, Clone)]
pub(crate) struct External {
    /// The model's file, for messages.
    file: String,
    folder: PathBuf,
    /// By location, as tensors spell it.
    files: HashMap<String, Known>,
}

/// Where the data of a tensor lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The model's file, the tensor's name and the location, for messages.
    names: [String; 3],
    path: PathBuf,
    offset: u64,
    /// Number of bytes.
    pub length: u64,
}

/// What a tensor says of its place.
struct Entries<'a> {
    location: &'a str,
    offset: u64,
    length: Option<u64>,
}

/// Whether a tensor says that its data lie elsewhere.
pub(crate) fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location == Some(DataLocation::External as i32) || !tensor.external_data.is_empty()
}

/// The error for a tensor whose data cannot be had.
pub(crate) fn fault(tensor: &TensorProto, name: &str, file: &str, reason: impl Into<String>) -> Error {
    let location = tensor.external_data.iter().find(|entry| entry.key.as_deref() == Some("location"));
    Error::ExternalData {
        file: file.to_owned(),
        tensor: shown(name),
        data: shown(location.and_then(|entry| entry.value.as_deref()).unwrap_or("")),
        reason: reason.into(),
    }
}

fn entries(tensor: &TensorProto) -> Result<Entries<'_>, String> {
    if tensor.data_location != Some(DataLocation::External as i32) {
        return Err("its data_location is not EXTERNAL".to_owned());
    }
    if tensor::holds_data(tensor) {
        return Err("the model holds data for it as well".to_owned());
    }
    let value = |key: &str| {
        let mut found = tensor.external_data.iter().filter(|entry| entry.key.as_deref() == Some(key));
        match (found.next(), found.next()) {
            (_, Some(_)) => Err(format!("its {key} is stated twice")),
            (entry, None) => Ok(entry.map(|entry| entry.value.as_deref().unwrap_or(""))),
        }
    };
    let number = |key: &str| match value(key)? {
        Some(text) => text.parse().map(Some).map_err(|_| format!("its {key} {} is no number", shown(text))),
        None => Ok(None),
    };
    let location = value("location")?.ok_or("its location is not stated")?;
    Ok(Entries { location, offset: number("offset")?.unwrap_or(0), length: number("length")? })
}

/// Bytes of a checked model and of what its tensors take in other files; files that tensors share count for each.
pub(crate) fn total(model: &ModelProto, own: usize) -> u64 {
    let tensors = model.graph.iter().flat_map(|graph| &graph.initializer).filter(|tensor| is_external(tensor));
    tensors.filter_map(tensor::byte_len).fold(own as u64, u64::saturating_add)
}

impl External {
    /// Finds the files of a graph's initialisers; `None` where they have none.
    pub fn find(graph: &GraphProto, folder: &Path, file: &str) -> Result<Option<Self>, Error> {
        let mut files = HashMap::new();
        let mut root = None;
        for tensor in graph.initializer.iter().filter(|tensor| is_external(tensor)) {
            let fail = |reason: String| fault(tensor, tensor.name(), file, reason);
            let location = entries(tensor).map_err(fail)?.location;
            if files.contains_key(location) {
                continue;
            }
            let root: &PathBuf = match &mut root {
                Some(root) => root,
                none => none.insert(fs::canonicalize(folder).map_err(|e| fail(one_line(&e)))?),
            };
            files.insert(location.to_owned(), resolve(root, location).map_err(fail)?);
        }
        Ok(root.map(|folder| Self { file: file.to_owned(), folder, files }))
    }

    /// The model's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The files, in order.
    pub fn paths(&self) -> Vec<&Path> {
        let mut paths: Vec<_> = self.files.values().map(|known| known.path.as_path()).collect();
        paths.sort_unstable();
        paths.dedup();
        paths
    }

    /// Size of all the files.
    pub fn bytes(&self) -> u64 {
        let files: HashMap<&Path, u64> = self.files.values().map(|known| (known.path.as_path(), known.bytes)).collect();
        files.values().sum()
    }

    /// The place of a tensor that needs `expected` bytes.
    pub fn place(&self, tensor: &TensorProto, expected: u64) -> Result<Place, Error> {
        let fail = |reason: String| fault(tensor, tensor.name(), &self.file, reason);
        let entries = entries(tensor).map_err(fail)?;
        let known = self.files.get(entries.location).ok_or_else(|| fail("it is not known".to_owned()))?;
        let length = entries.length.unwrap_or(expected);
        if length != expected {
            return Err(fail(format!("its length {length} is not the {expected} bytes its dimensions need")));
        }
        if entries.offset.checked_add(length).is_none_or(|end| end > known.bytes) {
            let (offset, bytes) = (entries.offset, known.bytes);
            return Err(fail(format!(
                "{length} bytes at {offset} go beyond the {bytes} of the file, which is cut off"
            )));
        }
        let names = [self.file.clone(), shown(tensor.name()), shown(entries.location)];
        Ok(Place { names, path: known.path.clone(), offset: entries.offset, length })
    }

    /// Reads the data of a tensor.
    fn read(&self, tensor: &TensorProto) -> Result<Bytes, Error> {
        let place = self.place(tensor, tensor::byte_len(tensor).unwrap_or(0))?;
        let mut bytes = Vec::new();
        let length = usize::try_from(place.length).map_err(|e| place.fault(&e))?;
        bytes.try_reserve_exact(length).map_err(|e| place.fault(&e))?;
        place.copy(&mut bytes).map_err(|e| of_stream(e, |e| place.fault(&e)))?;
        Ok(bytes.into())
    }

    /// The tensor with its data.
    fn load(&self, tensor: &TensorProto) -> Result<TensorProto, Error> {
        let raw_data = Some(self.read(tensor)?);
        Ok(TensorProto { raw_data, data_location: None, external_data: Vec::new(), ..tensor.clone() })
    }

    /// Takes the vectors of a checked graph into it.
    pub fn take_vectors(&self, graph: &mut GraphProto, limits: &Limits) -> Result<(), Error> {
        let mut total = 0u64;
        for tensor in graph.initializer.iter_mut().filter(|tensor| is_external(tensor)) {
            let is_vector = tensor.dims.iter().filter(|&&dim| dim > 1).count() <= 1;
            let length = tensor::byte_len(tensor).unwrap_or(0);
            if !is_vector || length > MAX_VECTOR {
                continue;
            }
            total += length;
            if total > limits.max_file_bytes {
                let (file, what) = (self.file.clone(), "the size of vectors in other files in bytes".to_owned());
                return Err(Error::Limit { file, what, limit: limits.max_file_bytes });
            }
            *tensor = self.load(tensor)?;
        }
        Ok(())
    }
}

/// A constant with its numbers in memory: itself, or the one tensor read from its file.
pub(crate) fn held<'a>(
    external: Option<&External>,
    graph: &'a GraphProto,
    constant: &'a Constant,
) -> Result<(Cow<'a, GraphProto>, Cow<'a, Constant>), Error> {
    match (external, constant.initialiser(graph).filter(|tensor| is_external(tensor))) {
        (Some(external), Some(tensor)) => {
            let alone = GraphProto { initializer: vec![external.load(tensor)?], ..GraphProto::default() };
            Ok((Cow::Owned(alone), Cow::Owned(constant.of_first())))
        }
        _ => Ok((Cow::Borrowed(graph), Cow::Borrowed(constant))),
    }
}

impl Place {
    fn fault(&self, reason: &impl ToString) -> Error {
        let [file, tensor, data] = self.names.clone();
        Error::ExternalData { file, tensor, data, reason: one_line(reason) }
    }

    /// Copies the data, a piece at a time. An error in reading them is an [`Error`] within the [`io::Error`].
    pub fn copy(&self, to: &mut dyn Write) -> io::Result<()> {
        let unread = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::other(self.fault(&"it was cut off after the model was read")),
            _ => io::Error::other(self.fault(&error)),
        };
        let mut file = File::open(&self.path).map_err(unread)?;
        file.seek(SeekFrom::Start(self.offset)).map_err(unread)?;
        let mut piece = vec![0; self.length.min(1 << 20) as usize];
        let mut left = self.length;
        while left > 0 {
            let piece = &mut piece[..left.min(1 << 20) as usize];
            file.read_exact(piece).map_err(unread)?;
            to.write_all(piece)?;
            left -= piece.len() as u64;
        }
        Ok(())
    }
}

/// The error of a stream that [`Place::copy`] is a part of; `other` makes one of any other error.
pub(crate) fn of_stream(error: io::Error, other: impl FnOnce(io::Error) -> Error) -> Error {
    error.downcast::<Error>().unwrap_or_else(other)
}

/// The file at a location below `root`, which is canonical.
fn resolve(root: &Path, location: &str) -> Result<Known, String> {
    let inside = |component| matches!(component, Component::Normal(_) | Component::CurDir);
    if location.is_empty() || !Path::new(location).components().all(inside) {
        return Err("only files in the model's own folder are read".to_owned());
    }
    let path = fs::canonicalize(root.join(location)).map_err(|e| one_line(&e))?;
    if !path.starts_with(root) {
        return Err("it is a link out of the model's folder; put the file itself there".to_owned());
    }
    let metadata = fs::metadata(&path).map_err(|e| one_line(&e))?;
    if !metadata.is_file() {
        return Err("it is not a file".to_owned());
    }
    Ok(Known { path, bytes: metadata.len() })
}

fn one_line(error: &impl ToString) -> String {
    error.to_string().escape_debug().to_string()
}
