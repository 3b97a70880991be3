//! From a typed graph to steps over value slots: epilogues fused, layouts settled, lifetimes known.
//!
//! ```text
//! for node in evaluation order:
//!     layer        -> Step::Layer at its place, or at the place of the Add and activation fused into it
//!     activation   -> Step::Activate unless fused
//!     pool         -> Step::Pool or Step::GlobalAverage, on channels-last values
//!     attention, normalisation, softmax, sum -> Step::Encoder, on values as the graph says
//!     other        -> Step::Tract, on channels-last values where the operator has that form
//!     a value in the wrong layout -> Step::Permute before the first step that needs it
//! ```

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use fpxint::AttentionPrecision;
use fpxint_kernels::Activation;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::{array::TypedConcat, binary::TypedBinOp, konst::Const, source::TypedSource};
use tract_onnx::tract_hir::internal::Op;

use crate::Error;
use crate::activation;
use crate::encoder::{self, EncoderStep};
use crate::exact::is_exact;
use crate::layout::{Layout, channels_last, permute, permuted_shape};
use crate::placeholder::LayerOp;
use crate::pooling::{PoolStep, mean_from};

/// Index of a value slot.
pub(crate) type Slot = usize;

/// What a step does.
#[derive(Debug)]
pub(crate) enum Action {
    /// An integer product and its epilogue; the residual is the second input.
    Layer { layer: usize },
    /// An activation on its own.
    Activate(Activation),
    /// A change of layout.
    Permute { to_last: bool },
    /// A pool of a channels-last value.
    Pool(Box<PoolStep>),
    /// The mean of every channel of a channels-last value.
    GlobalAverage,
    /// Concatenation of channels-last values along their channels.
    ConcatChannels,
    /// A float operator of an encoder.
    Encoder(EncoderStep),
    /// An operator that tract runs; whether it has the same bits on every CPU.
    Tract { op: Box<dyn TypedOp>, exact: bool },
}

/// A node that the host runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostNode {
    /// Its name.
    pub name: String,
    /// Its operator, in the host's words.
    pub operator: String,
    /// Whether it has the same bits on every CPU: it moves, compares or converts values, or is one IEEE operation.
    pub exact: bool,
}

/// One step of a plan.
#[derive(Debug)]
pub(crate) struct Step {
    pub name: String,
    pub action: Action,
    pub inputs: Vec<Slot>,
    pub outputs: Vec<Slot>,
    /// Shapes of what the host makes, in the symbols of the inputs.
    pub shapes: Vec<TVec<TDim>>,
    /// Slots whose value no later step reads.
    pub dead: Vec<Slot>,
}

/// Steps in order, over `slots` values.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub steps: Vec<Step>,
    pub slots: usize,
    pub constants: Vec<(Slot, Arc<Tensor>)>,
    pub inputs: Vec<Slot>,
    pub outputs: Vec<Slot>,
    /// Whether the host reads a slot, or it leaves the model: by slot.
    pub to_host: Vec<bool>,
    /// Activations of the layers' epilogues, by layer.
    pub activations: HashMap<usize, Activation>,
}

/// A layer with what is fused behind it.
#[derive(Debug, Default, Clone)]
struct Fusion {
    residual: Option<OutletId>,
    activation: Option<Activation>,
}

/// Plans a graph.
pub(crate) fn plan(model: &TypedModel) -> Result<Plan, Error> {
    let order = model.eval_order().map_err(Error::graph)?;
    let mut builder = Builder { model, plan: Plan::default(), slots: HashMap::new(), layouts: Vec::new() };
    let (ends, mut absorbed) = builder.fusions(&order)?;
    for outlet in model.input_outlets().map_err(Error::graph)? {
        let slot = builder.define(*outlet, Layout::Plain);
        builder.plan.inputs.push(slot);
    }
    for id in order {
        let node = model.node(id);
        if let Some((layer, fusion)) = ends.get(&id) {
            builder.layer(*layer, fusion, OutletId::new(id, 0))?;
        } else if !absorbed.contains(&id) {
            absorbed.extend(builder.node(node)?);
        }
    }
    for outlet in model.output_outlets().map_err(Error::graph)? {
        let slot = builder.read(*outlet, Layout::Plain)?;
        builder.plan.outputs.push(slot);
    }
    let mut plan = builder.plan;
    plan.slots = builder.layouts.len();
    plan.settle_lifetimes();
    plan.settle_hosts();
    Ok(plan)
}

