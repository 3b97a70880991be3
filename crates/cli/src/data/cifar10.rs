//! CIFAR-10: `test_batch.bin` of the binary version, or a `.npz` with `x` (u8, n x 32 x 32 x 3) and `y`.

use std::path::{Path, PathBuf};

use super::Images;
use crate::npy;
use anyhow::{Context, Result, bail, ensure};

const SIZE: usize = 32;
const PIXELS: usize = SIZE * SIZE;
/// Label, then 1,024 red, green and blue values.
const RECORD: usize = 1 + 3 * PIXELS;

/// The images in memory.
#[derive(Debug)]
pub(crate) struct Cifar10 {
    pixels: Vec<u8>,
    labels: Vec<usize>,
}

impl Cifar10 {
    /// Opens a file, or the one data file of a folder.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = if path.is_dir() { find(path)? } else { path.to_owned() };
        let name = file.display().to_string();
        let set = if file.extension().is_some_and(|e| e == "npz") { npz(&file) } else { binary(&file) };
        let set = set.with_context(|| name.clone())?;
        ensure!(!set.labels.is_empty(), "{name}: no images");
        ensure!(
            set.pixels.len() == set.labels.len() * 3 * PIXELS,
            "{name}: {} labels do not match {} images",
            set.labels.len(),
            set.pixels.len() / (3 * PIXELS)
        );
        if let Some(bad) = set.labels.iter().find(|&&label| label > 9) {
            bail!("{name}: label {bad} is not one of ten classes");
        }
        Ok(set)
    }
}

fn find(folder: &Path) -> Result<PathBuf> {
    let binary = folder.join("test_batch.bin");
    if binary.is_file() {
        return Ok(binary);
    }
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let paths = entries.filter_map(|entry| entry.ok().map(|e| e.path()));
    let mut found: Vec<_> = paths.filter(|p| p.extension().is_some_and(|e| e == "npz")).collect();
    found.sort();
    match &found[..] {
        [one] => Ok(one.clone()),
        [] => bail!("{}: neither test_batch.bin nor a .npz file is there", folder.display()),
        _ => bail!("{}: several .npz files are there; name one", folder.display()),
    }
}

fn npz(path: &Path) -> Result<Cifar10> {
    let x = npy::array::<u8>(&npy::entry(path, "x")?, "array `x`", "uint8")?;
    ensure!(
        x.ndim() == 4 && x.shape()[1..] == [SIZE, SIZE, 3],
        "array `x` has shape {:?}, not n x 32 x 32 x 3",
        x.shape()
    );
    let y = npy::entry(path, "y")?;
    let labels = npy::array::<i64>(&y, "array `y`", "int64")
        .or_else(|_| npy::array::<i32>(&y, "array `y`", "int32").map(|y| y.mapv(i64::from)))
        .or_else(|_| npy::array::<u8>(&y, "array `y`", "uint8, int32 or int64").map(|y| y.mapv(i64::from)))?;
    let label =
        |&label: &i64| usize::try_from(label).with_context(|| format!("label {label} is not one of ten classes"));
    let labels = labels.iter().map(label).collect::<Result<_>>()?;
    Ok(Cifar10 { pixels: x.iter().copied().collect(), labels })
}

fn binary(path: &Path) -> Result<Cifar10> {
    let bytes = std::fs::read(path)?;
    ensure!(bytes.len().is_multiple_of(RECORD), "{} bytes are not whole records of {RECORD}", bytes.len());
    let mut pixels = Vec::with_capacity(bytes.len());
    let mut labels = Vec::with_capacity(bytes.len() / RECORD);
    for record in bytes.chunks_exact(RECORD) {
        labels.push(usize::from(record[0]));
        let planes = &record[1..];
        pixels.extend((0..3 * PIXELS).map(|i| planes[i % 3 * PIXELS + i / 3]));
    }
    Ok(Cifar10 { pixels, labels })
}

impl Images for Cifar10 {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn label(&self, index: usize) -> usize {
        self.labels[index]
    }

    fn pixels(&self, index: usize, size: [usize; 2]) -> Result<Vec<u8>> {
        ensure!(size == [SIZE, SIZE], "the model takes {size:?} pixels, but CIFAR-10 images have 32 x 32");
        Ok(self.pixels[index * 3 * PIXELS..][..3 * PIXELS].to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_records_become_interleaved_pixels() {
        let folder = tempfile::tempdir().unwrap();
        let mut record = vec![7u8];
        record.extend((0..3 * PIXELS).map(|i| (i / PIXELS * 50 + i % PIXELS % 50) as u8));
        std::fs::write(folder.path().join("test_batch.bin"), [record.clone(), record].concat()).unwrap();
        let set = Cifar10::open(folder.path()).unwrap();
        assert_eq!((set.len(), set.label(1)), (2, 7));
        assert_eq!(set.pixels(1, [32, 32]).unwrap()[..6], [0, 50, 100, 1, 51, 101]);
        assert!(set.pixels(0, [224, 224]).is_err());
    }

    #[test]
    fn broken_sets_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Cifar10::open(folder.path()).unwrap_err();
        assert!(format!("{:#}", open()).contains("neither test_batch.bin"));
        let file = folder.path().join("test_batch.bin");
        std::fs::write(&file, [0u8; 100]).unwrap();
        assert!(format!("{:#}", open()).contains("not whole records"));
        std::fs::write(&file, [99u8; RECORD]).unwrap();
        assert!(format!("{:#}", open()).contains("label 99"));
        std::fs::write(&file, []).unwrap();
        assert!(format!("{:#}", open()).contains("no images"));
    }
}
