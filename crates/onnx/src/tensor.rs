//! `TensorProto`: checks of dimensions and length, and decoding of numbers.

use bytes::Bytes;
use fpxint::packed_len;
use half::{bf16, f16};

use crate::error::shown;
use crate::external::{External, fault, is_external};
use crate::proto::{TensorProto, tensor_proto::DataType};
use crate::{Error, Limits};

/// Bits of one element; `None` for strings and types that fpxint does not know.
fn element_bits(dtype: DataType) -> Option<u64> {
    use DataType::*;
    Some(match dtype {
        Int2 | Uint2 => 2,
        Int4 | Uint4 | Float4e2m1 => 4,
        Bool | Int8 | Uint8 | Float8e4m3fn | Float8e4m3fnuz | Float8e5m2 | Float8e5m2fnuz | Float8e8m0 => 8,
        Int16 | Uint16 | Float16 | Bfloat16 => 16,
        Float | Int32 | Uint32 => 32,
        Double | Int64 | Uint64 | Complex64 => 64,
        Complex128 => 128,
        _ => return None,
    })
}

/// The data type, where ONNX has it.
pub(crate) fn data_type(tensor: &TensorProto) -> Option<DataType> {
    DataType::try_from(tensor.data_type.unwrap_or(0)).ok()
}

/// Text of a data type for a message.
pub(crate) fn type_name(dtype: i32) -> String {
    DataType::try_from(dtype).map_or_else(|_| format!("{dtype}"), |known| known.as_str_name().to_owned())
}

/// A type whose values are weights: FLOAT, FLOAT16, BFLOAT16, DOUBLE.
pub(crate) fn is_float(dtype: i32) -> bool {
    use DataType::*;
    matches!(DataType::try_from(dtype), Ok(Float | Float16 | Bfloat16 | Double))
}

/// Dimensions as sizes; `check` has passed.
pub(crate) fn shape(tensor: &TensorProto) -> Vec<usize> {
    tensor.dims.iter().map(|&d| d as usize).collect()
}

/// Bytes that the data of a tensor take when they are not in a typed field; `None` for strings, types that fpxint does
/// not know, and impossible dimensions.
pub(crate) fn byte_len(tensor: &TensorProto) -> Option<u64> {
    let elements = tensor.dims.iter().try_fold(1u64, |n, &d| n.checked_mul(u64::try_from(d).ok()?))?;
    Some(elements.checked_mul(element_bits(data_type(tensor)?)?)?.div_ceil(8))
}

/// Whether a tensor holds data of any kind.
pub(crate) fn holds_data(tensor: &TensorProto) -> bool {
    let typed = [tensor.float_data.len(), tensor.int32_data.len(), tensor.int64_data.len(), tensor.double_data.len()];
    let others = [tensor.uint64_data.len(), tensor.string_data.len()];
    raw(tensor).is_some() || typed.into_iter().chain(others).any(|len| len > 0)
}

/// Checks the place, dimensions and length of a tensor, without decoding it. `external` is there for tensors whose data
/// may lie in other files.
pub(crate) fn check(
    tensor: &TensorProto,
    name: &str,
    file: &str,
    limits: &Limits,
    external: Option<&External>,
) -> Result<(), Error> {
    let elements = check_dimensions(tensor, name, file, limits)?;
    if is_external(tensor) {
        let Some(external) = external else {
            let reason = "only initialisers of a model that is read from a file may lie in files of its folder";
            return Err(fault(tensor, name, file, reason));
        };
        let Some(expected) = byte_len(tensor) else {
            let reason = format!("data of type {} are not read from a file", type_name(tensor.data_type.unwrap_or(0)));
            return Err(fault(tensor, name, file, reason));
        };
        return external.place(tensor, expected).map(|_| ());
    }
    let Some(dtype) = data_type(tensor) else { return Ok(()) };
    let Some(bits) = element_bits(dtype) else { return Ok(()) };
    let (expected, found, unit) = match raw(tensor) {
        Some(raw) => (elements.saturating_mul(bits).div_ceil(8), raw.len() as u64, "bytes"),
        None => typed_lengths(tensor, dtype, elements),
    };
    if expected != found {
        return Err(Error::Truncated { file: file.to_owned(), tensor: shown(name), expected, found, unit });
    }
    Ok(())
}

/// The number of elements.
fn check_dimensions(tensor: &TensorProto, name: &str, file: &str, limits: &Limits) -> Result<u64, Error> {
    let (file, tensor_name) = (file.to_owned(), || shown(name));
    let product = tensor.dims.iter().try_fold(1u64, |product, &d| product.checked_mul(u64::try_from(d).ok()?));
    // A zero dimension must not hide others that overflow.
    let sizes = tensor.dims.iter().try_fold(1u64, |product, &d| product.checked_mul(u64::try_from(d).ok()?.max(1)));
    let (Some(elements), Some(_)) = (product, sizes) else {
        let mut dims = format!("{:?}", &tensor.dims[..tensor.dims.len().min(8)]);
        if tensor.dims.len() > 8 {
            dims.push_str(" ..");
        }
        return Err(Error::Dimension { file, tensor: tensor_name(), dims });
    };
    if elements > limits.max_tensor_elements {
        let what = format!("tensor {} of {elements} elements", tensor_name());
        return Err(Error::Limit { file, what, limit: limits.max_tensor_elements });
    }
    Ok(elements)
}

