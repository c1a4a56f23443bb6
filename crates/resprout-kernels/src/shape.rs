//! The geometry of a convolution.

/// The geometry of a two-dimensional convolution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// `C`
    pub in_channels: usize,
    /// Height of the input.
    pub in_h: usize,
    /// Width of the input.
    pub in_w: usize,
    /// `M`
    pub out_channels: usize,
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Vertical and horizontal stride.
    pub stride: [usize; 2],
    /// Vertical and horizontal dilation.
    pub dilation: [usize; 2],
    /// Zero padding: top, left, bottom, right.
    pub pads: [usize; 4],
    /// Channel groups; divides both channel counts.
    pub groups: usize,
}

impl ConvShape {
    /// A 1x1 convolution of images of `[height, width]`: every output pixel reads one input pixel.
    pub fn pointwise(in_channels: usize, [in_h, in_w]: [usize; 2], out_channels: usize) -> ConvShape {
        ConvShape {
            in_channels,
            in_h,
            in_w,
            out_channels,
            kernel: [1, 1],
            stride: [1, 1],
            dilation: [1, 1],
            pads: [0; 4],
            groups: 1,
        }
    }

    /// Output height and width.
    pub fn out_size(&self) -> (usize, usize) {
        let (padded_h, padded_w) = self.padded_size();
        let extent = |axis: usize| (self.kernel[axis] - 1) * self.dilation[axis] + 1;
        let out = |padded: usize, axis: usize| (padded + self.stride[axis]).saturating_sub(extent(axis)) / self.stride[axis];
        (out(padded_h, 0), out(padded_w, 1))
    }

    /// Input channels per group.
    pub fn group_in(&self) -> usize {
        self.in_channels / self.groups
    }

    /// Output channels per group.
    pub fn group_out(&self) -> usize {
        self.out_channels / self.groups
    }

    /// `K`: weights per output channel.
    pub fn dot_length(&self) -> usize {
        self.group_in() * self.kernel[0] * self.kernel[1]
    }

    pub(crate) fn padded_size(&self) -> (usize, usize) {
        (self.in_h + self.pads[0] + self.pads[2], self.in_w + self.pads[1] + self.pads[3])
    }

    pub(crate) fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.pads == [0; 4]
    }
}
