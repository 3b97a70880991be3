//! Models that are shared over workers: from flags to the way of sharing, and what is told of it.

use std::path::Path;

use anyhow::{Result, bail};
use fpxint::{Members, Partition};
use fpxint_runtime::{Crew, HeldBytes, Missing, Model, Outputs, Sharing, Value};
use serde::{Deserialize, Serialize};

use crate::args::Common;
use crate::batch_parts;
use crate::engine::Engine;
use crate::ensemble::{Ensemble, Parallel};
use crate::group_args::Workers;
use crate::table::{Table, bytes, percent};

/// How a model is to be shared.
pub(crate) fn sharing(common: &Common, workers: &Workers) -> Result<Sharing> {
    let Some(ensemble) = &common.ensemble else {
        let Some(count) = workers.workers else { return Ok(Sharing::Alone) };
        let partition = Partition::new(count as usize, fpxint_runtime::member_costs()?);
        return Ok(Sharing::Crew(Crew { partition, allow_missing: workers.allow_missing, watch: None }));
    };
    if workers.workers.is_some() {
        bail!("--workers is for one process; the number of several is that of mpirun");
    }
    let (worker, workers) = ensemble.place();
    Ok(match ensemble.parallel() {
        Parallel::Terms => {
            Sharing::Terms { worker, partition: Partition::new(workers, ensemble.costs()), reduce: ensemble.reduce() }
        }
        Parallel::Channels => Sharing::Channels { worker, workers, gather: ensemble.gather() },
        Parallel::Batch => Sharing::Alone,
    })
}

/// Refuses flags that a model in FP32 has no use for.
pub(crate) fn refuse_float(common: &Common, path: &Path, workers: &Workers) -> Result<()> {
    if workers.workers.is_some() || common.ensemble.is_some() {
        bail!("{} is not expanded: pass --weights and --activations to share it over workers", path.display());
    }
    Ok(())
}

/// A loaded engine as its group runs it.
pub(crate) fn ready(common: &Common, engine: Engine, workers: &Workers) -> Result<Engine> {
    let Engine::Expanded(model) = engine else { return Ok(engine) };
    for &worker in &workers.lose {
        model.lose(worker as usize)?;
    }
    let idle = model.idle_workers();
    if idle > 0 && !common.quiet {
        eprintln!("{idle} of the workers are idle: no layer has as many members as there are workers");
    }
    match &common.ensemble {
        Some(ensemble) if ensemble.parallel() == Parallel::Batch => {
            if !model.is_separable() {
                bail!("its samples are not known to be independent of each other, so a batch cannot be split");
            }
            Ok(Engine::Batches(model, ensemble.clone()))
        }
        _ => Ok(Engine::Expanded(model)),
    }
}

/// Runs this process's samples of a batch, and collects those of all.
pub(crate) fn run_batch(model: &Model, ensemble: &Ensemble, inputs: &[(String, Value)]) -> Result<Outputs> {
    let (rank, size) = ensemble.place();
    let count = inputs.first().and_then(|(_, value)| value.shape().first().copied()).unwrap_or(0);
    if inputs.iter().any(|(_, value)| value.shape().first() != Some(&count)) {
        bail!("inputs of different numbers of samples");
    }
    let own = count * rank / size..count * (rank + 1) / size;
    let made = if own.is_empty() {
        None
    } else {
        let part = |(name, value): &(String, Value)| (name.clone(), batch_parts::samples(value, own.clone()));
        Some(model.run(&inputs.iter().map(part).collect::<Vec<_>>())?)
    };
    let all = ensemble.all_gather_bytes(&batch_parts::encode(made.as_ref()));
    batch_parts::join(&all)
}

/// What is told of the workers that shared a model.
#[derive(Debug, Serialize)]
pub(crate) struct GroupReport {
    /// `terms`, `channels` or `batch` over processes; `crew` within one.
    parallel: &'static str,
    workers: usize,
    /// Workers without members.
    idle: usize,
    /// By process; of terms.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    held: Vec<Held>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<MissingReport>,
}

