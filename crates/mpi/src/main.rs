//! `fpxint-mpi`: `fpxint run`, `eval` and `bench` in the processes that `mpirun` starts.
//!
//! MPI carries what they exchange: `MPI_Allreduce` of integers, `MPI_Allgatherv` of channels and bytes. Sums travel as unsigned
//! integers, whose addition wraps by definition; those of a layer whose totals fit 32 bits in 32 bits.

#![forbid(unsafe_code)]

mod world;

use std::process::ExitCode;
use std::sync::Arc;

use mpi::Threading;

use world::World;

fn main() -> ExitCode {
    // Several threads of a process call MPI, one at a time.
    let Some((_universe, threading)) = mpi::initialize_with_threading(Threading::Serialized) else {
        eprintln!("error: MPI does not start; run this by mpirun");
        return ExitCode::from(2);
    };
    if threading < Threading::Serialized {
        eprintln!("error: this MPI takes calls from one thread only");
        return ExitCode::from(2);
    }
    fpxint_cli::ensemble::main(Arc::new(World::default()))
}
