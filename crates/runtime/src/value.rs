//! Values that enter and leave a model.

use std::borrow::Cow;
use std::ops::Range;

use ndarray::{ArrayD, ArrayViewD, Axis, Slice};
use tract_onnx::prelude::{Datum, DatumType, TValue, Tensor, f16};

use crate::Error;

/// An n-dimensional array of one of the element types that ONNX models exchange.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Value {
    F32(ArrayD<f32>),
    F64(ArrayD<f64>),
    I64(ArrayD<i64>),
    I32(ArrayD<i32>),
    I8(ArrayD<i8>),
    U8(ArrayD<u8>),
    Bool(ArrayD<bool>),
}

/// A [`Value`] whose elements lie elsewhere, in any layout.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum ValueView<'a> {
    F32(ArrayViewD<'a, f32>),
    F64(ArrayViewD<'a, f64>),
    I64(ArrayViewD<'a, i64>),
    I32(ArrayViewD<'a, i32>),
    I8(ArrayViewD<'a, i8>),
    U8(ArrayViewD<'a, u8>),
    Bool(ArrayViewD<'a, bool>),
}

/// Element type of a [`Value`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Element {
    F32,
    F64,
    I64,
    I32,
    I8,
    U8,
    Bool,
}

impl std::fmt::Display for Element {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Element::F32 => "float32",
            Element::F64 => "float64",
            Element::I64 => "int64",
            Element::I32 => "int32",
            Element::I8 => "int8",
            Element::U8 => "uint8",
            Element::Bool => "bool",
        })
    }
}

impl Element {
    /// The element type of ONNX's name; half-precision floats enter and leave as float32.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "FLOAT" | "FLOAT16" | "BFLOAT16" => Element::F32,
            "DOUBLE" => Element::F64,
            "INT64" => Element::I64,
            "INT32" => Element::I32,
            "INT8" => Element::I8,
            "UINT8" => Element::U8,
            "BOOL" => Element::Bool,
            _ => return None,
        })
    }
}

/// An input or output of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its element type, or `None` for one that [`Value`] does not carry.
    pub element: Option<Element>,
    /// Its dimensions; `None` where it varies from call to call.
    pub shape: Vec<Option<usize>>,
    /// Rows of the smallest table that an input looks up, where it does: its values are below.
    pub rows: Option<usize>,
}

macro_rules! each_kind {
    ($do:ident) => {
        $do! { F32 f32, F64 f64, I64 i64, I32 i32, I8 i8, U8 u8, Bool bool }
    };
}

macro_rules! conversions {
    ($($kind:ident $rust:ident),*) => {
        impl Value {
            /// Dimensions.
            pub fn shape(&self) -> &[usize] {
                match self { $(Value::$kind(a) => a.shape()),* }
            }

            /// Element type.
            pub fn element(&self) -> Element {
                match self { $(Value::$kind(_) => Element::$kind),* }
            }

            /// The value where it lies.
            pub fn view(&self) -> ValueView<'_> {
                match self { $(Value::$kind(a) => ValueView::$kind(a.view())),* }
            }
        }

        impl ValueView<'_> {
            /// Dimensions.
            pub fn shape(&self) -> &[usize] {
                match self { $(ValueView::$kind(a) => a.shape()),* }
            }

            /// Element type.
            pub fn element(&self) -> Element {
                match self { $(ValueView::$kind(_) => Element::$kind),* }
            }

            /// The same value, for as long as this is borrowed.
            pub(crate) fn view(&self) -> ValueView<'_> {
                match self { $(ValueView::$kind(a) => ValueView::$kind(a.view())),* }
            }
        }

        impl View<'_> {
            /// A tensor of the element type that the host takes.
            pub(crate) fn to_tensor(&self, kind: DatumType) -> Result<Tensor, Error> {
                let made = match &self.value {
                    $(ValueView::$kind(a) => {
                        let part = match &self.samples {
                            Some(samples) => a.slice_axis(Axis(0), Slice::from(samples.clone())),
                            None => a.view(),
                        };
                        match part.as_slice() {
                            Some(data) => Tensor::from_shape(&self.shape, data),
                            None => Tensor::from_shape(&self.shape, &part.iter().copied().collect::<Vec<_>>()),
                        }
                    }),*
                };
                let tensor = made.map_err(Error::graph)?;
                if tensor.datum_type() == kind { return Ok(tensor); }
                Ok(tensor.cast_to_dt(kind).map_err(Error::graph)?.into_owned())
            }
        }

        impl Element {
            pub(crate) fn of(kind: DatumType) -> Option<Self> {
                $(if kind == <$rust as tract_onnx::prelude::Datum>::datum_type() { return Some(Element::$kind); })*
                None
            }
        }

        /// The values of tensors that follow each other along the first axis, as one array of this shape.
        fn from_plain(parts: &[Cow<'_, Tensor>], shape: &[usize]) -> Option<Value> {
            let kind = parts.first()?.datum_type();
            $(if kind == <$rust as tract_onnx::prelude::Datum>::datum_type() {
                let mut data = Vec::with_capacity(shape.iter().product());
                for part in parts {
                    data.extend_from_slice(part.try_as_plain_ram().ok()?.as_slice::<$rust>().ok()?);
                }
                return ArrayD::from_shape_vec(shape, data).ok().map(Value::$kind);
            })*
            None
        }
    };
}

each_kind!(conversions);

