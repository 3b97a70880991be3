//! `run`, `eval` and `bench` in several processes at once, as `mpirun` starts them.
//!
//! Every process runs the same command on the same files. They share the model: its terms, its output channels, or the samples of
//! a batch; what each computes is exchanged while it runs, so that all of them have the whole outputs. The first one prints.
//! Before any work they compare what they loaded. A process that fails ends all.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use fpxint::{Costs, Gather, Reduce};
use sha2::{Digest, Sha256};

use crate::args::{self, Bench, Common, Eval, Run};
use crate::engine::Engine;
use crate::{Outcome, SILENT, commands, guarded, one_line};

/// The processes that run a command together, numbered from 0. All of them make the same calls in the same order.
pub trait Processes: Reduce + Gather {
    /// Number of this process.
    fn rank(&self) -> usize;
    /// How many there are.
    fn size(&self) -> usize;
    /// How many there are on this machine.
    fn local_size(&self) -> usize;
    /// What every process gives, in order of their numbers.
    fn all_gather_bytes(&self, own: &[u8]) -> Vec<Vec<u8>>;
    /// Sets the tiles of a layer that are reduced while the next is computed; 1 for none.
    fn set_tiles(&self, tiles: usize);
    /// Ends all processes with this exit code.
    fn abort(&self, code: i32) -> !;
}

/// What the processes share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Parallel {
    /// The terms: basis models, whose sums are added in every layer
    Terms,
    /// The output channels of every layer, which are gathered
    Channels,
    /// The samples of a batch
    Batch,
}

impl Parallel {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Parallel::Terms => "terms",
            Parallel::Channels => "channels",
            Parallel::Batch => "batch",
        }
    }
}

/// Run, evaluate or measure a model in several processes at once, started by mpirun; the same bits for any number of them.
#[derive(Debug, Parser)]
#[command(name = "fpxint-mpi", version, max_term_width = 110)]
struct EnsembleCli {
    #[command(flatten)]
    common: Common,
    /// What the processes share
    #[arg(long, global = true, value_enum, default_value = "terms")]
    parallel: Parallel,
    /// Cut the sums of large layers into N tiles, each added up over the processes while the next is computed
    #[arg(long, global = true, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    overlap: u32,
    #[command(subcommand)]
    command: EnsembleCommand,
}

#[derive(Debug, Subcommand)]
enum EnsembleCommand {
    /// Run a model on arrays from .npy files
    Run(Run),
    /// Measure accuracy on a labelled data set
    Eval(Eval),
    /// Measure latency
    Bench(Bench),
}

/// The processes, and what they share.
#[derive(Clone)]
pub struct Ensemble {
    processes: Arc<dyn Processes>,
    parallel: Parallel,
    costs: Costs,
}

impl std::fmt::Debug for Ensemble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ensemble({:?}, {} of {})", self.parallel, self.processes.rank(), self.processes.size())
    }
}

/// What all processes know to be wrong, so that one of them says it and all end.
#[derive(Debug)]
struct Agreed(String);

impl std::fmt::Display for Agreed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Agreed {}

/// How long a process waits before it says what went wrong, for each one before it: what all find is said once.
const PATIENCE: Duration = Duration::from_millis(200);

/// The command of one of several processes. Where one fails, all end at once, with one line that names it.
pub fn main(processes: Arc<dyn Processes>) -> ExitCode {
    let rank = processes.rank();
    if rank > 0 {
        SILENT.store(true, Ordering::Relaxed);
    }
    let mut cli = match EnsembleCli::try_parse() {
        Ok(cli) => cli,
        // All processes have the same arguments.
        Err(error) => {
            let is_help = !error.use_stderr();
            match is_help {
                _ if rank > 0 => {}
                true => _ = error.print(),
                false => eprintln!("{}", args::one_line(&error)),
            }
            return ExitCode::from(if is_help { 0 } else { 2 });
        }
    };
    processes.set_tiles(cli.overlap as usize);
    cli.common.quiet |= rank > 0;
    let outcome = guarded(|| {
        let costs = measured_costs(&*processes)?;
        cli.common.ensemble = Some(Ensemble { processes: processes.clone(), parallel: cli.parallel, costs });
        dispatch(&cli)
    });
    match outcome {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::BelowThreshold) => ExitCode::from(1),
        Err(error) if error.is::<Agreed>() => {
            if rank == 0 {
                eprintln!("error: {error}");
            }
            ExitCode::from(2)
        }
        Err(error) => {
            std::thread::sleep(PATIENCE * rank.min(10) as u32);
            eprintln!("error: rank {rank}: {}", one_line(&error));
            processes.abort(2)
        }
    }
}

fn dispatch(cli: &EnsembleCli) -> Result<Outcome> {
    let common = &cli.common;
    rayon::ThreadPoolBuilder::new().num_threads(common.threads()).build_global()?;
    match &cli.command {
        EnsembleCommand::Run(args) => commands::run::run(common, args),
        EnsembleCommand::Eval(args) => commands::eval::run(common, args),
        EnsembleCommand::Bench(args) => commands::bench::run(common, args),
    }
}

impl Ensemble {
    /// Whether this is the first process.
    pub(crate) fn is_first(&self) -> bool {
        self.processes.rank() == 0
    }

    /// Number of this process, and of all.
    pub(crate) fn place(&self) -> (usize, usize) {
        (self.processes.rank(), self.processes.size())
    }