/// Values needed and found in the typed field that a data type uses.
fn typed_lengths(tensor: &TensorProto, dtype: DataType, elements: u64) -> (u64, u64, &'static str) {
    use DataType::*;
    let (expected, found) = match dtype {
        Float => (elements, tensor.float_data.len()),
        Complex64 => (elements.saturating_mul(2), tensor.float_data.len()),
        Double => (elements, tensor.double_data.len()),
        Complex128 => (elements.saturating_mul(2), tensor.double_data.len()),
        Int64 => (elements, tensor.int64_data.len()),
        Uint32 | Uint64 => (elements, tensor.uint64_data.len()),
        Int4 | Uint4 | Float4e2m1 => (elements.div_ceil(2), tensor.int32_data.len()),
        Int2 | Uint2 => (elements.div_ceil(4), tensor.int32_data.len()),
        _ => (elements, tensor.int32_data.len()),
    };
    (expected, found as u64, "values")
}

fn raw(tensor: &TensorProto) -> Option<&[u8]> {
    tensor.raw_data.as_deref().filter(|raw| !raw.is_empty())
}

/// The data type of a tensor whose data are in the model.
fn present(tensor: &TensorProto) -> Option<DataType> {
    data_type(tensor).filter(|_| !is_external(tensor))
}

/// The typed data of a tensor as `raw_data` would hold them. `None` for all but the commonest types.
pub(crate) fn raw_of_typed(tensor: &TensorProto) -> Option<Vec<u8>> {
    let raw: Vec<u8> = match present(tensor)? {
        DataType::Float => tensor.float_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DataType::Double => tensor.double_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DataType::Int64 => tensor.int64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DataType::Int32 => tensor.int32_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DataType::Float16 | DataType::Bfloat16 => {
            tensor.int32_data.iter().flat_map(|&v| (v as u16).to_le_bytes()).collect()
        }
        _ => return None,
    };
    (byte_len(tensor) == Some(raw.len() as u64)).then_some(raw)
}

/// Values of a float tensor in f32: FLOAT16 and BFLOAT16 exactly, DOUBLE rounded. `None` for another type.
pub(crate) fn floats(tensor: &TensorProto) -> Option<Vec<f32>> {
    let half_bits = |&v: &i32| v as u16;
    Some(match (present(tensor)?, raw(tensor)) {
        (DataType::Float, Some(raw)) => words(raw, f32::from_le_bytes),
        (DataType::Float, None) => tensor.float_data.clone(),
        (DataType::Float16, Some(raw)) => words(raw, |b| f16::from_le_bytes(b).to_f32()),
        (DataType::Float16, None) => tensor.int32_data.iter().map(|v| f16::from_bits(half_bits(v)).to_f32()).collect(),
        (DataType::Bfloat16, Some(raw)) => words(raw, |b| bf16::from_le_bytes(b).to_f32()),
        (DataType::Bfloat16, None) => {
            tensor.int32_data.iter().map(|v| bf16::from_bits(half_bits(v)).to_f32()).collect()
        }
        (DataType::Double, Some(raw)) => words(raw, |b| f64::from_le_bytes(b) as f32),
        (DataType::Double, None) => tensor.double_data.iter().map(|&v| v as f32).collect(),
        _ => return None,
    })
}

/// Values of a float tensor in f64, all types exactly.
pub(crate) fn doubles(tensor: &TensorProto) -> Option<Vec<f64>> {
    match (present(tensor)?, raw(tensor)) {
        (DataType::Double, Some(raw)) => Some(words(raw, f64::from_le_bytes)),
        (DataType::Double, None) => Some(tensor.double_data.clone()),
        _ => Some(floats(tensor)?.into_iter().map(f64::from).collect()),
    }
}

/// Values of an INT64, INT32 or INT8 tensor.
pub(crate) fn integers(tensor: &TensorProto) -> Option<Vec<i64>> {
    Some(match (present(tensor)?, raw(tensor)) {
        (DataType::Int64, Some(raw)) => words(raw, i64::from_le_bytes),
        (DataType::Int64, None) => tensor.int64_data.clone(),
        (DataType::Int32, Some(raw)) => words(raw, |b| i64::from(i32::from_le_bytes(b))),
        (DataType::Int8, Some(raw)) => raw.iter().map(|&b| i64::from(b as i8)).collect(),
        (DataType::Int32 | DataType::Int8, None) => tensor.int32_data.iter().map(|&v| i64::from(v)).collect(),
        _ => return None,
    })
}

/// Bits in which a tensor of term digits is stored: INT2, INT4 or INT8.
pub(crate) fn digit_bits(tensor: &TensorProto) -> Option<u32> {
    match data_type(tensor)? {
        DataType::Int2 => Some(2),
        DataType::Int4 => Some(4),
        DataType::Int8 => Some(8),
        _ => None,
    }
}

/// The packed digits of an INT2, INT4 or INT8 tensor of `len` elements, and the bits of each.
pub(crate) fn packed_digits(tensor: &TensorProto, len: usize) -> Option<(Bytes, u32)> {
    let bits = digit_bits(tensor).filter(|_| !is_external(tensor))?;
    let bytes = match &tensor.raw_data {
        Some(raw) if !raw.is_empty() => raw.clone(),
        _ => tensor.int32_data.iter().map(|&v| v as u8).collect(),
    };
    (bytes.len() == packed_len(len, bits)).then_some((bytes, bits))
}

fn words<const N: usize, T>(raw: &[u8], decode: impl Fn([u8; N]) -> T) -> Vec<T> {
    raw.as_chunks::<N>().0.iter().map(|&chunk| decode(chunk)).collect()
}
