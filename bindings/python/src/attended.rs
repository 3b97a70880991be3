//! Long work on a thread of its own, while the thread that called waits, heeds signals and tells of progress.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use fpxint_cli::progress::Watch;
use fpxint_kernels::with_default_floats;
use pyo3::prelude::*;

use crate::errors::{exception, panicked, raised};

/// How often the waiting thread looks for signals.
const PERIOD: Duration = Duration::from_millis(50);
/// Stack of the thread that works: what a main thread has.
const STACK: usize = 8 << 20;

/// What the two threads share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// What is done, and how many of how many steps; until it is told.
    progress: Option<(&'static str, u64, u64)>,
    finished: bool,
}

/// What unwinds work that was told to stop.
struct Stopped;

type Finished<T> = Result<anyhow::Result<T>, Box<dyn Any + Send>>;

/// Runs `work` on `threads` threads. `progress(what, done, total)` is called from this thread; where it raises, or a signal
/// does, the work ends at its next step and the exception is raised.
pub(crate) fn attended<T: Send>(
    py: Python<'_>,
    threads: usize,
    progress: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(Watch) -> anyhow::Result<T> + Send,
) -> PyResult<T> {
    let shared = Arc::new(Shared::default());
    let watch = watch(&shared);
    let outcome = thread::scope(|scope| {
        let pooled = || with_default_floats(|| catch_unwind(AssertUnwindSafe(|| in_pool(threads, || work(watch)))));
        let body = || {
            let finished = pooled();
            shared.state.lock().unwrap_or_else(PoisonError::into_inner).finished = true;
            shared.changed.notify_all();
            finished
        };
        let worker = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, body);
        let worker = worker.map_err(|e| exception(py, "RunError", &format!("cannot start a thread: {e}")))?;
        let attended = attend(py, &shared, progress);
        if attended.is_err() {
            shared.stop.store(true, Ordering::Relaxed);
        }
        let joined = py.detach(|| worker.join());
        attended.map(|()| joined.unwrap_or_else(Err))
    });
    let outcome: Finished<T> = outcome?;
    outcome.map_err(|payload| panicked(py, payload.as_ref()))?.map_err(|error| raised(py, &error))
}

/// Keeps the progress that is told, and ends the work that is to stop.
fn watch(shared: &Arc<Shared>) -> Watch {
    let shared = shared.clone();
    Watch(Arc::new(move |what, done, total| {
        if shared.stop.load(Ordering::Relaxed) {
            resume_unwind(Box::new(Stopped));
        }
        shared.state.lock().unwrap_or_else(PoisonError::into_inner).progress = Some((what, done, total));
    }))
}

/// Runs `work` in a pool of its own: threads do not outlive the call, so that a process may fork between calls.
fn in_pool<T: Send>(threads: usize, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).stack_size(STACK).build()?;
    pool.install(work)
}

/// Waits for the work to finish.
fn attend(py: Python<'_>, shared: &Shared, progress: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    loop {
        let (told, finished) = py.detach(|| {
            let state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = shared.changed.wait_timeout_while(state, PERIOD, |state| !state.finished);
            let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            (state.progress.take(), state.finished)
        });
        py.check_signals()?;
        if let (Some(progress), Some(told)) = (progress, told) {
            progress.call1(told)?;
        }
        if finished {
            return Ok(());
        }
    }
}
