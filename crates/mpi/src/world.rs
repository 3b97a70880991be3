//! The processes of `MPI_COMM_WORLD` as fpxint's commands know them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use fpxint::{Gather, GroupError, Reduce, Width};
use fpxint_cli::ensemble::Processes;
use mpi::collective::SystemOperation;
use mpi::datatype::PartitionMut;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives};

/// Most values of one call to MPI: what its counts hold, and what stays in the cache between the passes over it.
const MOST: usize = 1 << 18;
/// Least sums that are cut into tiles.
const TILED: usize = 1 << 16;

/// Numbers on their way, kept for the next call.
#[derive(Default)]
struct Way {
    narrow: [Vec<u32>; 2],
    wide: [Vec<u64>; 2],
}

/// All processes.
#[derive(Default)]
pub(crate) struct World {
    way: Mutex<Way>,
    tiles: AtomicUsize,
}

fn world() -> SimpleCommunicator {
    SimpleCommunicator::world()
}

/// Adds up one piece: `to` and `from` are how a sum travels.
fn reduce<T: mpi::traits::Equivalence + Default + Copy>(
    sums: &mut [i64],
    [send, receive]: &mut [Vec<T>; 2],
    to: impl Fn(i64) -> T,
    from: impl Fn(T) -> i64,
) {
    send.clear();
    send.extend(sums.iter().map(|&sum| to(sum)));
    receive.clear();
    receive.resize(sums.len(), T::default());
    world().all_reduce_into(&send[..], &mut receive[..], SystemOperation::sum());
    sums.iter_mut().zip(receive).for_each(|(sum, &mut total)| *sum = from(total));
}

impl Reduce for World {
    fn all_reduce(&self, _layer: usize, sums: &mut [i64], width: Width) -> Result<(), GroupError> {
        let mut way = self.way.lock().unwrap_or_else(PoisonError::into_inner);
        for piece in sums.chunks_mut(MOST) {
            match width {
                Width::Narrow => reduce(piece, &mut way.narrow, |sum| sum as u32, |total| i64::from(total as i32)),
                Width::Wide => reduce(piece, &mut way.wide, |sum| sum as u64, |total| total as i64),
            }
        }
        Ok(())
    }

    fn tiles(&self, sums: usize) -> usize {
        if sums < TILED { 1 } else { self.tiles.load(Ordering::Relaxed) }
    }
}

/// Where parts of these lengths begin, as MPI counts.
fn places(counts: &[usize]) -> Result<(Vec<i32>, Vec<i32>), GroupError> {
    let fault = |_| GroupError("more values than MPI counts".to_owned());
    let mut first = 0usize;
    let mut firsts = Vec::with_capacity(counts.len());
    for &count in counts {
        firsts.push(i32::try_from(first).map_err(fault)?);
        first = first.saturating_add(count);
    }
    i32::try_from(first).map_err(fault)?;
    Ok((counts.iter().map(|&count| count as i32).collect(), firsts))
}

impl Gather for World {
    fn all_gather(&self, _layer: usize, own: &[f32], counts: &[usize], all: &mut [f32]) -> Result<(), GroupError> {
        let (counts, firsts) = places(counts)?;
        let mut all = PartitionMut::new(all, counts, firsts);
        world().all_gather_varcount_into(own, &mut all);
        Ok(())
    }
}

impl Processes for World {
    fn rank(&self) -> usize {
        world().rank() as usize
    }

    fn size(&self) -> usize {
        world().size() as usize
    }

    fn local_size(&self) -> usize {
        // As OpenMPI and MPICH tell the processes they start; else all are taken to be here.
        let names = ["OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"];
        let stated = names.iter().find_map(|name| std::env::var(name).ok()?.parse().ok());
        stated.unwrap_or_else(|| self.size())
    }

    fn all_gather_bytes(&self, own: &[u8]) -> Vec<Vec<u8>> {
        let mut lengths = vec![0u64; self.size()];
        world().all_gather_into(&(own.len() as u64), &mut lengths[..]);
        let lengths: Vec<usize> = lengths.into_iter().map(|len| len as usize).collect();
        let mut all = vec![0u8; lengths.iter().sum()];
        match places(&lengths) {
            Ok((counts, firsts)) => {
                let mut parts = PartitionMut::new(&mut all[..], counts, firsts);
                world().all_gather_varcount_into(own, &mut parts);
            }
            Err(error) => {
                eprintln!("error: rank {}: {error}", self.rank());
                self.abort(2)
            }
        }
        let mut rest = &all[..];
        let part = |len: usize| {
            let (part, after) = rest.split_at(len);
            rest = after;
            part.to_vec()
        };
        lengths.into_iter().map(part).collect()
    }

    fn set_tiles(&self, tiles: usize) {
        self.tiles.store(tiles.max(1), Ordering::Relaxed);
    }

    fn abort(&self, code: i32) -> ! {
        world().abort(code)
    }
}
