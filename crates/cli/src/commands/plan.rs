//! `fpxint plan`: predicted time and traffic of the ways to split a model over workers.
//!
//! ```text
//! time = compute of the slowest worker, measured alone on this machine
//!      + sum over exchanges of s bytes among p workers, with latency L and bandwidth B:
//!        all-reduce   min(log2 p (L + s / B), 2 (p - 1) L + 2 (p - 1) / p s / B)       doubling, or a ring
//!        all-gather   log2 p L + (p - 1) / p s / B
//! ```
//!
//! The worker's part is loaded and run with an exchange that does nothing: what it computes then is of no meaning, but takes as
//! long. `batch` gives every worker its samples of the batch; with one sample there is nothing to split.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use fpxint::{Costs, Gather, GroupError, Partition, Precision, Reduce, Width};
use fpxint_onnx::Model as Source;
use fpxint_runtime::{Model, Options, Sharing, Survey};
use serde::Serialize;

use super::print_json;
use crate::args::{Common, Sizes};
use crate::group_args::PlanWorkers;
use crate::svg::{Line, plot};
use crate::table::Table;
use crate::{Outcome, engine, inputs, progress};

#[derive(Debug, Serialize)]
struct Report {
    model: String,
    batch: u32,
    threads: usize,
    latency_us: f64,
    bandwidth_gbs: f64,
    splits: Vec<Split>,
}

/// A way to split the model over some workers.
#[derive(Debug, Serialize)]
struct Split {
    split: &'static str,
    workers: u32,
    /// Workers with nothing to do.
    idle: usize,
    compute_ms: f64,
    /// Exchanges in one inference, and what each worker brings to them.
    exchanges: usize,
    traffic_mb: f64,
    communication_ms: f64,
    total_ms: f64,
    /// Over one worker that does not split.
    speedup: f64,
}

/// Counts exchanges and makes none.
#[derive(Default)]
struct Counting {
    /// Bytes of every exchange.
    bytes: Mutex<Vec<f64>>,
}

