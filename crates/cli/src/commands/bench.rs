//! `fpxint bench`: latency of a model on random inputs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use fpxint_runtime::{Model, StepTime, Value};
use serde::Serialize;

use super::print_json;
use crate::args::{Bench, Common};
use crate::grouping::GroupReport;
use crate::table::{Table, percent};
use crate::{Outcome, engine, inputs, progress};

#[derive(Debug, Serialize)]
struct Latency {
    median: f64,
    min: f64,
    p95: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    model: String,
    weights: String,
    activations: String,
    threads: usize,
    kernel: &'static str,
    batch: u32,
    latency_ms: Latency,
    /// Multiply-accumulates of the expanded layers in one run, in 1e9; `null` in FP32.
    gmacs: Option<f64>,
    peak_rss_mb: Option<f64>,
    /// Multiply-accumulates in 1e9 a second that the kernel reaches on operands in the first-level cache, on all threads; with
    /// a profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_gmacs_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    profile: Vec<OperatorTime>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    steps: Vec<StepReport>,
    /// The workers that shared the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<GroupReport>,
}

/// Time of all steps of one kind, each at its fastest over the runs.
#[derive(Debug, Serialize)]
struct OperatorTime {
    operator: String,
    steps: usize,
    milliseconds: f64,
    /// Multiply-accumulates in 1e9 a second; `null` where none are counted.
    gmacs_per_second: Option<f64>,
}

/// Time of one step, at its fastest over the runs.
#[derive(Debug, Serialize)]
struct StepReport {
    name: String,
    operator: String,
    milliseconds: f64,
    gmacs_per_second: Option<f64>,
}

/// Before the timed runs the model runs this often, and for this long: buffers find their size, caches and clock settle.
const WARM_UP: u32 = 2;
const WARM_UP_TIME: Duration = Duration::from_millis(100);

pub(crate) fn run(common: &Common, args: &Bench) -> Result<Outcome> {
    let engine = engine::load(common, &args.model, &args.precisions)?;
    let values = inputs::random(engine.inputs(), args.sizes, 0)?;
    let (start, mut warm) = (Instant::now(), 0);
    // Processes reduce together, so that they must run equally often, whatever their clocks say.
    let settles = common.ensemble.is_none();
    while warm < WARM_UP || settles && start.elapsed() < WARM_UP_TIME {
        std::hint::black_box(engine.run(&values)?);
        warm += 1;
    }
    let bar = progress::bar(common, "running", args.runs as usize);
    let mut times = Vec::with_capacity(args.runs as usize);
    for _ in 0..args.runs {
        let start = Instant::now();
        std::hint::black_box(engine.run(&values)?);
        times.push(start.elapsed().as_secs_f64() * 1e3);
        bar.inc(1);
    }
    bar.finish_and_clear();
    times.sort_by(f64::total_cmp);
    let times_of_steps = match engine.expanded() {
        Some(model) if args.profile => profile(model, &values, args.runs)?,
        None if args.profile => bail!("--profile is for expanded models: pass --weights"),
        _ => Vec::new(),
    };
    let (weights, activations) = engine.precisions();
    let (kernel, gmacs, threads) = match engine.expanded() {
        Some(model) => (model.kernel(), Some(model.macs(&values)? as f64 / 1e9), common.threads()),
        None => ("tract", None, 1),
    };
    let report = Report {
        model: args.model.display().to_string(),
        weights,
        activations,
        threads,
        kernel,
        batch: args.sizes.batch,
        latency_ms: Latency { median: quantile(&times, 0.5), min: times[0], p95: quantile(&times, 0.95) },
        gmacs,
        peak_rss_mb: peak_rss_mb(),
        peak_gmacs_per_second: if args.profile { peak(kernel, threads)? } else { None },
        profile: by_operator(&times_of_steps),
        steps: times_of_steps.into_iter().map(step_report).collect(),
        group: GroupReport::of(common, &engine)?,
    };
    if common.json {
        print_json(&report)?;
    } else {
        print_table(&report);
    }
    Ok(Outcome::Done)
}