/// By the last node of every fused chain its layer's node and what is fused; and the nodes before it.
type Fusions = (HashMap<usize, (usize, Fusion)>, HashSet<usize>);

struct Builder<'a> {
    model: &'a TypedModel,
    plan: Plan,
    /// Slot of a value in a layout.
    slots: HashMap<(OutletId, bool), Slot>,
    layouts: Vec<Layout>,
}

impl Builder<'_> {
    /// What is fused with which layer.
    fn fusions(&self, order: &[usize]) -> Result<Fusions, Error> {
        let (mut ends, mut absorbed) = (HashMap::new(), HashSet::new());
        for &id in order.iter().filter(|&&id| self.model.node(id).op_is::<LayerOp>()) {
            let (mut fusion, mut last) = (Fusion::default(), id);
            while let Some(next) = self.only_successor(last)? {
                let node = self.model.node(next);
                // A node already absorbed belongs to the other operand's layer.
                if absorbed.contains(&next) || ends.contains_key(&next) || fusion.activation.is_some() {
                    break;
                }
                if let Some(activation) = activation::of(self.model, node).map_err(Error::graph)? {
                    fusion.activation = Some(activation);
                } else if let (None, Some(other)) = (fusion.residual, self.residual(node, last)?) {
                    fusion.residual = Some(other);
                } else {
                    break;
                }
                absorbed.insert(last);
                last = next;
            }
            ends.insert(last, (id, fusion));
        }
        Ok((ends, absorbed))
    }

    /// The node that alone reads `id`'s only output, unless that output leaves the model.
    fn only_successor(&self, id: usize) -> Result<Option<usize>, Error> {
        let node = self.model.node(id);
        let leaves = self.model.output_outlets().map_err(Error::graph)?.iter().any(|o| o.node == id);
        Ok(match &node.outputs[..] {
            [output] if !leaves && output.successors.len() == 1 => Some(output.successors[0].node),
            _ => None,
        })
    }

    /// The other operand where `node` adds it to `from`'s value, both of one shape.
    fn residual(&self, node: &TypedNode, from: usize) -> Result<Option<OutletId>, Error> {
        let adds = node.op_as::<TypedBinOp>().is_some_and(|op| op.0.name() == "Add");
        let [a, b] = node.inputs[..] else { return Ok(None) };
        let facts = self.model.node_input_facts(node.id).map_err(Error::graph)?;
        if !adds || facts[0].shape != facts[1].shape || facts.iter().any(|f| f.datum_type != f32::datum_type()) {
            return Ok(None);
        }
        Ok((a.node != b.node).then_some(if a.node == from { b } else { a }))
    }

    /// A new slot for a value.
    fn define(&mut self, outlet: OutletId, layout: Layout) -> Slot {
        self.layouts.push(layout);
        let slot = self.layouts.len() - 1;
        self.slots.insert((outlet, layout == Layout::ChannelsLast), slot);
        slot
    }

    /// The slot of a value in a layout, permuting it first where it is only there in the other.
    fn read(&mut self, outlet: OutletId, layout: Layout) -> Result<Slot, Error> {
        let to_last = layout == Layout::ChannelsLast;
        if let Some(&slot) = self.slots.get(&(outlet, to_last)) {
            return Ok(slot);
        }
        let Some(&source) = self.slots.get(&(outlet, !to_last)) else {
            return Err(Error::Graph(format!("`{}` is used before it is made", self.model.node(outlet.node).name)));
        };
        let constant = self.plan.constants.iter().find(|(slot, _)| *slot == source).map(|(_, t)| t.clone());
        let slot = self.define(outlet, layout);
        if let Some(tensor) = constant {
            self.plan.constants.push((slot, permuted(&tensor, to_last)?));
            return Ok(slot);
        }
        let name = self.model.node(outlet.node).name.clone();
        self.push(name, Action::Permute { to_last }, vec![source], vec![slot]);
        Ok(slot)
    }

    fn push(&mut self, name: String, action: Action, inputs: Vec<Slot>, outputs: Vec<Slot>) {
        self.plan.steps.push(Step { name, action, inputs, outputs, shapes: Vec::new(), dead: Vec::new() });
    }

    fn layer(&mut self, id: usize, fusion: &Fusion, output: OutletId) -> Result<(), Error> {
        let node = self.model.node(id);
        let op = node.op_as::<LayerOp>().expect("fusions start at layers");
        let layout = match op.geometry {
            fpxint::Geometry::Conv(_) => Layout::ChannelsLast,
            fpxint::Geometry::MatMul(_) => Layout::Plain,
        };
        let mut inputs = vec![self.read(node.inputs[0], layout)?];
        if let Some(residual) = fusion.residual {
            inputs.push(self.read(residual, layout)?);
        }
        if let Some(activation) = fusion.activation {
            self.plan.activations.insert(op.layer, activation);
        }
        let slot = self.define(output, layout);
        self.push(node.name.clone(), Action::Layer { layer: op.layer }, inputs, vec![slot]);
        Ok(())
    }

    /// Plans a node; returns the one behind it that is planned with it, if any.
    fn node(&mut self, node: &TypedNode) -> Result<Option<usize>, Error> {
        if node.op_is::<TypedSource>() {
            return Ok(None);
        }
        if let Some(constant) = node.op_as::<Const>() {
            let slot = self.define(node.id.into(), Layout::Plain);
            self.plan.constants.push((slot, constant.val().clone()));
        } else if let Some(activation) = activation::of(self.model, node).map_err(Error::graph)? {
            let layout = self.preferred(node.inputs[0]);
            self.push_node(node, Action::Activate(activation), layout)?;
        } else if let Some(pool) = PoolStep::of(self.model, node)? {
            self.push_node(node, Action::Pool(Box::new(pool)), Layout::ChannelsLast)?;
        } else if let Some(end) = self.global_average(node)? {
            let input = self.read(node.inputs[0], Layout::ChannelsLast)?;
            let slot = self.define(end.into(), Layout::ChannelsLast);
            self.push(node.name.clone(), Action::GlobalAverage, vec![input], vec![slot]);
            return Ok(Some(end));
        } else if let Some((step, inputs)) = self.encoder(node)? {
            let inputs = inputs.iter().map(|&i| self.read(i, Layout::Plain)).collect::<Result<_, _>>()?;
            let slot = self.define(node.id.into(), Layout::Plain);
            self.push(node.name.clone(), Action::Encoder(step), inputs, vec![slot]);
        } else if encoder::part_of(self.model, node.id.into()).map_err(Error::graph)?.is_none() {
            self.other(node)?;
        }
        Ok(None)
    }

    /// The last node of the mean of every channel that begins at `node`, where its input is only there channels-last.
    fn global_average(&self, node: &TypedNode) -> Result<Option<usize>, Error> {
        let [input] = node.inputs[..] else { return Ok(None) };
        let last = self.preferred(input) == Layout::ChannelsLast;
        if last { mean_from(self.model, node).map_err(Error::graph) } else { Ok(None) }
    }

    /// The step of an encoder that a node is, where its inputs are there as the graph says.
    fn encoder(&self, node: &TypedNode) -> Result<Option<(EncoderStep, TVec<OutletId>)>, Error> {
        let step = EncoderStep::of(self.model, node).map_err(Error::graph)?;
        let last = |input: &OutletId| self.preferred(*input) == Layout::ChannelsLast;
        Ok(step.filter(|(step, inputs)| {
            !matches!(step, EncoderStep::Sum { .. } | EncoderStep::Add) || !inputs.iter().any(last)
        }))
    }

    /// A node that the host runs, or one that joins channels.
    fn other(&mut self, node: &TypedNode) -> Result<(), Error> {
        let (op, layout) = match self.channels_last_form(node)? {
            Some(op) => (op, Layout::ChannelsLast),
            None => (node.op.clone(), Layout::Plain),
        };
        let joins = layout == Layout::ChannelsLast && self.joins_channels(node, op.as_op())?;
        let inputs = self.model.node_input_facts(node.id).map_err(Error::graph)?;
        let outputs = self.model.node_output_facts(node.id).map_err(Error::graph)?;
        let exact = is_exact(&*op, &inputs, &outputs);
        self.push_node(node, if joins { Action::ConcatChannels } else { Action::Tract { op, exact } }, layout)
    }

    /// A step of a node's inputs and outputs, all in one layout.
    fn push_node(&mut self, node: &TypedNode, action: Action, layout: Layout) -> Result<(), Error> {
        let inputs = node.inputs.iter().map(|&i| self.read(i, layout)).collect::<Result<_, _>>()?;
        let outputs = (0..node.outputs.len()).map(|o| self.define(OutletId::new(node.id, o), layout)).collect();
        self.push(node.name.clone(), action, inputs, outputs);
        let facts = self.model.node_output_facts(node.id).map_err(Error::graph)?;
        let physical = |fact: &&TypedFact| {
            let mut shape = fact.shape.to_tvec();
            if layout == Layout::ChannelsLast {
                shape[1..].rotate_left(1);
            }
            shape
        };
        if let Some(step) = self.plan.steps.last_mut() {
            step.shapes = facts.iter().map(physical).collect();
        }
        Ok(())
    }

    /// Whether a channels-last operator concatenates channels.
    fn joins_channels(&self, node: &TypedNode, op: &dyn Op) -> Result<bool, Error> {
        let rank = self.model.node_output_facts(node.id).map_err(Error::graph)?[0].rank();
        Ok(op.downcast_ref::<TypedConcat>().is_some_and(|concat| concat.axis + 1 == rank))
    }

    /// The layout a value is in; plain where it is in both.
    fn preferred(&self, outlet: OutletId) -> Layout {
        if self.slots.contains_key(&(outlet, false)) { Layout::Plain } else { Layout::ChannelsLast }
    }

    /// The operator on channels-last values, where some input is only there in that layout and all can be.
    fn channels_last_form(&self, node: &TypedNode) -> Result<Option<Box<dyn TypedOp>>, Error> {
        if node.inputs.iter().all(|&i| self.preferred(i) == Layout::Plain) {
            return Ok(None);
        }
        let inputs = self.model.node_input_facts(node.id).map_err(Error::graph)?;
        let outputs = self.model.node_output_facts(node.id).map_err(Error::graph)?;
        let rank = inputs[0].rank();
        let alike = inputs.iter().chain(&outputs).all(|f| f.rank() == rank && f.datum_type == f32::datum_type());
        Ok(if alike && rank >= 3 && outputs.len() == 1 { channels_last(&*node.op, rank) } else { None })
    }
}

