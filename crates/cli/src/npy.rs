//! Reading .npy and .npz arrays from files that are not trusted.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use ndarray::ArrayD;
use ndarray_npy::npy::header::Header;
use ndarray_npy::{ReadNpyError, ReadNpyExt, ReadableElement};
use zip::ZipArchive;

/// Largest array taken from an archive, unpacked.
const MOST_BYTES: u64 = 4 << 30;

/// Longest part of an error of the reader that is shown, in characters.
const MOST_SHOWN: usize = 300;

/// An array from the bytes of a .npy file; `what` says in errors which.
///
/// # Errors
/// What is wrong with it, and that it holds something other than `wanted`.
pub fn array<T: ReadableElement>(bytes: &[u8], what: &str, wanted: &str) -> Result<ArrayD<T>> {
    ensure!(header_fits(bytes), "{what}: not a .npy array that can be read: it is cut off in its header");
    let mut values = bytes;
    // Nothing is allocated on the word of a header alone.
    if let Ok(Header { shape, .. }) = Header::from_reader(&mut values) {
        let stated = shape.iter().try_fold(1usize, |len, &dim| len.checked_mul(dim));
        let holds = stated.is_some_and(|len| len <= values.len());
        ensure!(holds, "{what}: its {} bytes of values do not fill shape {shape:?}", values.len());
    }
    ArrayD::<T>::read_npy(bytes).map_err(|error| match error {
        ReadNpyError::WrongDescriptor(found) => {
            anyhow!("{what} holds {}, but {wanted} is needed", shown(&found.to_string()))
        }
        error => anyhow!("{what}: not a .npy array that can be read: {}", shown(&error.to_string())),
    })
}

/// Whether a file holds the header that it states the length of: two bytes in version 1, four in later ones.
fn header_fits(bytes: &[u8]) -> bool {
    let stated = match bytes.get(6..) {
        Some([1, _, low, high, ..]) => u32::from(u16::from_le_bytes([*low, *high])),
        Some([_, _, a, b, c, d, ..]) => u32::from_le_bytes([*a, *b, *c, *d]),
        _ => 0,
    };
    stated as usize <= bytes.len()
}

/// What may quote the file: on one line, without control characters, cut where it is long.
fn shown(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().take(MOST_SHOWN).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The bytes of one array of an archive.
pub(crate) fn entry(path: &Path, name: &str) -> Result<Vec<u8>> {
    let mut archive = ZipArchive::new(File::open(path)?).context("not an .npz archive")?;
    let file = archive.by_name(&format!("{name}.npy")).with_context(|| format!("no array `{name}` in it"))?;
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).with_context(|| format!("array `{name}`"))?;
    ensure!(bytes.len() as u64 <= MOST_BYTES, "array `{name}` is larger than {} GiB", MOST_BYTES >> 30);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_longer_than_the_file_is_refused() {
        for version in [2, 3, 9] {
            let bytes = [b"\x93NUMPY".as_slice(), &[version, 0, 0xff, 0xff, 0xff, 0x7f], b"{'descr'"].concat();
            let error = array::<u8>(&bytes, "x.npy", "uint8").unwrap_err().to_string();
            assert!(error.contains("cut off in its header"), "{error}");
        }
    }

    #[test]
    fn a_header_that_promises_too_much_is_refused() {
        let dict = "{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776, 32), }";
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((dict.len() as u16 + 1).to_le_bytes());
        bytes.extend(dict.bytes());
        bytes.extend(b"\nabc");
        let error = array::<u8>(&bytes, "x.npy", "uint8").unwrap_err().to_string();
        assert!(error.contains("3 bytes of values do not fill shape [1099511627776, 32]"), "{error}");
    }
}
