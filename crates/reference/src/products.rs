//! Three-loop matrix product and seven-loop convolution, in i64.

/// `C (m, n) = A (m, k) * B (n, k)^T`, row-major.
pub fn gemm(m: usize, n: usize, k: usize, a: &[i64], b: &[i64]) -> Vec<i64> {
    let mut c = vec![0; m * n];
    for row in 0..m {
        for column in 0..n {
            for depth in 0..k {
                c[row * n + column] += a[row * k + depth] * b[column * k + depth];
            }
        }
    }
    c
}

/// Geometry of a 2-D convolution of one image.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Convolution {
    pub input: [usize; 2],
    pub channels_in: usize,
    pub channels_out: usize,
    pub groups: usize,
    pub kernel: [usize; 2],
    pub strides: [usize; 2],
    pub dilations: [usize; 2],
    /// Top, left, bottom, right.
    pub pads: [usize; 4],
}

impl Convolution {
    /// Height and width of the output.
    pub fn output(&self) -> [usize; 2] {
        [0, 1].map(|axis| {
            let extent = (self.kernel[axis] - 1) * self.dilations[axis] + 1;
            (self.input[axis] + self.pads[axis] + self.pads[axis + 2] - extent) / self.strides[axis] + 1
        })
    }
}

/// Convolution of an NHWC image `x (h, w, channels_in)` with `w (channels_out, channels_in / groups, kh, kw)`; outside the
/// image `x` is zero. Output NHWC.
pub fn convolution(g: &Convolution, x: &[i64], w: &[i64]) -> Vec<i64> {
    let [height, width] = g.output();
    let (per_group_in, per_group_out) = (g.channels_in / g.groups, g.channels_out / g.groups);
    let mut y = Vec::with_capacity(height * width * g.channels_out);
    for row in 0..height {
        for column in 0..width {
            for out in 0..g.channels_out {
                let mut sum = 0;
                for channel in 0..per_group_in {
                    for ky in 0..g.kernel[0] {
                        for kx in 0..g.kernel[1] {
                            let top = (row * g.strides[0] + ky * g.dilations[0]).checked_sub(g.pads[0]);
                            let left = (column * g.strides[1] + kx * g.dilations[1]).checked_sub(g.pads[1]);
                            let (Some(top), Some(left)) = (top, left) else { continue };
                            if top >= g.input[0] || left >= g.input[1] {
                                continue;
                            }
                            let input = out / per_group_out * per_group_in + channel;
                            let weight = ((out * per_group_in + channel) * g.kernel[0] + ky) * g.kernel[1] + kx;
                            sum += x[(top * g.input[1] + left) * g.channels_in + input] * w[weight];
                        }
                    }
                }
                y.push(sum);
            }
        }
    }
    y
}
