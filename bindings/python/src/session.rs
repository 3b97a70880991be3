//! A model that is loaded and run.

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};

use fpxint_cli::args::{Format, Precisions, format};
use fpxint_cli::embedded;
use fpxint_cli::engine::{self, Engine};
use fpxint_onnx::{Dim, ValueInfo};
use fpxint_runtime::{Outputs, Port, ValueView};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::arrays::{Held, array};
use crate::attended::attended;
use crate::errors::{exception, panicked, raised};
use crate::source::Source;

/// Name, dimensions (a number, a symbol or `None`) and type of an input or output.
type Described = (String, Vec<Size>, String);

#[derive(Clone, IntoPyObject)]
enum Size {
    Number(usize),
    Symbol(String),
    Open(Option<usize>),
}

/// A loaded model; it may be run from many threads at once.
#[pyclass(frozen)]
pub(crate) struct Session {
    engine: Engine,
    inputs: Vec<Described>,
    outputs: Vec<Described>,
    threads: usize,
    /// The process whose threads it has.
    process: u32,
}

#[pymethods]
impl Session {
    /// Loads a model as `fpxint run` does with these flags; FP32 models of which they say nothing at the precision `default`.
    #[new]
    fn new(
        py: Python<'_>,
        source: Source,
        flags: Vec<OsString>,
        default: &str,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let parsed = embedded::load(source.label(), flags);
        let (mut common, mut precisions) = parsed.map_err(|text| exception(py, "InputError", &text))?;
        let default = format(default).map_err(|text| exception(py, "PrecisionError", &text))?;
        let threads = common.threads();
        let (engine, inputs, outputs) = attended(py, threads, progress, |watch| {
            common.watch = Some(watch);
            let model = source.read(&common.limits())?;
            expand_by_default(&mut precisions, default, model.is_artefact());
            let engine = engine::load_read(&common, &model, source.label(), &precisions)?;
            let inputs = described(&model.inputs(), engine.inputs());
            let outputs = match &engine {
                Engine::Expanded(expanded) => described(&model.outputs(), expanded.outputs()),
                Engine::Float(_) | Engine::Derived(_) | Engine::Batches(..) => described(&model.outputs(), &[]),
            };
            Ok((engine, inputs, outputs))
        })?;
        Ok(Self { engine, inputs, outputs, threads, process: std::process::id() })
    }

    /// Runs the model on a dictionary of arrays; the outputs of these names in their order, or all of them.
    fn run<'py>(
        &self,
        py: Python<'py>,
        names: Option<Vec<String>>,
        feed: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, PyList>> {
        if self.threads > 1 && self.process != std::process::id() {
            let text =
                "the session was made before its process forked, and its threads are not here: make it in the child";
            return Err(exception(py, "RunError", text));
        }
        let mut held = Vec::with_capacity(feed.len());
        for (name, value) in feed {
            let name: String = name.extract()?;
            let array = Held::new(&value, &name)?;
            held.push((name, array));
        }
        let views: Vec<_> = held.iter().map(|(name, array)| (name.as_str(), array.view())).collect();
        let made = py.detach(|| catch_unwind(AssertUnwindSafe(|| self.run_views(&views))));
        let made = made.map_err(|payload| panicked(py, payload.as_ref()))?;
        let mut made = made.map_err(|error| raised(py, &error.into()))?;
        let list = PyList::empty(py);
        let Some(names) = names.filter(|names| !names.is_empty()) else {
            made.into_iter().try_for_each(|(_, value)| list.append(array(py, value)))?;
            return Ok(list);
        };
        for (i, name) in names.iter().enumerate() {
            if let Some(earlier) = names[..i].iter().position(|other| other == name) {
                list.append(list.get_item(earlier)?)?;
                continue;
            }
            let Some(at) = made.iter().position(|(other, _)| other == name) else {
                let all: Vec<_> = self.outputs.iter().map(|(name, ..)| format!("`{name}`")).collect();
                let text = format!("the model has no output `{name}`; it has {}", all.join(", "));
                return Err(exception(py, "InputError", &text));
            };
            list.append(array(py, made.swap_remove(at).1))?;
        }
        Ok(list)
    }

    /// Inputs: name, shape, type.
    fn inputs(&self) -> Vec<Described> {
        self.inputs.clone()
    }

    /// Outputs: name, shape, type.
    fn outputs(&self) -> Vec<Described> {
        self.outputs.clone()
    }

    /// Precision of weights and activations by name of the layer; empty where the model runs in FP32.
    fn layers(&self) -> Vec<(String, String, String)> {
        let Engine::Expanded(model) = &self.engine else { return Vec::new() };
        let layer =
            |l: &fpxint_runtime::LayerReport| (l.name.clone(), l.weights.to_string(), l.activations.to_string());
        model.layers().iter().map(layer).collect()
    }
}

impl Session {
    fn run_views(&self, views: &[(&str, ValueView<'_>)]) -> Result<Outputs, fpxint_runtime::Error> {
        match &self.engine {
            Engine::Expanded(model) => model.run_views(views),
            Engine::Float(model) => model.run_views(views),
            Engine::Derived(_) | Engine::Batches(..) => {
                Err(fpxint_runtime::Error::Graph("a session runs the model of a file".to_owned()))
            }
        }
    }
}

/// An FP32 model of which nothing is said has the precision `default`.
fn expand_by_default(precisions: &mut Precisions, default: Format, is_artefact: bool) {
    let Precisions { weights, activations, planning, .. } = precisions;
    if !is_artefact && weights.is_none() && activations.is_none() && !planning.is_given() {
        (*weights, *activations) = (Some(default), Some(default));
    }
}

/// What the file says of its values, with the sizes that were inferred where it says none.
fn described(stated: &[ValueInfo], ports: &[Port]) -> Vec<Described> {
    let one = |info: &ValueInfo| {
        let port = ports.iter().find(|port| port.name == info.name);
        let size = |axis: usize, dim: Option<&Dim>| match dim {
            Some(Dim::Fixed(size)) => Size::Number(*size as usize),
            Some(Dim::Symbol(name)) => Size::Symbol(name.clone()),
            _ => Size::Open(port.and_then(|port| port.shape.get(axis).copied().flatten())),
        };
        let rank = port.map_or(info.dims.len(), |port| port.shape.len());
        let shape = (0..rank).map(|axis| size(axis, info.dims.get(axis))).collect();
        (info.name.clone(), shape, format!("tensor({})", type_name(&info.elem_type)))
    };
    stated.iter().map(one).collect()
}

/// ONNX Runtime's word for an element type of ONNX.
fn type_name(onnx: &str) -> String {
    match onnx {
        "FLOAT" => "float".to_owned(),
        "BFLOAT16" => "bfloat16".to_owned(),
        other => other.to_lowercase(),
    }
}
