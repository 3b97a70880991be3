//! Inputs of a model: from .npy files, or random.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail};
use fpxint_onnx::available_memory;
use fpxint_runtime::{Element, Port, Value};
use ndarray::{ArrayD, IxDyn};
use ndarray_npy::{ReadableElement, WriteNpyExt};

use crate::args::Sizes;
use crate::npy;
use crate::table::bytes;

/// Reads `NAME=FILE.npy` arguments as the ports' element types.
pub(crate) fn read(ports: &[Port], arguments: &[String]) -> Result<Vec<(String, Value)>> {
    let parse = |argument: &String| {
        let (name, file) = argument.rsplit_once('=').with_context(|| format!("`{argument}` is not NAME=FILE.npy"))?;
        let Some(port) = ports.iter().find(|port| port.name == name) else {
            let names: Vec<_> = ports.iter().map(|p| format!("`{}`", p.name)).collect();
            bail!("the model has no input `{name}`; it has {}", names.join(", "));
        };
        let element = port.element.with_context(|| format!("input `{name}` is of an unsupported type"))?;
        let value = read_npy(Path::new(file), element).with_context(|| format!("input `{name}`"))?;
        Ok((name.to_owned(), value))
    };
    arguments.iter().map(parse).collect()
}

fn read_npy(path: &Path, element: Element) -> Result<Value> {
    Ok(match element {
        Element::F32 => Value::F32(typed(path, element)?),
        Element::F64 => Value::F64(typed(path, element)?),
        Element::I64 => Value::I64(typed(path, element)?),
        Element::I32 => Value::I32(typed(path, element)?),
        Element::I8 => Value::I8(typed(path, element)?),
        Element::U8 => Value::U8(typed(path, element)?),
        Element::Bool => Value::Bool(typed(path, element)?),
    })
}

fn typed<T: ReadableElement>(path: &Path, wanted: Element) -> Result<ArrayD<T>> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    npy::array(&bytes, &path.display().to_string(), &wanted.to_string())
}

/// Writes a value as .npy.
pub(crate) fn write_npy(path: &Path, value: &Value) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let file = std::io::BufWriter::new(file);
    match value {
        Value::F32(a) => a.write_npy(file),
        Value::F64(a) => a.write_npy(file),
        Value::I64(a) => a.write_npy(file),
        Value::I32(a) => a.write_npy(file),
        Value::I8(a) => a.write_npy(file),
        Value::U8(a) => a.write_npy(file),
        Value::Bool(a) => a.write_npy(file),
    }
    .with_context(|| format!("cannot write {}", path.display()))
}

/// Pixels along a side where an image model leaves it open.
const OPEN_IMAGE_SIZE: usize = 224;

/// Token numbers are below this, or below the number of rows they look up.
const TOKENS: u64 = 1000;

/// Most values of a random input.
const MOST_RANDOM: usize = 1 << 30;

/// Random inputs for every port: normal floats; for integers token ids, masks of ones and types of zeros by name.
pub(crate) fn random(ports: &[Port], sizes: Sizes, seed: u64) -> Result<Vec<(String, Value)>> {
    let mut generator = Generator(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1);
    let value = |port: &Port| {
        let size = |(axis, dim): (usize, &Option<usize>)| match (dim, port.element, axis) {
            (Some(size), _, _) => *size,
            (None, _, 0) => sizes.batch as usize,
            (None, Some(Element::F32), 2..) if port.shape.len() == 4 => OPEN_IMAGE_SIZE,
            (None, _, _) => sizes.sequence as usize,
        };
        let sizes: Vec<usize> = port.shape.iter().enumerate().map(size).collect();
        let len = sizes.iter().try_fold(1usize, |len, &size| len.checked_mul(size)).filter(|&len| len <= MOST_RANDOM);
        let len = len.with_context(|| format!("input `{}` of shape {sizes:?} is too large", port.name))?;
        let needed = 8 * len as u64;
        if let Some(available) = available_memory().filter(|&available| needed > available) {
            bail!(
                "input `{}` of shape {sizes:?} takes {}, but {} of memory can be had",
                port.name,
                bytes(needed),
                bytes(available)
            );
        }
        let shape = IxDyn(&sizes);
        let tokens = port.rows.map_or(TOKENS, |rows| (rows as u64).clamp(1, TOKENS));
        let integers = |g: &mut Generator| -> Vec<i64> {
            match &port.name {
                name if name.contains("mask") => vec![1; len],
                name if name.contains("type") => vec![0; len],
                _ => (0..len).map(|_| (g.next() % tokens) as i64).collect(),
            }
        };
        let shaped = "as many values as the shape says";
        let value = match port.element {
            Some(Element::F32) => Value::F32(
                ArrayD::from_shape_vec(shape, (0..len).map(|_| generator.normal()).collect()).context(shaped)?,
            ),
            Some(Element::I64) => Value::I64(ArrayD::from_shape_vec(shape, integers(&mut generator)).context(shaped)?),
            Some(Element::I32) => {
                let values = integers(&mut generator).into_iter().map(|v| v as i32).collect();
                Value::I32(ArrayD::from_shape_vec(shape, values).context(shaped)?)
            }
            other => bail!("input `{}`: no random values of type {other:?}; pass a file", port.name),
        };
        Ok((port.name.clone(), value))
    };
    ports.iter().map(value).collect()
}

