//! A layer whose kernel is a product with constant weights: convolution or matrix product.

use crate::{Series, blocks};

/// How a convolution pads its borders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// Top, left, bottom, right.
    Explicit([usize; 4]),
    /// Output size `ceil(input / stride)`, an odd pixel at the end.
    SameUpper,
    /// Output size `ceil(input / stride)`, an odd pixel at the start.
    SameLower,
}

/// Geometry of a 1-D or 2-D convolution; a 1-D one has height 1 everywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvGeometry {
    /// 1 or 2.
    pub spatial_rank: usize,
    /// Channels of the whole input.
    pub channels_in: usize,
    /// Channels of the whole output.
    pub channels_out: usize,
    /// Groups; divides both channel counts.
    pub groups: usize,
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Vertical and horizontal stride.
    pub strides: [usize; 2],
    /// Vertical and horizontal dilation.
    pub dilations: [usize; 2],
    /// Border padding.
    pub padding: Padding,
}

impl ConvGeometry {
    /// Top, left, bottom, right padding for an input of `height` x `width`.
    pub fn pads(&self, input: [usize; 2]) -> [usize; 4] {
        let (upper, mut pads) = match self.padding {
            Padding::Explicit(pads) => return pads,
            Padding::SameUpper => (true, [0; 4]),
            Padding::SameLower => (false, [0; 4]),
        };
        for axis in 0..2 {
            let extent = (self.kernel[axis] - 1) * self.dilations[axis] + 1;
            let reach = input[axis].div_ceil(self.strides[axis]).saturating_sub(1) * self.strides[axis] + extent;
            let total = reach.saturating_sub(input[axis]);
            let (small, large) = (total / 2, total - total / 2);
            (pads[axis], pads[axis + 2]) = if upper { (small, large) } else { (large, small) };
        }
        pads
    }

    /// Height and width of the output for an input of `height` x `width`; `None` where the kernel does not fit.
    pub fn output(&self, input: [usize; 2]) -> Option<[usize; 2]> {
        let pads = self.pads(input);
        let size = |axis: usize| {
            let extent = (self.kernel[axis] - 1) * self.dilations[axis] + 1;
            let padded = input[axis] + pads[axis] + pads[axis + 2];
            Some(padded.checked_sub(extent)? / self.strides[axis] + 1)
        };
        Some([size(0)?, size(1)?])
    }
}

/// Geometry of `y = x W`, `x` of `(.., k)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatMulGeometry {
    /// Depth.
    pub k: usize,
    /// Output channels.
    pub n: usize,
    /// The weight is stored `(n, k)` rather than `(k, n)`.
    pub transposed: bool,
}

/// What a layer computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Geometry {
    /// Convolution; weight `(channels_out, channels_in / groups, kernel..)`, with one kernel axis for a 1-D one.
    Conv(ConvGeometry),
    /// Matrix product.
    MatMul(MatMulGeometry),
}

impl Geometry {
    /// Dimensions of the weight tensor.
    pub fn weight_shape(&self) -> Vec<usize> {
        match self {
            Geometry::Conv(g) => {
                let kernel = &g.kernel[2 - g.spatial_rank..];
                [&[g.channels_out, g.channels_in / g.groups], kernel].concat()
            }
            Geometry::MatMul(g) if g.transposed => vec![g.n, g.k],
            Geometry::MatMul(g) => vec![g.k, g.n],
        }
    }

    /// Axis of the weight tensor along which output channels lie.
    pub fn channel_axis(&self) -> usize {
        match self {
            Geometry::Conv(_) => 0,
            Geometry::MatMul(g) => usize::from(!g.transposed),
        }
    }

    /// Axis of the weight tensor along which the inputs of an output channel lie.
    pub fn input_axis(&self) -> usize {
        blocks::input_axis(self.channel_axis())
    }

    /// Output channels.
    pub fn channels_out(&self) -> usize {
        match self {
            Geometry::Conv(g) => g.channels_out,
            Geometry::MatMul(g) => g.n,
        }
    }

    /// Weights that one output value sums over: the depth K of its integer product.
    pub fn depth(&self) -> usize {
        match self {
            Geometry::Conv(g) => g.channels_in / g.groups * g.kernel[0] * g.kernel[1],
            Geometry::MatMul(g) => g.k,
        }
    }

    /// Each channel is convolved by itself, one filter a channel.
    pub fn is_depthwise(&self) -> bool {
        matches!(self, Geometry::Conv(g) if g.groups > 1 && g.groups == g.channels_in && g.groups == g.channels_out)
    }
}

/// Weights before or after expansion.
#[derive(Debug, Clone, PartialEq)]
pub enum Weight {
    /// Full precision, in the shape of [`Geometry::weight_shape`].
    Float(Vec<f32>),
    /// Already a series.
    Series(Series),
}

/// A layer to expand: a node of the graph with constant weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Name of the node.
    pub name: String,
    /// What it computes.
    pub geometry: Geometry,
    /// Its weights.
    pub weight: Weight,
    /// One value an output channel.
    pub bias: Option<Vec<f32>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry(padding: Padding) -> ConvGeometry {
        ConvGeometry {
            spatial_rank: 2,
            channels_in: 4,
            channels_out: 8,
            groups: 2,
            kernel: [3, 2],
            strides: [2, 1],
            dilations: [1, 2],
            padding,
        }
    }

    #[test]
    fn same_padding_keeps_the_ceiling() {
        let upper = geometry(Padding::SameUpper);
        assert_eq!(upper.pads([6, 5]), [0, 1, 1, 1]);
        assert_eq!(upper.output([6, 5]), Some([3, 5]));
        assert_eq!(geometry(Padding::SameLower).pads([6, 5]), [1, 1, 0, 1]);
        assert_eq!(geometry(Padding::SameUpper).output([7, 1]), Some([4, 1]));
    }

    #[test]
    fn a_kernel_larger_than_its_input_has_no_output() {
        assert_eq!(geometry(Padding::Explicit([0; 4])).output([2, 9]), None);
        assert_eq!(geometry(Padding::Explicit([1, 0, 0, 0])).output([2, 3]), Some([1, 1]));
    }
}
