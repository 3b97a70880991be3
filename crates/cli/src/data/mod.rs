//! Labelled data sets, and how models take what is in them.

pub(crate) mod cifar10;
pub(crate) mod imagenet;
pub(crate) mod mnli;
pub(crate) mod squad;
pub(crate) mod sts_b;
pub(crate) mod text;
pub(crate) mod token_input;
pub(crate) mod tokens;

use anyhow::{Context, Result, bail};
use fpxint_runtime::{Element, Port, Value};
use ndarray::{ArrayD, IxDyn};

use crate::args::Preset;

/// A labelled data set of images.
pub(crate) trait Images: Sync {
    /// Number of samples.
    fn len(&self) -> usize;

    /// Class of sample `index`.
    fn label(&self, index: usize) -> usize;

    /// Pixels of sample `index`, `(height, width, 3)`, 0 to 255.
    fn pixels(&self, index: usize, size: [usize; 2]) -> Result<Vec<u8>>;
}

/// Scale, mean and standard deviation of the colour channels.
fn normalise(preset: Preset, channel: usize, pixel: u8) -> f32 {
    let pixel = f32::from(pixel);
    match preset {
        Preset::Torchvision => (pixel / 255.0 - [0.485, 0.456, 0.406][channel]) / [0.229, 0.224, 0.225][channel],
        Preset::Tf => pixel / 127.5 - 1.0,
    }
}

/// How a model takes images: its input, and whether channels come first.
#[derive(Debug, Clone)]
pub(crate) struct ImageInput {
    name: String,
    channels_first: bool,
    /// Images in a batch, where the model fixes it.
    pub batch: Option<usize>,
    /// Height and width, where the model fixes them.
    pub size: [Option<usize>; 2],
}

impl ImageInput {
    /// The image input among a model's ports.
    pub(crate) fn of(ports: &[Port]) -> Result<Self> {
        let [port] = ports else { bail!("the model has {} inputs, but images are one", ports.len()) };
        let shape = &port.shape;
        let sizes: Vec<_> = shape.iter().map(|d| d.map_or("?".to_owned(), |d| d.to_string())).collect();
        let fault = || format!("input `{}` of shape [{}] does not take colour images", port.name, sizes.join(", "));
        if shape.len() != 4 || port.element != Some(Element::F32) {
            bail!(fault());
        }
        let channels_first = match (shape[1], shape[3]) {
            (Some(3) | None, _) => true,
            (_, Some(3)) => false,
            _ => bail!(fault()),
        };
        let size = if channels_first { [shape[2], shape[3]] } else { [shape[1], shape[2]] };
        Ok(Self { name: port.name.clone(), channels_first, batch: shape[0], size })
    }

    /// A batch of images as the model's input, where the model fixes the batch filled up to that by repeating the last.
    pub(crate) fn batch(&self, images: &[Vec<u8>], size: [usize; 2], preset: Preset) -> Result<Vec<(String, Value)>> {
        let [height, width] = size;
        let pixels = height * width;
        let last = images.last().context("a batch without images")?;
        let n = self.batch.unwrap_or(images.len()).max(images.len());
        let mut x = vec![0f32; n * 3 * pixels];
        for (image, out) in images.iter().chain(std::iter::repeat(last)).zip(x.chunks_exact_mut(3 * pixels)) {
            for (i, &value) in image.iter().enumerate() {
                let (pixel, channel) = (i / 3, i % 3);
                let at = if self.channels_first { channel * pixels + pixel } else { i };
                out[at] = normalise(preset, channel, value);
            }
        }
        let shape = if self.channels_first { [n, 3, height, width] } else { [n, height, width, 3] };
        let array = ArrayD::from_shape_vec(IxDyn(&shape), x).context("a batch of images of one size")?;
        Ok(vec![(self.name.clone(), Value::F32(array))])
    }
}