/// A small pseudo-random generator (splitmix64): inputs must not depend on a library's version.
#[derive(Debug, Clone)]
pub(crate) struct Generator(u64);

impl Generator {
    /// The generator of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Evenly spread in `[0, 1)`.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Nearly normal: the sum of twelve uniform values less six.
    pub(crate) fn normal(&mut self) -> f32 {
        let sum: f32 = (0..12).map(|_| (self.next() >> 40) as f32 / (1u32 << 24) as f32).sum();
        sum - 6.0
    }
}

/// Grids of noise that a synthetic image is a sum of, in cells a side.
const OCTAVES: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

/// As [`synthetic()`], but images are white noise, and tokens are drawn the more often the lower their number.
pub(crate) fn rough(ports: &[Port], sizes: Sizes, seed: u64) -> Result<Vec<(String, Value)>> {
    let mut values = random(ports, sizes, seed)?;
    let skewed = |generator: &mut Generator, rows: u64| {
        let uniform = || (generator.next() >> 40) as f64 / (1u64 << 24) as f64;
        let share: f64 = std::iter::repeat_with(uniform).take(3).product();
        (share * rows as f64) as u64
    };
    draw_tokens(&mut values, ports, &mut Generator(seed), skewed);
    Ok(values)
}

/// Draws the numbers of tokens anew, below the number of rows that they look up.
fn draw_tokens(
    values: &mut [(String, Value)],
    ports: &[Port],
    generator: &mut Generator,
    draw: fn(&mut Generator, u64) -> u64,
) {
    for ((name, value), port) in values.iter_mut().zip(ports) {
        let Some(rows) = port.rows.filter(|_| !name.contains("mask") && !name.contains("type")) else { continue };
        let rows = (rows as u64).max(1);
        match value {
            Value::I64(ids) => ids.iter_mut().for_each(|id| *id = draw(generator, rows).min(rows - 1) as i64),
            Value::I32(ids) => ids.iter_mut().for_each(|id| *id = draw(generator, rows).min(rows - 1) as i32),
            _ => {}
        }
    }
}

/// As [`random()`], but inputs of four dimensions are images: noise whose power falls with frequency as it does in
/// photographs, in channels that resemble each other; and tokens are any that can be looked up.
pub(crate) fn synthetic(ports: &[Port], sizes: Sizes, seed: u64) -> Result<Vec<(String, Value)>> {
    let mut values = random(ports, sizes, seed)?;
    let mut generator = Generator(seed);
    draw_tokens(&mut values, ports, &mut generator, |generator, rows| generator.next() % rows);
    for (_, value) in &mut values {
        if let Value::F32(value) = value
            && let &[_, channels, height, width] = value.shape()
        {
            for mut sample in value.outer_iter_mut() {
                let shared = clouds(&mut generator, height, width);
                let mut image = Vec::with_capacity(sample.len());
                for _ in 0..channels {
                    let own = clouds(&mut generator, height, width);
                    image.extend(shared.iter().zip(&own).map(|(shared, own)| 0.95 * shared + 0.3 * own));
                }
                sample.iter_mut().zip(image).for_each(|(pixel, value)| *pixel = value);
            }
        }
    }
    Ok(values)
}

/// Smooth noise of mean zero and variance one.
fn clouds(generator: &mut Generator, height: usize, width: usize) -> Vec<f32> {
    let mut sum = vec![0f32; height * width];
    for cells in OCTAVES.into_iter().filter(|&cells| cells <= height.max(width)) {
        let side = cells + 1;
        let grid: Vec<f32> = (0..side * side).map(|_| generator.normal()).collect();
        let place = |i: usize, size: usize| {
            let at = i as f32 * cells as f32 / size as f32;
            (at as usize, at.fract())
        };
        for (y, row) in sum.chunks_exact_mut(width).enumerate() {
            let (top, down) = place(y, height);
            for (x, pixel) in row.iter_mut().enumerate() {
                let (left, right) = place(x, width);
                let line = |y: usize| grid[y * side + left] * (1.0 - right) + grid[y * side + left + 1] * right;
                *pixel += (line(top) * (1.0 - down) + line(top + 1) * down) / (cells as f32).sqrt();
            }
        }
    }
    let count = sum.len().max(1) as f64;
    let mean = sum.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
    let power = sum.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / count;
    let scale = if power > 0.0 { 1.0 / power.sqrt() } else { 0.0 };
    sum.iter().map(|&v| ((f64::from(v) - mean) * scale) as f32).collect()
}
