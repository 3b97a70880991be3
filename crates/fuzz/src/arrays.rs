//! Arrays in .npy files.

use fpxint_cli::npy::array;
use ndarray::ArrayD;
use ndarray_npy::{ReadableElement, WritableElement, WriteNpyExt};

use crate::told;

/// The reader of .npy: what is read is written, and read back the same.
pub fn npy(data: &[u8]) {
    as_array::<f32>(data, |x| u64::from(x.to_bits()));
    as_array::<i64>(data, |x| *x as u64);
    as_array::<u8>(data, |x| u64::from(*x));
    as_array::<bool>(data, |x| u64::from(*x));
}

/// Values are compared by their bits.
fn as_array<T: ReadableElement + WritableElement + Clone>(data: &[u8], bits: impl Fn(&T) -> u64) {
    let values: ArrayD<T> = match array(data, "input", "another type") {
        Ok(values) => values,
        Err(error) => return told(&format!("{error:#}")),
    };
    assert!(values.len() * size_of::<T>() <= data.len(), "more values than the file holds");
    let mut written = Vec::new();
    values.write_npy(&mut written).expect("a vector takes everything");
    let again: ArrayD<T> = array(&written, "written", "another type").expect("what was written is read");
    assert_eq!(again.shape(), values.shape());
    assert!(again.iter().map(&bits).eq(values.iter().map(&bits)));
}
