//! Pools of NHWC images by their definition, one output at a time.

/// Geometry of a pool over one image.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Pooled {
    pub input: [usize; 2],
    pub channels: usize,
    pub kernel: [usize; 2],
    pub strides: [usize; 2],
    pub dilations: [usize; 2],
    /// Top, left, bottom, right.
    pub pads: [usize; 4],
    pub output: [usize; 2],
}

impl Pooled {
    /// For every output its window's values in row-major order, and how many of its elements lie in image or padding.
    fn windows(&self, x: &[f32]) -> Vec<(Vec<f32>, usize)> {
        let mut windows = Vec::new();
        for row in 0..self.output[0] {
            for column in 0..self.output[1] {
                for channel in 0..self.channels {
                    let (mut values, mut counted) = (Vec::new(), 0);
                    for ky in 0..self.kernel[0] {
                        for kx in 0..self.kernel[1] {
                            let at = |axis: usize, place: usize, element: usize| {
                                (place * self.strides[axis] + element * self.dilations[axis]) as i64
                                    - self.pads[axis] as i64
                            };
                            let (top, left) = (at(0, row, ky), at(1, column, kx));
                            let [height, width] = self.input.map(|size| size as i64);
                            counted +=
                                usize::from(top < height + self.pads[2] as i64 && left < width + self.pads[3] as i64);
                            if (0..height).contains(&top) && (0..width).contains(&left) {
                                values.push(x[(top * width + left) as usize * self.channels + channel]);
                            }
                        }
                    }
                    windows.push((values, counted));
                }
            }
        }
        windows
    }
}

/// The largest value of every window of one image; NaN where it holds one, `-inf` where it holds nothing.
pub fn max_pool(g: &Pooled, x: &[f32]) -> Vec<f32> {
    let largest = |(values, _): (Vec<f32>, usize)| {
        if values.iter().any(|v| v.is_nan()) {
            return f32::NAN;
        }
        values.into_iter().fold(f32::NEG_INFINITY, |best, v| if v > best { v } else { best })
    };
    g.windows(x).into_iter().map(largest).collect()
}

/// The mean of every window of one image: its values added in order, then one division.
pub fn average_pool(g: &Pooled, count_padding: bool, x: &[f32]) -> Vec<f32> {
    let mean = |(values, counted): (Vec<f32>, usize)| {
        let count = if count_padding { counted } else { values.len() };
        match values.into_iter().reduce(|sum, v| sum + v) {
            Some(sum) => sum / count as f32,
            None => 0.0,
        }
    };
    g.windows(x).into_iter().map(mean).collect()
}
