//! The FP32 reference: the unmodified file, run by tract alone.

use std::sync::{Arc, Mutex};

use fpxint_kernels::with_default_floats;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::Factoid;

use crate::error::guarded;
use crate::value::{Port, View, match_inputs, views};
use crate::{Error, Outputs, Value, ValueView, graph};

type Runnable = Arc<TypedSimplePlan>;

/// A full-precision model.
pub struct Float {
    model: InferenceModel,
    inputs: Vec<Port>,
    outputs: Vec<String>,
    /// Plans by input shapes, the latest last.
    plans: Mutex<Vec<(Vec<Vec<usize>>, Runnable)>>,
}

/// Shapes whose plan is kept.
const PLANS: usize = 4;

impl std::fmt::Debug for Float {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Float").field("inputs", &self.inputs).finish_non_exhaustive()
    }
}

impl Float {
    /// Loads the file that `source` was read from, as it is, with the other files its tensors lie in.
    ///
    /// # Errors
    /// [`Error`], naming the node at fault.
    pub fn load(source: &fpxint_onnx::Model) -> Result<Self, Error> {
        graph::check_operators(source)?;
        let model = graph::read(&onnx(), &source.readable()?, source.folder())?;
        let inputs = graph::ports(source);
        let outputs = source.outputs().into_iter().map(|o| o.name).collect();
        Ok(Self { model, inputs, outputs, plans: Mutex::new(Vec::new()) })
    }

    /// Inputs.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// Runs the model on inputs by name.
    ///
    /// # Errors
    /// As [`crate::Model::run`].
    pub fn run(&self, inputs: &[(String, Value)]) -> Result<Outputs, Error> {
        self.run_views(&views(inputs))
    }

    /// [`Float::run`] on inputs where they lie.
    ///
    /// # Errors
    /// As [`crate::Model::run`].
    pub fn run_views(&self, inputs: &[(&str, ValueView<'_>)]) -> Result<Outputs, Error> {
        with_default_floats(|| self.run_matched(inputs))
    }

    fn run_matched(&self, inputs: &[(&str, ValueView<'_>)]) -> Result<Outputs, Error> {
        let matched = match_inputs(&self.inputs, inputs)?;
        let shapes: Vec<Vec<usize>> = matched.iter().map(|v| v.shape().to_vec()).collect();
        let plan = self.plan(&shapes)?;
        let mut values = TVec::new();
        for (i, value) in matched.iter().enumerate() {
            let kind = self.model.input_fact(i).map_err(Error::graph)?.datum_type.concretize();
            values.push(View::whole(value).to_tensor(kind.unwrap_or(DatumType::F32))?.into_tvalue());
        }
        let outputs = guarded(|| plan.run(values)).map_err(Error::graph)?;
        let named = outputs.iter().zip(&self.outputs);
        named.map(|(value, name)| Ok((name.clone(), Value::from_tensors(std::slice::from_ref(value), name)?))).collect()
    }

    fn plan(&self, shapes: &[Vec<usize>]) -> Result<Runnable, Error> {
        let kept = || self.plans.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((_, plan)) = kept().iter().find(|(key, _)| key == shapes) {
            return Ok(plan.clone());
        }
        let mut model = self.model.clone();
        for (i, shape) in shapes.iter().enumerate() {
            let fact = model.input_fact(i).map_err(Error::graph)?.clone();
            model.set_input_fact(i, fact.with_shape(shape)).map_err(Error::graph)?;
        }
        // Without tract's declutter passes, which move a strided Slice over a Conv and so choose other pixels.
        let optimised = guarded(|| {
            let mut typed = model.into_typed()?;
            typed.optimize()?;
            typed.into_runnable()
        });
        let made = optimised.map_err(Error::graph)?;
        let mut plans = kept();
        if plans.len() == PLANS {
            plans.remove(0);
        }
        plans.push((shapes.to_vec(), made.clone()));
        Ok(made)
    }
}