/// A constant in the other layout.
fn permuted(tensor: &Tensor, to_last: bool) -> Result<Arc<Tensor>, Error> {
    let shape = permuted_shape(tensor.shape(), to_last);
    let mut out = Tensor::zero::<f32>(&shape).map_err(Error::graph)?;
    let source = tensor.try_as_plain_ram().map_err(Error::graph)?;
    let mut target = out.try_as_plain_ram_mut().map_err(Error::graph)?;
    let target = target.as_slice_mut::<f32>().map_err(Error::graph)?;
    permute(source.as_slice::<f32>().map_err(Error::graph)?, tensor.shape(), to_last, target);
    Ok(out.into_arc_tensor())
}

impl Plan {
    /// Sets how attention computes.
    pub fn set_attention(&mut self, precision: AttentionPrecision) {
        for step in &mut self.steps {
            if let Action::Encoder(EncoderStep::Attention(attention, _)) = &mut step.action {
                attention.steps = precision.steps();
            }
        }
    }

    /// The steps that tract runs.
    pub fn left_to_tract(&self) -> Vec<HostNode> {
        let left = |step: &Step| match &step.action {
            Action::Tract { op, exact } => {
                Some(HostNode { name: step.name.clone(), operator: op.name().into_owned(), exact: *exact })
            }
            _ => None,
        };
        self.steps.iter().filter_map(left).collect()
    }

    /// Notes which slots the host reads.
    fn settle_hosts(&mut self) {
        let hosts = self.steps.iter().filter(|step| matches!(step.action, Action::Tract { .. }));
        self.to_host = vec![false; self.slots];
        for &slot in hosts.flat_map(|step| &step.inputs).chain(&self.outputs) {
            self.to_host[slot] = true;
        }
    }

    /// Notes at each step which values die there.
    fn settle_lifetimes(&mut self) {
        let mut kept: HashSet<Slot> = self.outputs.iter().copied().collect();
        kept.extend(self.constants.iter().map(|(slot, _)| *slot));
        for step in self.steps.iter_mut().rev() {
            for &slot in step.inputs.iter().chain(&step.outputs) {
                if kept.insert(slot) {
                    step.dead.push(slot);
                }
            }
        }
    }
}