impl Value {
    /// The value as 32-bit floats, when it is of a floating-point or integer type.
    pub fn to_f32(&self) -> ArrayD<f32> {
        match self {
            Value::F32(a) => a.clone(),
            Value::F64(a) => a.mapv(|v| v as f32),
            Value::I64(a) => a.mapv(|v| v as f32),
            Value::I32(a) => a.mapv(|v| v as f32),
            Value::I8(a) => a.mapv(f32::from),
            Value::U8(a) => a.mapv(f32::from),
            Value::Bool(a) => a.mapv(|v| f32::from(u8::from(v))),
        }
    }

    /// The little-endian bytes of the elements in row-major order.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        match self {
            Value::F32(a) => a.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Value::F64(a) => a.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Value::I64(a) => a.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Value::I32(a) => a.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Value::I8(a) => a.iter().map(|&v| v as u8).collect(),
            Value::U8(a) => a.iter().copied().collect(),
            Value::Bool(a) => a.iter().map(|&v| u8::from(v)).collect(),
        }
    }

    /// One value of tensors that follow each other along the first axis; of one tensor, its value.
    pub(crate) fn from_tensors(parts: &[TValue], name: &str) -> Result<Self, Error> {
        let fault = |reason| Error::Run { node: name.to_owned(), reason };
        let Some(first) = parts.first() else { return Err(fault("an output of no parts".to_owned())) };
        let mut shape = first.shape().to_vec();
        if parts.len() > 1 {
            if parts.iter().any(|part| part.rank() == 0 || part.shape()[1..] != shape[1..]) {
                return Err(fault("samples of one batch have outputs of different shapes".to_owned()));
            }
            shape[0] = parts.iter().map(|part| part.shape()[0]).sum();
        }
        let kind = first.datum_type();
        let wide = if kind == f16::datum_type() { f32::datum_type() } else { kind };
        let tensors =
            parts.iter().map(|part| part.cast_to_dt(wide)).collect::<Result<Vec<_>, _>>().map_err(Error::graph)?;
        from_plain(&tensors, &shape).ok_or_else(|| fault(format!("an output of type {kind:?} cannot be returned")))
    }
}

/// A value, or some samples of it.
#[derive(Debug)]
pub(crate) struct View<'a> {
    value: ValueView<'a>,
    samples: Option<Range<usize>>,
    shape: Vec<usize>,
}

impl<'a> View<'a> {
    /// All of a value.
    pub(crate) fn whole(value: &'a ValueView<'_>) -> Self {
        Self { value: value.view(), samples: None, shape: value.shape().to_vec() }
    }

    /// Some of the samples that a value has along its first axis.
    pub(crate) fn part(value: &'a ValueView<'_>, samples: Range<usize>) -> Self {
        let mut shape = value.shape().to_vec();
        shape[0] = samples.len();
        Self { value: value.view(), samples: Some(samples), shape }
    }

    /// Dimensions.
    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values, where they are f32 and lie in the order of their indices.
    pub(crate) fn floats(&self) -> Option<&'a [f32]> {
        let ValueView::F32(array) = &self.value else { return None };
        let values = array.to_slice()?;
        let Some(samples) = &self.samples else { return Some(values) };
        let size: usize = self.shape[1..].iter().product();
        values.get(samples.start * size..samples.end * size)
    }
}

/// Inputs where they lie.
pub(crate) fn views(inputs: &[(String, Value)]) -> Vec<(&str, ValueView<'_>)> {
    inputs.iter().map(|(name, value)| (name.as_str(), value.view())).collect()
}

/// Checks inputs by name against a model's ports, and returns them in the ports' order.
///
/// # Errors
/// [`Error::Input`] for a name, element type or shape that does not fit.
pub(crate) fn match_inputs<'a>(
    ports: &[Port],
    inputs: &'a [(&str, ValueView<'_>)],
) -> Result<Vec<ValueView<'a>>, Error> {
    let fault = |input: &str, reason: String| Err(Error::Input { input: input.to_owned(), reason });
    let names: Vec<_> = ports.iter().map(|p| format!("`{}`", p.name)).collect();
    for (i, (name, _)) in inputs.iter().enumerate() {
        if !ports.iter().any(|p| p.name == *name) {
            return fault(name, format!("the model has no such input; it has {}", names.join(", ")));
        }
        if inputs[..i].iter().any(|(other, _)| other == name) {
            return fault(name, "given twice".to_owned());
        }
    }
    let mut matched = Vec::with_capacity(ports.len());
    for port in ports {
        let Some((_, value)) = inputs.iter().find(|(name, _)| *name == port.name) else {
            return fault(&port.name, "not given".to_owned());
        };
        if port.element != Some(value.element()) {
            let wanted = port.element.map_or("an unsupported type".to_owned(), |e| e.to_string());
            return fault(&port.name, format!("holds {}, but the model takes {wanted}", value.element()));
        }
        let fits = port.shape.len() == value.shape().len()
            && port.shape.iter().zip(value.shape()).all(|(want, &got)| want.is_none_or(|want| want == got));
        if !fits {
            let wanted: Vec<_> = port.shape.iter().map(|d| d.map_or("?".to_owned(), |d| d.to_string())).collect();
            return fault(
                &port.name,
                format!("has shape {:?}, but the model takes [{}]", value.shape(), wanted.join(", ")),
            );
        }
        if value.shape().contains(&0) {
            return fault(&port.name, format!("has shape {:?}, which holds no values", value.shape()));
        }
        matched.push(value.view());
    }
    Ok(matched)
}
