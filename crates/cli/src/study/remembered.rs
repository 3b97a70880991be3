//! A model that remembers what it gave: the same inputs are run once, however many measurements ask for them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use fpxint_runtime::{Outputs, Port, Value};
use ndarray::ArrayD;
use sha2::{Digest, Sha256};

use crate::engine::{Engine, Runs};

/// Inputs by name.
pub(super) type Inputs = Vec<(String, Value)>;
type Key = [u8; 32];

/// A model and its outputs by inputs.
#[derive(Debug)]
pub(super) struct Remembered {
    engine: Engine,
    outputs: Mutex<HashMap<Key, Outputs>>,
    /// A few of the inputs: those with the smallest keys, which does not depend on the order of runs.
    samples: Mutex<BTreeMap<Key, Inputs>>,
    /// Number of inputs that are kept.
    kept: usize,
}

impl Remembered {
    /// A model that keeps a number of its inputs.
    pub(super) fn new(engine: Engine, kept: usize) -> Arc<Self> {
        let (outputs, samples) = (Mutex::default(), Mutex::default());
        Arc::new(Self { engine, outputs, samples, kept })
    }

    /// Some of the inputs that it was run on.
    pub(super) fn samples(&self) -> Vec<Inputs> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

impl Runs for Remembered {
    fn run(&self, inputs: &[(String, Value)]) -> Result<Outputs> {
        let key = key(inputs);
        if let Some(outputs) = self.outputs.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(outputs.clone());
        }
        let outputs = self.engine.run(inputs)?;
        self.outputs.lock().unwrap_or_else(PoisonError::into_inner).insert(key, outputs.clone());
        if self.kept > 0 {
            let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
            samples.insert(key, inputs.to_vec());
            if samples.len() > self.kept {
                samples.pop_last();
            }
        }
        Ok(outputs)
    }

    fn inputs(&self) -> &[Port] {
        self.engine.inputs()
    }
}

/// The mean of the outputs of several models, the first few of which count.
#[derive(Debug)]
pub(super) struct Mean(pub Vec<Arc<Remembered>>);

impl Runs for Mean {
    fn run(&self, inputs: &[(String, Value)]) -> Result<Outputs> {
        let runs = self.0.iter().map(|member| member.run(inputs)).collect::<Result<Vec<_>>>()?;
        let count = runs.len() as f64;
        let mut sums: Vec<(String, ArrayD<f64>)> = Vec::new();
        for (name, value) in runs.into_iter().flatten() {
            let value = value.to_f32().mapv(f64::from);
            match sums.iter_mut().find(|(other, _)| *other == name) {
                Some((_, sum)) => *sum += &value,
                None => sums.push((name, value)),
            }
        }
        Ok(sums.into_iter().map(|(name, sum)| (name, Value::F32(sum.mapv(|v| (v / count) as f32)))).collect())
    }

    fn inputs(&self) -> &[Port] {
        self.0.first().map_or(&[], |member| member.inputs())
    }
}

fn key(inputs: &[(String, Value)]) -> Key {
    let mut hash = Sha256::new();
    for (name, value) in inputs {
        hash.update(name.as_bytes());
        hash.update([0]);
        for &size in value.shape() {
            hash.update((size as u64).to_le_bytes());
        }
        hash.update(value.to_le_bytes());
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Adds a number to its input, and counts its runs.
    #[derive(Debug)]
    struct Adds(f32, AtomicUsize);

    impl Runs for Adds {
        fn run(&self, inputs: &[(String, Value)]) -> Result<Outputs> {
            self.1.fetch_add(1, Ordering::Relaxed);
            Ok(inputs.iter().map(|(name, v)| (name.clone(), Value::F32(v.to_f32() + self.0))).collect())
        }

        fn inputs(&self) -> &[Port] {
            &[]
        }
    }

    fn input(value: f32) -> Inputs {
        vec![("x".to_owned(), Value::F32(ArrayD::from_elem(vec![2], value)))]
    }

    #[test]
    fn the_same_inputs_run_once() {
        let adds = Arc::new(Adds(1.0, AtomicUsize::new(0)));
        let model = Remembered::new(Engine::Derived(adds.clone()), 2);
        for value in [1.0, 2.0, 1.0, 3.0, 2.0] {
            assert_eq!(model.run(&input(value)).unwrap()[0].1, Value::F32(ArrayD::from_elem(vec![2], value + 1.0)));
        }
        assert_eq!((adds.1.load(Ordering::Relaxed), model.samples().len()), (3, 2));
    }

    #[test]
    fn a_mean_is_that_of_its_members() {
        let member = |by| Remembered::new(Engine::Derived(Arc::new(Adds(by, AtomicUsize::new(0)))), 0);
        let mean = Mean(vec![member(1.0), member(2.0), member(6.0)]);
        assert_eq!(mean.run(&input(0.5)).unwrap()[0].1, Value::F32(ArrayD::from_elem(vec![2], 3.5)));
    }
}
