//! Samples of a batch on their way between processes: outputs as bytes and back, joined along the batch.
//!
//! ```text
//! number of outputs | name length, name, element, rank, dimensions, data | ..        numbers as u64, little end first
//! ```

use std::ops::Range;

use anyhow::{Context, Result, bail};
use fpxint_runtime::{Outputs, Value};
use ndarray::{ArrayD, Axis, Slice, concatenate};

macro_rules! each_kind {
    ($do:ident) => {
        $do! { F32 f32 0, F64 f64 1, I64 i64 2, I32 i32 3, I8 i8 4, U8 u8 5 }
    };
}

macro_rules! values {
    ($($kind:ident $rust:ident $code:literal),*) => {
        /// Some samples of a value.
        pub(crate) fn samples(value: &Value, range: Range<usize>) -> Value {
            match value {
                $(Value::$kind(a) => Value::$kind(a.slice_axis(Axis(0), Slice::from(range)).to_owned()),)*
                Value::Bool(a) => Value::Bool(a.slice_axis(Axis(0), Slice::from(range)).to_owned()),
            }
        }

        fn code(value: &Value) -> u64 {
            match value {
                $(Value::$kind(_) => $code,)*
                Value::Bool(_) => 6,
            }
        }

        fn decoded(code: u64, shape: &[usize], data: &[u8]) -> Result<Value> {
            Ok(match code {
                $($code => {
                    let values = data.chunks_exact(size_of::<$rust>());
                    let values = values.map(|b| Ok($rust::from_le_bytes(b.try_into()?))).collect::<Result<Vec<_>>>()?;
                    Value::$kind(ArrayD::from_shape_vec(shape, values)?)
                })*
                6 => Value::Bool(ArrayD::from_shape_vec(shape, data.iter().map(|&b| b != 0).collect())?),
                _ => bail!("an output of an unknown type"),
            })
        }

        /// Values that follow each other along the first axis.
        fn joined(parts: &[&Value]) -> Result<Value> {
            match parts.first().context("an output of no parts")? {
                $(Value::$kind(_) => {
                    let all = parts.iter().map(|part| match part {
                        Value::$kind(a) => Ok(a.view()),
                        _ => bail!("parts of an output have different types"),
                    });
                    Ok(Value::$kind(concatenate(Axis(0), &all.collect::<Result<Vec<_>>>()?)?))
                })*
                Value::Bool(_) => {
                    let all = parts.iter().map(|part| match part {
                        Value::Bool(a) => Ok(a.view()),
                        _ => bail!("parts of an output have different types"),
                    });
                    Ok(Value::Bool(concatenate(Axis(0), &all.collect::<Result<Vec<_>>>()?)?))
                }
            }
        }
    };
}

each_kind!(values);

/// Outputs as bytes; none for a process without samples.
pub(crate) fn encode(outputs: Option<&Outputs>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let number = |bytes: &mut Vec<u8>, n: u64| bytes.extend(n.to_le_bytes());
    number(&mut bytes, outputs.map_or(0, |outputs| outputs.len() as u64));
    for (name, value) in outputs.into_iter().flatten() {
        number(&mut bytes, name.len() as u64);
        bytes.extend(name.as_bytes());
        number(&mut bytes, code(value));
        number(&mut bytes, value.shape().len() as u64);
        value.shape().iter().for_each(|&dim| number(&mut bytes, dim as u64));
        bytes.extend(value.to_le_bytes());
    }
    bytes
}

/// The outputs of all processes, in order, as one.
pub(crate) fn join(all: &[Vec<u8>]) -> Result<Outputs> {
    let parts = all.iter().map(|bytes| decode(bytes)).collect::<Result<Vec<_>>>()?;
    let parts: Vec<&Outputs> = parts.iter().filter(|part| !part.is_empty()).collect();
    let first = parts.first().context("no process has a sample")?;
    let output = |(i, (name, _)): (usize, &(String, Value))| {
        let of = parts.iter().map(|part| part.get(i).map(|(_, value)| value)).collect::<Option<Vec<_>>>();
        Ok((name.clone(), joined(&of.context("a process lacks an output")?)?))
    };
    first.iter().enumerate().map(output).collect()
}

/// Bytes that are yet to be read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, left) = self.0.split_at_checked(len).context("outputs that are cut off")?;
        self.0 = left;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into()?))
    }
}

fn decode(bytes: &[u8]) -> Result<Outputs> {
    let mut rest = Rest(bytes);
    let mut outputs = Vec::new();
    for _ in 0..rest.number()? {
        let len = rest.number()? as usize;
        let name = String::from_utf8(rest.take(len)?.to_vec())?;
        let (code, rank) = (rest.number()?, rest.number()?);
        let shape = (0..rank).map(|_| Ok(rest.number()? as usize)).collect::<Result<Vec<_>>>()?;
        let size: usize = match code {
            0 | 3 => 4,
            1 | 2 => 8,
            _ => 1,
        };
        let len = shape.iter().try_fold(size, |len, &dim| len.checked_mul(dim)).context("an output too large")?;
        outputs.push((name, decoded(code, &shape, rest.take(len)?)?));
    }
    Ok(outputs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::IxDyn;

    #[test]
    fn outputs_survive_the_way_and_join_along_the_batch() {
        let shape = |n: usize| IxDyn(&[n, 2]);
        let outputs = |from: usize, n: usize| -> Outputs {
            let float = (0..2 * n).map(|i| f32::from_bits(0x7fc0_0001 + (from * 2 + i) as u32)).collect();
            let long = (0..2 * n).map(|i| i as i64 - 7).collect();
            let bits = (0..2 * n).map(|i| i % 3 == 0).collect();
            vec![
                ("y".to_owned(), Value::F32(ArrayD::from_shape_vec(shape(n), float).unwrap())),
                ("é".to_owned(), Value::I64(ArrayD::from_shape_vec(shape(n), long).unwrap())),
                ("b".to_owned(), Value::Bool(ArrayD::from_shape_vec(shape(n), bits).unwrap())),
            ]
        };
        let whole = outputs(0, 3);
        let all = [encode(Some(&outputs(0, 1))), encode(None), encode(Some(&outputs(1, 2)))];
        let joined = join(&all).unwrap();
        assert_eq!(joined.len(), 3);
        assert_eq!(joined[0].1.to_le_bytes(), whole[0].1.to_le_bytes());
        assert_eq!(joined[1].1.shape(), [3, 2]);
        assert_eq!(samples(&joined[0].1, 1..3).to_le_bytes(), outputs(1, 2)[0].1.to_le_bytes());
        assert!(join(&[encode(None)]).is_err());
        let cut = encode(Some(&whole));
        assert!((0..cut.len()).all(|len| decode(&cut[..len]).is_err()));
    }
}