/// Times of all steps, each at its fastest.
fn profile(model: &Model, values: &[(String, Value)], runs: u32) -> Result<Vec<StepTime>> {
    let mut best = model.profile(values)?;
    for _ in 1..runs {
        for (best, step) in best.iter_mut().zip(model.profile(values)?) {
            best.seconds = best.seconds.min(step.seconds);
        }
    }
    Ok(best)
}

/// The ceiling of a kernel, in 1e9 multiply-accumulates a second.
fn peak(kernel: &str, threads: usize) -> Result<Option<f64>> {
    let kernel = fpxint_kernels::named(kernel)?;
    Ok(Some(fpxint_kernels::peak(kernel) * threads as f64 / 1e9))
}

/// Multiply-accumulates in 1e9 a second.
fn throughput(macs: u64, seconds: f64) -> Option<f64> {
    (macs > 0 && seconds > 0.0).then(|| macs as f64 / seconds / 1e9)
}

fn step_report(step: StepTime) -> StepReport {
    let gmacs_per_second = throughput(step.macs, step.seconds);
    StepReport { name: step.name, operator: step.operator, milliseconds: step.seconds * 1e3, gmacs_per_second }
}

/// Times by kind of operator, the largest first.
fn by_operator(steps: &[StepTime]) -> Vec<OperatorTime> {
    let mut sums: BTreeMap<&str, (usize, f64, u64)> = BTreeMap::new();
    for step in steps {
        let (count, seconds, macs) = sums.entry(&step.operator).or_default();
        (*count, *seconds, *macs) = (*count + 1, *seconds + step.seconds, *macs + step.macs);
    }
    let operator = |(operator, (steps, seconds, macs)): (&str, (usize, f64, u64))| OperatorTime {
        operator: operator.to_owned(),
        steps,
        milliseconds: seconds * 1e3,
        gmacs_per_second: throughput(macs, seconds),
    };
    let mut operators: Vec<_> = sums.into_iter().map(operator).collect();
    operators.sort_by(|a, b| b.milliseconds.total_cmp(&a.milliseconds));
    operators
}

/// The value at a share of sorted times, the mean of the two nearest where it falls between.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

/// Largest resident memory of this process so far, where the system tells.
fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some((kilobytes * 1.024).round() / 1e3)
}

fn print_table(report: &Report) {
    let mut table = Table::new(
        4,
        &["weights", "activations", "kernel", "threads", "median ms", "min ms", "p95 ms", "GMAC", "peak MB"],
    );
    let optional = |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |v| format!("{v:.digits$}"));
    table.row(vec![
        report.weights.clone(),
        report.activations.clone(),
        report.kernel.to_owned(),
        report.threads.to_string(),
        format!("{:.3}", report.latency_ms.median),
        format!("{:.3}", report.latency_ms.min),
        format!("{:.3}", report.latency_ms.p95),
        optional(report.gmacs, 3),
        optional(report.peak_rss_mb, 0),
    ]);
    print!("{table}");
    if let Some(group) = &report.group {
        group.print();
    }
    if report.profile.is_empty() {
        return;
    }
    let total: f64 = report.profile.iter().map(|o| o.milliseconds).sum();
    let mut table = Table::new(1, &["operator", "steps", "ms", "share", "GMAC/s", "of peak"]);
    for operator in &report.profile {
        let (ms, share) = (format!("{:.3}", operator.milliseconds), percent(operator.milliseconds / total));
        let speed = optional(operator.gmacs_per_second, 0);
        let of_peak = operator.gmacs_per_second.zip(report.peak_gmacs_per_second);
        let of_peak = of_peak.map_or("-".to_owned(), |(speed, peak)| percent(speed / peak));
        table.row(vec![operator.operator.clone(), operator.steps.to_string(), ms, share, speed, of_peak]);
    }
    print!("\n{table}");
    if let Some(peak) = report.peak_gmacs_per_second {
        println!("peak: {peak:.0} GMAC/s, the kernel on operands in the first-level cache");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate() {
        assert_eq!(quantile(&[1.0], 0.95), 1.0);
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.5), 2.0);
        assert_eq!(quantile(&[1.0, 2.0], 0.5), 1.5);
    }
}