/// Bytes that a process holds.
#[derive(Debug, Serialize, Deserialize)]
struct Held {
    /// Its own terms, packed to their bits.
    terms: u64,
    /// All terms of the model in their bits.
    all_terms: u64,
    /// What is not split: scales, biases, sums of columns, constants of the host.
    rest: u64,
    /// Room for the unpacked weights of one layer.
    room: u64,
}

#[derive(Debug, Serialize)]
struct MissingReport {
    workers: Vec<usize>,
    layers: Vec<MissingLayer>,
}

#[derive(Debug, Serialize)]
struct MissingLayer {
    name: String,
    /// Basis models, as in `W_3 A_1..2`.
    lost: Vec<String>,
    /// Largest error of a weight, where whole weight terms are lost.
    weight_bound: Option<f64>,
    /// What no output differs by from that of all members, in steps of the activations' grid.
    output_bound: f64,
}

impl GroupReport {
    /// What there is to tell of an engine; the same call by all processes. `None` for one that is not shared.
    pub(crate) fn of(common: &Common, engine: &Engine) -> Result<Option<Self>> {
        let Some(model) = engine.expanded() else { return Ok(None) };
        let idle = model.idle_workers();
        let Some(ensemble) = &common.ensemble else {
            let workers = model.crew_size();
            let missing = model.missing().map(MissingReport::of);
            return Ok((workers > 0).then(|| Self { parallel: "crew", workers, idle, held: Vec::new(), missing }));
        };
        let parallel = ensemble.parallel();
        let held = if parallel == Parallel::Terms {
            let HeldBytes { terms, all_terms, rest, room } = model.held_bytes();
            let own = serde_json::to_vec(&Held { terms, all_terms, rest, room })?;
            let all = ensemble.all_gather_bytes(&own);
            all.iter().map(|held| Ok(serde_json::from_slice(held)?)).collect::<Result<_>>()?
        } else {
            Vec::new()
        };
        Ok(Some(Self { parallel: parallel.name(), workers: ensemble.place().1, idle, held, missing: None }))
    }

    /// Prints it for people.
    pub(crate) fn print(&self) {
        println!("\n{}: {} workers, {} of them idle", self.parallel, self.workers, self.idle);
        if !self.held.is_empty() {
            let mut table = Table::new(0, &["rank", "own terms", "of all terms", "not split", "room"]);
            for (rank, held) in self.held.iter().enumerate() {
                let share = percent(held.terms as f64 / held.all_terms.max(1) as f64);
                table.row(vec![rank.to_string(), bytes(held.terms), share, bytes(held.rest), bytes(held.room)]);
            }
            print!("{table}");
        }
        if let Some(missing) = &self.missing {
            let workers: Vec<_> = missing.workers.iter().map(usize::to_string).collect();
            println!("without worker {}; the mean stands for what is lost:", workers.join(", "));
            let mut table = Table::new(2, &["layer", "lost", "weight bound", "output bound, in steps"]);
            for layer in &missing.layers {
                let weight = layer.weight_bound.map_or("-".to_owned(), |bound| format!("{bound:.2e}"));
                table.row(vec![
                    layer.name.clone(),
                    layer.lost.join(", "),
                    weight,
                    format!("{:.2e}", layer.output_bound),
                ]);
            }
            print!("{table}");
        }
    }
}

impl MissingReport {
    fn of(missing: Missing) -> Self {
        let layer = |layer: fpxint_runtime::MissingLayer| MissingLayer {
            name: layer.name,
            lost: layer.members.iter().map(described).collect(),
            weight_bound: layer.weight_bound,
            output_bound: layer.output_bound,
        };
        Self { workers: missing.workers, layers: missing.layers.into_iter().map(layer).collect() }
    }
}

/// Members as in `W_3 A_1..2`.
fn described(members: &Members) -> String {
    let range = |letter: char, terms: &std::ops::RangeInclusive<u32>| match (terms.start(), terms.end()) {
        (first, last) if first == last => format!("{letter}_{first}"),
        (first, last) => format!("{letter}_{first}..{last}"),
    };
    format!("{} {}", range('W', &members.weights), range('A', &members.activations))
}
