//! Damaged files: an error or a model, never a panic.

use crate::body::exercise;
use crate::build::*;
use fpxint::Granularity;
use prost::Message;

/// A folder in memory where there is one: the body syncs every file it writes.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn samples() -> Vec<Vec<u8>> {
    let normed = conv(13).model();
    let (written, _) = artefact(&normed, "int4x2", Granularity::Channel);
    let (product, _) = artefact(&gemm(13, true, vec![]).model(), "int2x3", Granularity::Tensor);
    let looked_through = Build::new(13, &[2, 5], 2)
        .floats("v", &[3, 5], &ramp(15))
        .op("Transpose", &["v"], "w")
        .op("MatMul", &["x", "w"], "h")
        .floats("c", &[3], &ramp(3))
        .op("Add", &["h", "c"], "y");
    vec![conv(9).bytes().to_vec(), looked_through.bytes().to_vec(), written.encode_to_vec(), product.encode_to_vec()]
}

#[test]
fn truncation_at_every_byte_is_survived() {
    let folder = folder();
    for sample in samples() {
        assert!(exercise(sample.clone().into(), folder.path()));
        for end in 0..sample.len() {
            exercise(sample[..end].to_vec().into(), folder.path());
        }
    }
}

#[test]
fn flipped_bytes_are_survived() {
    let folder = folder();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for sample in samples() {
        for _ in 0..1500 {
            let mut bytes = sample.clone();
            for _ in 0..1 + random() % 3 {
                let at = random() as usize % bytes.len();
                bytes[at] ^= 1 << (random() % 8);
            }
            exercise(bytes.into(), folder.path());
        }
    }
}
