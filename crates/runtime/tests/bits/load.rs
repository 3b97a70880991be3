//! Many threads on one model, with batches and lengths of every size.
//!
//! `FPXINT_LOAD_SECONDS` says for how long a model is kept busy (0.5). Where it is set the memory of the process is watched too,
//! which takes a process that does nothing else:
//!
//! ```text
//! FPXINT_LOAD_SECONDS=60 cargo test --workspace --test bits load::a_crowd -- --nocapture --test-threads 1
//! ```

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fpxint_runtime::{Model, Value};

use crate::build::digits;
use crate::encoder::{Style, encoder, sentences};
use crate::{array, bits, feed, load, options};

/// Threads that call the model.
const CLIENTS: u64 = 64;

type Inputs = Vec<(String, Value)>;

/// Resident memory in bytes, where the system tells.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(4096 * text.split(' ').nth(1)?.parse::<u64>().ok()?)
}

/// Splitmix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Lets the clients run for a time; returns the number of runs and the memory that was resident at every look.
///
/// Before that every client warms up, so many rounds of every request followed by the largest, the last one: a buffer that a small
/// value was in when a large one came is grown, until all of a call's buffers hold its largest value.
fn crowd(model: &Model, requests: &[(Inputs, Vec<u32>)], time: Duration, rounds: usize) -> (u64, Vec<u64>) {
    let (over, runs, warm) = (AtomicBool::new(false), AtomicU64::new(0), Barrier::new(CLIENTS as usize + 1));
    let mut memory = Vec::new();
    let run = |(inputs, want): &(Inputs, Vec<u32>)| {
        assert!(bits(&model.run(inputs).unwrap()) == *want);
        runs.fetch_add(1, Ordering::Relaxed);
    };
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (over, warm, run) = (&over, &warm, &run);
            scope.spawn(move || {
                let pairs = requests.iter().flat_map(|request| [request, &requests[requests.len() - 1]]);
                (0..rounds).for_each(|_| pairs.clone().for_each(run));
                warm.wait();
                let mut state = client;
                while !over.load(Ordering::Relaxed) {
                    run(&requests[(next(&mut state) % requests.len() as u64) as usize]);
                }
            });
        }
        warm.wait();
        let start = Instant::now();
        while start.elapsed() < time {
            memory.extend(resident());
            std::thread::sleep(Duration::from_millis(100));
        }
        over.store(true, Ordering::Relaxed);
    });
    (runs.into_inner(), memory)
}

/// Largest of a part of the looks at the memory, in MB.
fn peak(memory: &[u64]) -> f64 {
    memory.iter().max().map_or(0.0, |&bytes| bytes as f64 / 1e6)
}

fn serve(name: &str, model: &Model, requests: Vec<Inputs>) {
    let seconds: Option<f64> = std::env::var("FPXINT_LOAD_SECONDS").ok().map(|text| text.parse().unwrap());
    let time = Duration::from_secs_f64(seconds.unwrap_or(0.5));
    let requests: Vec<_> =
        requests.into_iter().map(|x| (bits(&model.run(&x).unwrap()), x)).map(|(y, x)| (x, y)).collect();
    let (runs, memory) = crowd(model, &requests, time, if seconds.is_some() { 8 } else { 1 });
    let thirds: Vec<f64> = memory.chunks(memory.len().div_ceil(3).max(1)).map(peak).collect();
    let (warm, after) = (thirds.first().copied().unwrap_or(0.0), thirds.last().copied().unwrap_or(0.0));
    println!(
        "{name}: {CLIENTS} threads, {runs} runs, {time:.1?} of them after warm-up, all equal; MB by thirds: {thirds:.1?}"
    );
    assert!(runs > CLIENTS * requests.len() as u64);
    if seconds.is_some() {
        assert!(after <= 1.01 * warm + 1.0, "{name}: memory grew from {warm:.1} MB to {after:.1} MB");
    }
}

#[test]
fn a_crowd_on_an_image_network_gets_the_bits_of_one() {
    let mut options = options("int4x2", "int4x2");
    options.threads = 2;
    let requests = (1..=12).map(|batch| feed("input", array(&[batch, 1, 8, 8], 0.1 * batch as f32))).collect();
    serve("images", &load(&digits(), &options), requests);
}

#[test]
fn a_crowd_on_an_encoder_gets_the_bits_of_one() {
    let model = load(&encoder(Style::Bert), &options("int4x2", "int4x2"));
    let lengths = [7, 19, 33, 1, 64, 12, 50, 3];
    let request = |batch: usize, length: usize| {
        let own: Vec<usize> = lengths[..batch].iter().map(|&l| l.min(length)).collect();
        sentences(&own, length)
    };
    let requests = (1..=8).flat_map(|batch| [8, 33, 70].map(|length| request(batch, length))).collect();
    serve("sentences", &model, requests);
}
