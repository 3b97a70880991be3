//! Runs every target on its corpus and on mutations of it, within limits of time and memory.
//!
//! `FPXINT_FUZZ_SECONDS` says for how many seconds a target is mutated (1), `FPXINT_FUZZ_SEED` where the mutations begin. An
//! input that fails is kept in the folder that the failure names; once what it found is fixed it belongs in the corpus.

use std::collections::hash_map::DefaultHasher;
use std::env;
use std::fs;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use fpxint_fuzz::{Mutator, TARGETS, Target};

/// Longest that one input may take of a processor.
const LONGEST: Duration = Duration::from_secs(5);
/// Most memory that one input may hold at a time, in bytes.
const MOST: u64 = 64 << 20;

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn target(name: &str) -> Target {
    *TARGETS.iter().find(|(other, _)| *other == name).expect("a target of this name")
}

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

/// Keeps an input that failed.
fn keep(name: &str, input: &[u8]) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{:016x}", hasher.finish()));
    fs::write(&path, input).unwrap();
    path
}

/// What a thread has had of a processor, where the system says so; otherwise what has passed.
enum Clock {
    Thread(PathBuf),
    Wall(Instant),
}

impl Clock {
    fn of_this_thread() -> Self {
        let stat = fs::read_link("/proc/thread-self").map(|task| Path::new("/proc").join(task).join("stat"));
        stat.map_or_else(|_| Self::Wall(Instant::now()), Self::Thread)
    }

    /// `None` once the thread is gone.
    fn spent(&self) -> Option<Duration> {
        match self {
            Self::Wall(start) => Some(start.elapsed()),
            Self::Thread(stat) => {
                let text = fs::read_to_string(stat).ok()?;
                let mut fields = text.rsplit(") ").next()?.split(' ').skip(11);
                let mut ticks = || fields.next()?.parse::<u64>().ok();
                Some(Duration::from_millis(10 * (ticks()? + ticks()?)))
            }
        }
    }
}

/// An input, and what the thread had had of a processor when it began.
type Begun = Option<(Duration, Vec<u8>)>;

/// Ends the process if an input takes too long.
struct Watchdog {
    current: Arc<Mutex<Begun>>,
    clock: Arc<Clock>,
    over: Arc<AtomicBool>,
}

impl Watchdog {
    fn new(name: &'static str) -> Self {
        let dog = Self {
            current: Arc::default(),
            clock: Arc::new(Clock::of_this_thread()),
            over: Arc::new(AtomicBool::new(false)),
        };
        let (current, clock, over) = (dog.current.clone(), dog.clock.clone(), dog.over.clone());
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(200));
                if let Some((since, input)) = &*current.lock().unwrap()
                    && clock.spent().is_some_and(|spent| spent.saturating_sub(*since) > LONGEST)
                {
                    eprintln!("{name}: an input takes more than {LONGEST:?}; kept as {:?}", keep(name, input));
                    process::exit(101);
                }
            }
        });
        dog
    }

    fn watch(&self, input: &[u8]) {
        *self.current.lock().unwrap() = Some((self.clock.spent().unwrap_or_default(), input.to_vec()));
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        *self.current.lock().unwrap() = None;
    }
}

/// Runs a target on one input.
fn run((name, target): Target, dog: &Watchdog, input: &[u8]) {
    dog.watch(input);
    let mut panic = None;
    let memory = allocation_counter::measure(|| {
        panic = catch_unwind(AssertUnwindSafe(|| target(input))).err();
    });
    if let Some(panic) = panic {
        eprintln!("{name}: the input is kept as {:?}", keep(name, input));
        resume_unwind(panic);
    }
    assert!(
        memory.bytes_max <= MOST,
        "{name}: an input holds {} bytes at a time; kept as {:?}",
        memory.bytes_max,
        keep(name, input)
    );
}

fn fuzz(name: &'static str) {
    let (target, corpus) = (target(name), corpus(name));
    assert!(!corpus.is_empty(), "{name} has no corpus");
    let dog = Watchdog::new(name);
    for (path, input) in &corpus {
        eprintln!("{name}: {:?}", path.file_name().unwrap());
        run(target, &dog, input);
    }
    let inputs: Vec<Vec<u8>> = corpus.into_iter().map(|(_, input)| input).collect();
    let mut mutator = Mutator::new(number("FPXINT_FUZZ_SEED", 1));
    let (start, most) = (Instant::now(), Duration::from_secs(number("FPXINT_FUZZ_SECONDS", 1)));
    let mut runs = 0u64;
    while start.elapsed() < most || runs < 200 {
        run(target, &dog, &mutator.input(&inputs));
        runs += 1;
    }
    println!("{name}: {} inputs of the corpus, {runs} mutations in {:.1?}", inputs.len(), start.elapsed());
}

#[test]
fn onnx_models() {
    fuzz("onnx");
}

#[test]
fn artefacts() {
    fuzz("artefact");
}

#[test]
fn tensors_in_other_files() {
    fuzz("external");
}

#[test]
fn npy_arrays() {
    fuzz("npy");
}

#[test]
fn plans() {
    fuzz("plan");
}

#[test]
fn precisions() {
    fuzz("precision");
}

#[test]
fn every_target_has_a_test_and_a_fuzz_target() {
    let source = include_str!("fuzz.rs");
    for (name, _) in TARGETS {
        assert!(source.contains(&format!("fuzz(\"{name}\");")), "{name} is tested");
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../fuzz/fuzz_targets/{name}.rs"));
        assert!(fs::read_to_string(&file).unwrap().contains(&format!("fpxint_fuzz::{name}(data)")), "{file:?}");
    }
}
