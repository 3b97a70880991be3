//! Throughput of the float operators of encoders, one thread: items a second are multiply-accumulates or values.
//!
//! `cargo bench -p fpxint-kernels --bench encoder`; `FPXINT_KERNEL` chooses the kernel.

use divan::{Bencher, counter::ItemsCount};
use fpxint_kernels::{Activation, Attention, Extent, Kernel, Norm, Operands, Rotation, Rows, Workspace, select};

fn main() {
    divan::main();
}

fn kernel() -> &'static dyn Kernel {
    select().expect("FPXINT_KERNEL")
}

fn wave(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * 0.7).sin()).collect()
}

/// Heads, tokens and values of a head.
const SIZES: [(usize, usize, usize); 6] =
    [(12, 128, 64), (12, 128, 32), (12, 16, 64), (12, 384, 64), (12, 512, 64), (12, 197, 64)];

#[divan::bench(args = SIZES)]
fn attention(bencher: Bencher, size: (usize, usize, usize)) {
    attend(bencher, size, None);
}

#[divan::bench(args = SIZES)]
fn integer_attention(bencher: Bencher, size: (usize, usize, usize)) {
    attend(bencher, size, Some(127));
}

fn attend(bencher: Bencher, (heads, tokens, depth): (usize, usize, usize), steps: Option<u8>) {
    let row = heads * depth;
    let x = wave(3 * tokens * row);
    let rows = |i: usize| Rows { values: &x[i * row..], stride: 3 * row };
    let operands = Operands { queries: rows(0), keys: rows(1), values: rows(2), mask: None };
    let extent = Extent { batch: 1, queries: tokens, keys: tokens, depth, width: depth };
    let (mut y, mut scratch) = (vec![0.0; tokens * row], Workspace::default());
    let attention = Attention { heads, scale: 0.125, steps };
    let macs = 2 * tokens * tokens * row;
    bencher
        .counter(ItemsCount::new(macs))
        .bench_local(|| attention.run(kernel(), &operands, extent, &mut y, &mut scratch, 1));
}

#[divan::bench(args = [384, 768])]
fn layer_norm(bencher: Bencher, k: usize) {
    let norm = Norm { scale: wave(k), bias: wave(k), epsilon: 1e-5, rms: false };
    let (x, mut y, mut ranges) = (wave(128 * k), vec![0.0; 128 * k], vec![]);
    bencher.counter(ItemsCount::new(x.len())).bench_local(|| norm.run(kernel(), &x, &mut y, &mut ranges, 1));
}

#[divan::bench(args = [384, 1536])]
fn rotation(bencher: Bencher, k: usize) {
    let rotation = Rotation::new(wave(128)).expect("128 factors");
    let (x, mut y, mut ranges) = (wave(128 * k), vec![0.0; 128 * k], vec![]);
    let counter = ItemsCount::new(x.len());
    bencher.counter(counter).bench_local(|| rotation.run(kernel(), (&x, k), &mut y, &mut ranges, 1));
}

#[divan::bench(args = [Activation::Gelu, Activation::GeluTanh, Activation::Silu])]
fn activation(bencher: Bencher, activation: Activation) {
    let (x, mut y) = (wave(128 * 3072), vec![0.0; 128 * 3072]);
    bencher.counter(ItemsCount::new(x.len())).bench_local(|| activation.run(kernel(), &x, &mut y, 1, 1));
}

#[divan::bench(args = [128, 512])]
fn softmax(bencher: Bencher, k: usize) {
    let (x, mut y) = (wave(12 * 128 * k), vec![0.0; 12 * 128 * k]);
    bencher.counter(ItemsCount::new(x.len())).bench_local(|| fpxint_kernels::softmax(kernel(), &x, k, &mut y, 1));
}

#[divan::bench]
fn sum(bencher: Bencher) {
    let (x, mut y) = (wave(128 * 768), vec![0.0; 768]);
    bencher
        .counter(ItemsCount::new(x.len()))
        .bench_local(|| fpxint_kernels::sum(kernel(), &x, [1, 128, 768], &mut y, 1));
}