impl Counting {
    fn note(&self, bytes: usize) {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).push(bytes as f64);
    }

    fn taken(&self) -> Vec<f64> {
        std::mem::take(&mut self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Reduce for Counting {
    fn all_reduce(&self, _layer: usize, sums: &mut [i64], width: Width) -> Result<(), GroupError> {
        self.note(sums.len() * if width == Width::Narrow { 4 } else { 8 });
        Ok(())
    }
}

impl Gather for Counting {
    fn all_gather(&self, _layer: usize, own: &[f32], _counts: &[usize], all: &mut [f32]) -> Result<(), GroupError> {
        self.note(size_of_val(all));
        let (first, _) = all.split_at_mut(own.len());
        first.copy_from_slice(own);
        Ok(())
    }
}

/// What is the same for all splits.
struct Planner<'a> {
    source: &'a Source,
    options: Options,
    survey: Survey,
    costs: Costs,
    sizes: Sizes,
    runs: u32,
    link: Link,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    /// Seconds.
    latency: f64,
    /// Bytes a second.
    bandwidth: f64,
}

impl Link {
    fn rounds(workers: u32) -> f64 {
        f64::from(workers).log2().ceil()
    }

    fn all_reduce(&self, bytes: f64, workers: u32) -> f64 {
        let (p, time) = (f64::from(workers), bytes / self.bandwidth);
        let doubling = Self::rounds(workers) * (self.latency + time);
        doubling.min(2.0 * (p - 1.0) * self.latency + 2.0 * (p - 1.0) / p * time)
    }

    fn all_gather(&self, bytes: f64, workers: u32) -> f64 {
        let p = f64::from(workers);
        Self::rounds(workers) * self.latency + (p - 1.0) / p * bytes / self.bandwidth
    }
}

pub(crate) fn run(common: &Common, args: &PlanWorkers) -> Result<Outcome> {
    if !(args.latency_us >= 0.0 && args.bandwidth_gbs > 0.0) {
        bail!("a link has a latency of at least 0 and a bandwidth above 0");
    }
    let source = engine::read(common, &args.model)?;
    let file = args.model.display().to_string();
    if source.is_artefact() && args.weights.is_some() {
        bail!("{file} is expanded already: its weights are what they are");
    }
    let default = Some(Precision::new(4, 2)?);
    let own = |given: Option<Precision>| given.or(default.filter(|_| !source.is_artefact()));
    let (weights, activations) = (own(args.weights), own(args.activations));
    let options = Options { weights, activations, threads: common.threads(), ..Options::default() };
    let planner = Planner {
        options,
        survey: fpxint_runtime::survey(&source).with_context(|| file.clone())?,
        source: &source,
        costs: fpxint_runtime::member_costs()?,
        sizes: args.sizes,
        runs: args.runs,
        link: Link { latency: args.latency_us * 1e-6, bandwidth: args.bandwidth_gbs * 1e9 },
    };
    let splits = planner.splits(common, args.workers).with_context(|| file.clone())?;
    let report = Report {
        model: file,
        batch: args.sizes.batch,
        threads: common.threads(),
        latency_us: args.latency_us,
        bandwidth_gbs: args.bandwidth_gbs,
        splits,
    };
    if let Some(path) = &args.plot {
        std::fs::write(path, drawn(&report)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if common.json {
        print_json(&report)?;
    } else {
        print_table(&report);
    }
    Ok(Outcome::Done)
}

impl Planner<'_> {
    /// All splits over 1, 2, 4 and so on up to `most` workers.
    fn splits(&self, common: &Common, most: u32) -> Result<Vec<Split>> {
        let mut counts: Vec<u32> = (0..).map(|i| 1 << i).take_while(|&count| count < most).collect();
        counts.push(most);
        let bar = progress::bar(common, "measuring", 3 * counts.len());
        let (alone, _) = self.measured(Sharing::Alone, self.sizes.batch, &Counting::default())?;
        let mut splits = Vec::new();
        for &workers in &counts {
            splits.push(self.terms(workers, alone)?);
            bar.inc(1);
        }
        for &workers in &counts {
            splits.push(self.channels(workers, alone)?);
            bar.inc(1);
        }
        for &workers in &counts {
            splits.push(self.batch(workers, alone)?);
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(splits)
    }

    /// Seconds of a run with `batch` samples, and the bytes of its exchanges.
    fn measured(&self, sharing: Sharing, batch: u32, counting: &Counting) -> Result<(f64, Vec<f64>)> {
        let options = Options { sharing, ..self.options.clone() };
        let model = Model::load(self.source, &options, &|_, _| {})?;
        let values = inputs::random(model.inputs(), Sizes { batch, ..self.sizes }, 0)?;
        model.run(&values)?;
        counting.taken();
        model.run(&values)?;
        let exchanges = counting.taken();
        let mut times: Vec<f64> = Vec::new();
        for _ in 0..self.runs {
            let start = Instant::now();
            std::hint::black_box(model.run(&values)?);
            times.push(start.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        Ok((times[times.len() / 2], exchanges))
    }

    fn terms(&self, workers: u32, alone: f64) -> Result<Split> {
        let partition = Partition::new(workers as usize, self.costs);
        let (mut loads, mut most) = (vec![0.0; workers as usize], 0);
        for (info, &macs) in self.source.layers().iter().zip(&self.survey.macs) {
            let weights = info.weights.or(self.options.weights).context("a layer without a precision")?;
            let activations = self.options.activations.or(info.activations).context("a layer without a precision")?;
            most = most.max(weights.order() * activations.order());
            let depthwise = info.geometry.is_depthwise();
            for (load, run) in loads.iter_mut().zip(partition.of(weights, activations, depthwise)) {
                *load += macs as f64 * self.costs.of(&run, weights, activations, depthwise);
            }
        }
        let slowest = (0..loads.len()).max_by(|&a, &b| loads[a].total_cmp(&loads[b])).unwrap_or(0);
        let counting = Arc::new(Counting::default());
        let sharing = Sharing::Terms { worker: slowest, partition, reduce: counting.clone() };
        let (compute, exchanges) = self.measured(sharing, self.sizes.batch, &counting)?;
        let time = |bytes: &f64| self.link.all_reduce(*bytes, workers);
        let idle = workers.saturating_sub(most) as usize;
        Ok(split("terms", (workers, idle), compute, &exchanges, time, alone))
    }

    fn channels(&self, workers: u32, alone: f64) -> Result<Split> {
        let counting = Arc::new(Counting::default());
        // Channels that do not divide evenly go to the last.
        let (worker, workers_) = (workers as usize - 1, workers as usize);
        let sharing = Sharing::Channels { worker, workers: workers_, gather: counting.clone() };
        let (compute, exchanges) = self.measured(sharing, self.sizes.batch, &counting)?;
        let time = |bytes: &f64| self.link.all_gather(*bytes, workers);
        Ok(split("channels", (workers, 0), compute, &exchanges, time, alone))
    }

    fn batch(&self, workers: u32, alone: f64) -> Result<Split> {
        let own = self.sizes.batch.div_ceil(workers);
        let (compute, _) = self.measured(Sharing::Alone, own, &Counting::default())?;
        let fixed = |port: &fpxint_runtime::Port| port.shape.iter().skip(1).map(|d| d.unwrap_or(1)).product::<usize>();
        let values: usize = self.survey.outputs.iter().map(fixed).sum();
        let exchanges = [(values * self.sizes.batch as usize * 4) as f64];
        let time = |bytes: &f64| self.link.all_gather(*bytes, workers);
        let idle = workers.saturating_sub(self.sizes.batch) as usize;
        Ok(split("batch", (workers, idle), compute, &exchanges, time, alone))
    }
}

fn split(
    name: &'static str,
    (workers, idle): (u32, usize),
    compute: f64,
    exchanges: &[f64],
    time: impl Fn(&f64) -> f64,
    alone: f64,
) -> Split {
    let communication = if workers == 1 { 0.0 } else { exchanges.iter().map(time).sum::<f64>() };
    let total = compute + communication;
    Split {
        split: name,
        workers,
        idle,
        compute_ms: compute * 1e3,
        exchanges: exchanges.len(),
        traffic_mb: exchanges.iter().fold(0.0, |sum, bytes| sum + bytes) / 1e6,
        communication_ms: communication * 1e3,
        total_ms: total * 1e3,
        speedup: alone / total,
    }
}

fn drawn(report: &Report) -> String {
    let line = |name: &'static str| Line {
        name: name.to_owned(),
        points: report.splits.iter().filter(|s| s.split == name).map(|s| (f64::from(s.workers), s.total_ms)).collect(),
    };
    let title = format!(
        "{}, batch {}: predicted with {} us and {} GB/s",
        report.model, report.batch, report.latency_us, report.bandwidth_gbs
    );
    plot(&title, "workers", "ms", &["terms", "channels", "batch"].map(line))
}

fn print_table(report: &Report) {
    println!(
        "{}: batch {}, {} threads a worker; a link of {} us and {} GB/s",
        report.model, report.batch, report.threads, report.latency_us, report.bandwidth_gbs
    );
    let header =
        ["split", "workers", "idle", "compute ms", "exchanges", "traffic MB", "exchange ms", "total ms", "speed-up"];
    let mut table = Table::new(1, &header);
    for split in &report.splits {
        table.row(vec![
            split.split.to_owned(),
            split.workers.to_string(),
            split.idle.to_string(),
            format!("{:.2}", split.compute_ms),
            split.exchanges.to_string(),
            format!("{:.2}", split.traffic_mb),
            format!("{:.2}", split.communication_ms),
            format!("{:.2}", split.total_ms),
            format!("{:.2}", split.speedup),
        ]);
    }
    print!("{table}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exchanges_follow_the_model_of_the_link() {
        let link = Link { latency: 1e-5, bandwidth: 1e9 };
        assert!((link.all_reduce(1e6, 2) - 1.01e-3).abs() < 1e-9);
        // Large sums go round the ring.
        assert!((link.all_reduce(1e8, 8) - (14e-5 + 0.175)).abs() < 1e-6);
        // Small ones double.
        assert!((link.all_reduce(0.0, 8) - 3e-5).abs() < 1e-12);
        assert!((link.all_gather(1e6, 4) - (2e-5 + 7.5e-4)).abs() < 1e-9);
        let one = split("terms", (1, 0), 0.01, &[1e6], |_| panic!("one worker exchanges nothing"), 0.02);
        assert!((one.total_ms - 10.0).abs() < 1e-9 && (one.speedup - 2.0).abs() < 1e-9);
    }
}
