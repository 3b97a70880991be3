//! Values that leave a layer as the codes of the layers that read them, and are never written in f32.
//!
//! The grid of an image's codes needs the range of all its values, which is known only when they have been made. But values
//! that end in a clamp to `[low, high]` often meet both bounds: so their codes are made on the grid of that range, and if they
//! did meet both, these are their codes. If not, the values are made again, in f32, and quantised; and the layer is not tried
//! again until its values have met both.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use fpxint::{ActivationClip, Geometry};
use fpxint_kernels::{Activation, Codes, Range};

use crate::Model;
use crate::execute::{element_count, image_size};
use crate::held::{Coding, Held, Scratch};
use crate::layer::Layer;
use crate::plan::{Action, Plan, Slot, Step};

/// Whether the last run's values met both bounds of their clamp, and so are likely to again.
#[derive(Debug)]
pub(crate) struct Met(AtomicBool);

impl Default for Met {
    fn default() -> Self {
        Self(AtomicBool::new(true))
    }
}

/// By the slot of a value that only convolutions read, as what they multiply: these layers.
pub(crate) fn readers(plan: &Plan, layers: &[Layer]) -> HashMap<Slot, Vec<usize>> {
    let mut readers: HashMap<Slot, Option<Vec<usize>>> = HashMap::new();
    for step in &plan.steps {
        for (i, &slot) in step.inputs.iter().enumerate() {
            let all = readers.entry(slot).or_insert_with(|| Some(Vec::new()));
            match (&step.action, all.as_mut()) {
                (Action::Layer { layer }, Some(all)) if i == 0 && is_convolution(&layers[*layer].geometry) => {
                    all.push(*layer);
                }
                _ => *all = None,
            }
        }
    }
    for slot in &plan.outputs {
        readers.insert(*slot, None);
    }
    readers.into_iter().filter_map(|(slot, all)| Some((slot, all?))).collect()
}

fn is_convolution(geometry: &Geometry) -> bool {
    matches!(geometry, Geometry::Conv(_))
}

/// The range of values that meet both bounds of a clamp, where both are finite.
fn clamped(activation: Option<&Activation>) -> Option<Range> {
    match activation {
        Some(&Activation::Clamp { low, high }) if low.is_finite() && high.is_finite() => Some(Range::of(low, high)),
        _ => None,
    }
}

impl Model {
    /// The output of a layer in the codes that all its readers take, where they take the same and there is a way to make them.
    pub(crate) fn coded<'a>(
        &self,
        index: usize,
        step: &Step,
        (codes, shape): (&Codes, &[usize]),
        scratch: &mut Scratch,
    ) -> Option<Held<'a>> {
        let (product, met) = (&self.layers[index].product, &self.met[index].0);
        let expected = clamped(self.plan.activations.get(&index))?;
        let (coding, size, reader) = self.wanted(step.outputs[0], shape)?;
        if !met.load(Ordering::Relaxed) || !product.makes_codes(self.kernel, codes) {
            return None;
        }
        let ([n, h, w, c], pads) = (size, coding.pads?);
        // What is too large is an error of the layer that reads it.
        element_count(&[
            n,
            h.checked_add(pads[0])?.checked_add(pads[2])?,
            w.checked_add(pads[1])?.checked_add(pads[3])?,
            c,
        ])
        .ok()?;
        let ranges = vec![expected; n];
        let mut made = scratch.codes.pop().unwrap_or_default();
        let grids = &mut scratch.grids;
        grids.clear();
        grids.extend(ranges.iter().map(|&range| self.layers[reader].grid(range)));
        made.prepare_images(size, pads, grids);
        let seen = product.coded(self.kernel, codes, (&mut made, pads), scratch.threads);
        if seen != ranges {
            met.store(false, Ordering::Relaxed);
            scratch.codes.push(made);
            return None;
        }
        let mut held = Held::coded(shape);
        held.ranges = Some(ranges);
        held.codes.push((coding, made));
        Some(held)
    }

    /// Notes whether values that were made in f32 met the bounds of their clamp.
    pub(crate) fn note(&self, index: usize, ranges: &[Range]) {
        if let Some(expected) = clamped(self.plan.activations.get(&index)) {
            self.met[index].0.store(ranges.iter().all(|&range| range == expected), Ordering::Relaxed);
        }
    }

    /// The codes that all readers of a slot take, the images of its value, and one of the readers.
    fn wanted(&self, slot: Slot, shape: &[usize]) -> Option<(Coding, [usize; 4], usize)> {
        let readers = self.readers.get(&slot)?;
        let coding = |&reader: &usize| match &self.layers[reader].geometry {
            Geometry::Conv(g) => {
                let [_, h, w, _] = image_size(g, shape);
                let Layer { activations, clip, .. } = self.layers[reader];
                Some(Coding { pads: Some(g.pads([h, w])), activations, clip })
            }
            Geometry::MatMul(_) => None,
        };
        let (&first, rest) = readers.split_first()?;
        let wanted = coding(&first)?;
        // Where to clip is known only of values.
        let one_byte = wanted.activations.total_bits() <= 8 && wanted.clip == ActivationClip::None;
        let Geometry::Conv(g) = &self.layers[first].geometry else { return None };
        let alike = one_byte && rest.iter().all(|reader| coding(reader) == Some(wanted));
        alike.then(|| (wanted, image_size(g, shape), first))
    }
}