    /// What they share.
    pub(crate) fn parallel(&self) -> Parallel {
        self.parallel
    }

    /// How sums are added.
    pub(crate) fn reduce(&self) -> Arc<dyn Reduce> {
        self.processes.clone()
    }

    /// How channels are collected.
    pub(crate) fn gather(&self) -> Arc<dyn Gather> {
        self.processes.clone()
    }

    /// What every process gives.
    pub(crate) fn all_gather_bytes(&self, own: &[u8]) -> Vec<Vec<u8>> {
        self.processes.all_gather_bytes(own)
    }

    /// Threads of this process, `free` of which it may use: its share of the machine.
    pub(crate) fn threads(&self, free: usize) -> usize {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cores = info.lines().filter(|line| line.starts_with("processor")).count().max(free);
        free.min((cores / self.processes.local_size().max(1)).max(1))
    }

    /// The costs of products, the same for all processes.
    pub(crate) fn costs(&self) -> Costs {
        self.costs
    }

    /// Checks that all processes have the same, which is called `what`.
    ///
    /// # Errors
    /// One that names the first process that has something else than the first one; the same for all processes.
    pub(crate) fn agree_on<'a>(&self, what: &str, parts: impl Iterator<Item = &'a [u8]>) -> Result<()> {
        let mut hash = Sha256::new();
        parts.for_each(|part| hash.update(part));
        let all = self.all_gather_bytes(&hash.finalize());
        match all.iter().position(|digest| *digest != all[0]) {
            Some(rank) => Err(Agreed(format!("rank {rank} has other {what} than rank 0")).into()),
            None => Ok(()),
        }
    }

    /// The engine, if all processes have loaded the same: files, and precisions of every layer.
    ///
    /// # Errors
    /// That of the first process that has none, and one that names the first whose engine is another; the same for all processes.
    pub(crate) fn agree(&self, source: &fpxint_onnx::Model, engine: Result<Engine>) -> Result<Engine> {
        let own = match engine.and_then(|engine| Ok((digest(source, &engine)?, engine))) {
            Ok((digest, engine)) => Ok((digest, engine)),
            Err(error) => Err(one_line(&error)),
        };
        let message = match &own {
            Ok((digest, _)) => [&[0u8][..], digest].concat(),
            Err(text) => [&[1u8][..], text.as_bytes()].concat(),
        };
        let all = self.all_gather_bytes(&message);
        for (rank, message) in all.iter().enumerate() {
            if let Some((1, text)) = message.split_first().map(|(&kind, text)| (kind, text)) {
                let text = String::from_utf8_lossy(text);
                return Err(Agreed(format!("rank {rank}: {text}")).into());
            }
        }
        let hex = |message: &[u8]| message.iter().skip(1).take(6).map(|byte| format!("{byte:02x}")).collect::<String>();
        if let Some((rank, other)) = all.iter().enumerate().find(|(_, message)| **message != all[0]) {
            let text = "loaded another model than rank 0, or has other arguments: all ranks need the same files";
            return Err(Agreed(format!("rank {rank} {text} ({}, {})", hex(other), hex(&all[0]))).into());
        }
        own.map(|(_, engine)| engine).map_err(|text| Agreed(text).into())
    }
}

/// The costs that the first process measured.
fn measured_costs(processes: &dyn Processes) -> Result<Costs> {
    let own = fpxint_runtime::member_costs()?;
    let bytes = [own.product.to_le_bytes(), own.start.to_le_bytes()].concat();
    let all = processes.all_gather_bytes(&bytes);
    let first = all.first().and_then(|bytes| Some(*bytes.as_chunks::<8>().0.first_chunk::<2>()?));
    let costs = |[product, start]: [[u8; 8]; 2]| Costs {
        product: f64::from_le_bytes(product),
        start: f64::from_le_bytes(start),
    };
    Ok(first.map_or(own, costs))
}

/// Of the arguments but for names of files, of the model's files and of what was made of them.
fn digest(source: &fpxint_onnx::Model, engine: &Engine) -> Result<Vec<u8>> {
    let mut hash = Sha256::new();
    for argument in std::env::args().skip(1) {
        if !(argument.contains('=') || Path::new(&argument).exists()) {
            hash.update(argument);
        }
    }
    hash.update(source.original());
    for path in source.data_files() {
        let (mut file, mut piece) = (std::fs::File::open(path)?, vec![0; 1 << 20]);
        loop {
            match file.read(&mut piece)? {
                0 => break,
                len => hash.update(&piece[..len]),
            }
        }
    }
    for layer in engine.expanded().map_or(&[][..], |model| model.layers()) {
        let (clip, products, fingerprint) = (layer.activation_clip, layer.products, layer.fingerprint);
        let settings = format!("{} {} {} {clip:?} {products}", layer.name, layer.weights, layer.activations);
        hash.update(format!("{settings} {fingerprint:x?}\n"));
    }
    Ok(hash.finalize().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        EnsembleCli::command().debug_assert();
        let line = ["fpxint-mpi", "bench", "a.onnx", "--parallel", "channels", "--overlap", "4", "--threads", "1"];
        let cli = EnsembleCli::try_parse_from(line).unwrap();
        assert_eq!((cli.parallel, cli.overlap, cli.common.threads()), (Parallel::Channels, 4, 1));
    }
}
