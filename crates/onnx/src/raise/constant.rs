//! Constant tensors: making the ones a rewritten node needs, reading the ones a rewriting depends on.

use bytes::Bytes;
use half::{bf16, f16};

use crate::proto::TensorProto;
use crate::proto::tensor_proto::{DataLocation, DataType};

/// An i64 tensor: a scalar for `None`, else one dimension.
pub(super) fn int64(name: String, values: &[i64], scalar: bool) -> TensorProto {
    let raw = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    tensor(name, DataType::Int64, shape(values.len(), scalar), raw)
}

/// An f32 tensor of one dimension.
pub(super) fn float(name: String, values: &[f32]) -> TensorProto {
    let raw = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    tensor(name, DataType::Float, shape(values.len(), false), raw)
}

/// A scalar of a floating type; `None` for any other type.
pub(super) fn scalar(name: String, elem_type: i32, value: f32) -> Option<TensorProto> {
    let elem_type = DataType::try_from(elem_type).ok()?;
    let raw = match elem_type {
        DataType::Float => value.to_le_bytes().to_vec(),
        DataType::Double => f64::from(value).to_le_bytes().to_vec(),
        DataType::Float16 => f16::from_f32(value).to_le_bytes().to_vec(),
        DataType::Bfloat16 => bf16::from_f32(value).to_le_bytes().to_vec(),
        _ => return None,
    };
    Some(tensor(name, elem_type, Vec::new(), raw))
}

fn shape(len: usize, scalar: bool) -> Vec<i64> {
    if scalar { Vec::new() } else { vec![len as i64] }
}

fn tensor(name: String, elem_type: DataType, dims: Vec<i64>, raw: Vec<u8>) -> TensorProto {
    TensorProto {
        name: Some(name),
        data_type: Some(elem_type as i32),
        dims,
        raw_data: Some(Bytes::from(raw)),
        ..TensorProto::default()
    }
}

/// The elements of an f32 tensor of one dimension that is stored in the model itself.
pub(super) fn floats(tensor: &TensorProto) -> Option<Vec<f32>> {
    if tensor.data_type() != DataType::Float as i32 || tensor.data_location() == DataLocation::External {
        return None;
    }
    let values = match &tensor.raw_data {
        None => tensor.float_data.clone(),
        Some(raw) => {
            let (values, []) = raw.as_chunks::<4>() else { return None };
            values.iter().map(|&v| f32::from_le_bytes(v)).collect()
        }
    };
    let &[len] = tensor.dims.as_slice() else { return None };
    (usize::try_from(len) == Ok(values.len())).then_some(values)
}
