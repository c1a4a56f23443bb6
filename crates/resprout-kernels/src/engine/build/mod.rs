//! Makes a program, and checks all extents that running it relies on.

mod allocate;
mod draft;
mod lower;

use super::arena::{LANES, VECTOR_BYTES};
use super::conv::Conv;
use super::layout::{Extent, VectorLayout};
use super::op::{Op, Pool, Value};
use super::packed_sparse::sparse_rows;
use super::program::Program;
use crate::isa::Isa;
use crate::{Activation, ConvShape};
use allocate::Allocation;
use draft::Draft;

/// A convolution and what happens in the same pass.
pub struct Convolution<'w> {
    /// For images of the input's size. Strides are 1 or 2.
    pub shape: ConvShape,
    /// `[M, C / groups, kh, kw]`
    pub weight: &'w [f32],
    /// `[M]`, or empty.
    pub bias: &'w [f32],
    /// At the end.
    pub activation: Activation,
    /// Added before the activation; of the output's size.
    pub added: Option<Value>,
}

/// Builds a [`Program`] for a microbatch of images.
pub struct Builder {
    isa: Isa,
    images: usize,
    draft: Draft,
    /// Values, other layouts in which they were needed, and the copies of these layouts.
    moved: Vec<(Value, VectorLayout, Value)>,
    inputs: Vec<usize>,
    outputs: Vec<usize>,
}

impl Builder {
    /// For 1, 2, 4, 8 or 16 images, and the threads that will share the work on them. Each thread has its own part of large
    /// values. Any other number of threads can run the program too.
    ///
    /// # Panics
    /// For any other number of images.
    pub fn new(isa: Isa, images: usize, threads: usize) -> Builder {
        assert!(images.is_power_of_two() && images <= LANES, "{images} images for {LANES} lanes");
        let draft = Draft { threads: threads.max(1), extents: Vec::new(), ops: Vec::new() };
        Builder { isa, images, draft, moved: Vec::new(), inputs: Vec::new(), outputs: Vec::new() }
    }

    /// Channels, height and width of a value.
    pub fn shape(&self, value: Value) -> [usize; 3] {
        let extent = self.draft.extent(value);
        [extent.channels, extent.size[0], extent.size[1]]
    }

    /// The next input, `[images, C, H, W]`.
    pub fn input(&mut self, channels: usize, size: [usize; 2]) -> Value {
        let to = self.draft.value(VectorLayout::best(self.images, size, self.draft.threads), channels, size);
        self.inputs.push(self.images * channels * size[0] * size[1]);
        self.draft.push("input", Op::Input { index: self.inputs.len() - 1, to, gathers: Vec::new() });
        to
    }

    /// Whether [`conv`](Self::conv) takes a convolution of this shape.
    pub fn knows(shape: &ConvShape) -> bool {
        shape.stride.iter().all(|stride| (1..=2).contains(stride)) && shape.in_channels > 0 && shape.out_channels > 0
    }

    /// A convolution.
    ///
    /// # Panics
    /// If the shape is not the input's, or [`knows`](Self::knows) is false.
    pub fn conv(&mut self, name: &str, from: Value, conv: Convolution) -> Value {
        let Convolution { shape, weight, bias, activation, added } = conv;
        assert!(Builder::knows(&shape), "{shape:?}");
        assert_eq!(self.shape(from), [shape.in_channels, shape.in_h, shape.in_w], "input of {shape:?}");
        assert_eq!(weight.len(), shape.out_channels * shape.dot_length(), "weight of {shape:?}");
        assert!(bias.is_empty() || bias.len() == shape.out_channels, "bias of {shape:?}");
        let (out_h, out_w) = shape.out_size();
        let extent = [0, 1].map(|axis| (shape.kernel[axis] - 1) * shape.dilation[axis] + 1);
        let pads = [shape.pads[0], shape.pads[1]];
        let (layout, from, reads_halo) = self.windows(from, [out_h, out_w], extent, shape.stride, pads);
        let to = self.draft.value(layout, shape.out_channels, [out_h, out_w]);
        let added = added.map(|added| {
            assert_eq!(self.shape(added), self.shape(to), "summand of {shape:?}");
            self.in_layout(added, layout)
        });
        let rows = sparse_rows(&shape, weight);
        let nonzero = rows.iter().map(|row| row.0.len()).sum();
        let bias = if bias.is_empty() { vec![0.0; shape.out_channels] } else { bias.to_vec() };
        let conv = Conv { from, to, added, shape, rows, nonzero, bias, activation, reads_halo };
        self.draft.push(name, Op::Conv(Box::new(conv)));
        to
    }

    /// The largest value, or the mean, of each window. Outside of the image windows see zeros.
    pub fn pool(
        &mut self,
        name: &str,
        from: Value,
        kernel: [usize; 2],
        stride: [usize; 2],
        pads: [usize; 2],
        out: [usize; 2],
        mean: bool,
    ) -> Value {
        let (layout, from, reads_halo) = self.windows(from, out, kernel, stride, pads);
        let to = self.draft.value(layout, self.draft.extent(from).channels, out);
        let at = |tap: usize, axis: usize| tap as isize - pads[axis] as isize;
        let taps = (0..kernel[0]).flat_map(|y| (0..kernel[1]).map(move |x| [at(y, 0), at(x, 1)])).collect();
        let kind = if mean { Pool::Mean(1.0 / (kernel[0] * kernel[1]) as f32) } else { Pool::Max };
        self.draft.push(name, Op::Pool { from, to, taps, step: stride, kind, reads_halo });
        to
    }

    /// `scale[c] * x + shift[c]`, then the activation.
    ///
    /// # Panics
    /// If there is not one of each for every channel.
    pub fn affine(&mut self, name: &str, from: Value, scale: &[f32], shift: &[f32], activation: Activation) -> Value {
        let extent = *self.draft.extent(from);
        assert!(scale.len() == extent.channels && shift.len() == extent.channels, "scale and shift of {name}");
        let to = self.draft.value(extent.layout, extent.channels, extent.size);
        self.draft.push(name, Op::Affine { from, to, scale: scale.to_vec(), shift: shift.to_vec(), activation });
        to
    }

    /// The sum of two values of one size.
    ///
    /// # Panics
    /// If their sizes differ.
    pub fn add(&mut self, name: &str, a: Value, b: Value, activation: Activation) -> Value {
        assert_eq!(self.shape(a), self.shape(b), "summands of {name}");
        let extent = *self.draft.extent(a);
        let b = self.in_layout(b, extent.layout);
        let to = self.draft.value(extent.layout, extent.channels, extent.size);
        self.draft.push(name, Op::Add { a, b, to, activation });
        to
    }

    /// Channels of several values, one after another.
    ///
    /// # Panics
    /// If there are none or their sizes differ.
    pub fn concat(&mut self, name: &str, parts: &[Value]) -> Value {
        let first = *self.draft.extent(parts[0]);
        let channels = parts.iter().map(|part| self.draft.extent(*part).channels).sum();
        let to = self.draft.value(first.layout, channels, first.size);
        let mut begin = 0;
        for &part in parts {
            assert_eq!(self.draft.extent(part).size, first.size, "parts of {name}");
            let from = self.in_layout(part, first.layout);
            self.draft.push(name, Op::Copy { from, to, first: begin });
            begin += self.draft.extent(part).channels;
        }
        to
    }

    /// The mean over all pixels of an image: one pixel for each channel.
    pub fn mean(&mut self, name: &str, from: Value) -> Value {
        let channels = self.draft.extent(from).channels;
        let to = self.draft.value(VectorLayout::best(self.images, [1, 1], self.draft.threads), channels, [1, 1]);
        self.draft.push(name, Op::Mean { from, to, gathers: Vec::new() });
        to
    }

    /// The next output, `[images, C, H, W]`.
    pub fn output(&mut self, from: Value) {
        let extent = self.draft.extent(from);
        self.outputs.push(self.images * extent.channels * extent.size[0] * extent.size[1]);
        self.draft.push("output", Op::Output { from, index: self.outputs.len() - 1, gathers: Vec::new() });
    }

    /// The layout of an output whose windows step over `from`, `from` in the layout that suits it, and whether windows reach beyond
    /// its patches.
    fn windows(
        &mut self,
        from: Value,
        out: [usize; 2],
        kernel: [usize; 2],
        stride: [usize; 2],
        pads: [usize; 2],
    ) -> (VectorLayout, Value, bool) {
        let input = *self.draft.extent(from);
        let threads = self.draft.threads;
        // The patches of the input must hold all of its pixels, including those after the last window.
        let suits = |layout: &VectorLayout| {
            let least = |axis: usize| input.size[axis].div_ceil(stride[axis] * layout.grid[axis]);
            layout.with_patch([0, 1].map(|axis| layout.patch[axis].max(least(axis))), threads)
        };
        let inner =
            |layout: &VectorLayout| VectorLayout { patch: [layout.patch[0] * stride[0], layout.patch[1] * stride[1]], ..*layout };
        // The layout is kept if it can be divided by the stride and wastes little; otherwise `from` moves to the best one.
        let divides = |axis: usize| input.layout.patch[axis].is_multiple_of(stride[axis]);
        let kept = input.layout.with_patch([0, 1].map(|axis| input.layout.patch[axis] / stride[axis]), threads);
        let covers = (0..2).all(|axis| divides(axis) && kept.patch[axis] * kept.grid[axis] >= out[axis]) && suits(&kept) == kept;
        let best =
            VectorLayout::candidates(self.images, out, threads).map(|layout| suits(&layout)).min_by_key(VectorLayout::cost);
        let layout = match best {
            Some(best) if !covers || best.vectors() * 10 < kept.vectors() * 9 => best,
            _ => kept,
        };
        let from = self.in_layout(from, inner(&layout));
        let extent = &mut self.draft.extents[from.0];
        // Past the last row or column that so many windows reach.
        let end = |axis: usize, windows: usize| (kernel[axis] + stride[axis] * (windows - 1)).saturating_sub(pads[axis]);
        let below =
            |partition: usize| end(0, layout.first_row(partition + 1)).saturating_sub(extent.layout.first_row(partition + 1));
        let halo = [
            (0..layout.row_partitions).map(below).max().unwrap_or(0).max(pads[0]),
            end(1, layout.patch[1]).saturating_sub(extent.layout.patch[1]).max(pads[1]),
        ];
        extent.halo = [0, 1].map(|axis| extent.halo[axis].max(halo[axis]));
        (layout, from, kernel != [1, 1] || halo != [0, 0])
    }

    /// The value in this layout: itself, or a copy.
    fn in_layout(&mut self, value: Value, layout: VectorLayout) -> Value {
        let extent = *self.draft.extent(value);
        if extent.layout == layout {
            return value;
        }
        if let Some((_, _, copy)) = self.moved.iter().find(|(from, to, _)| (*from, *to) == (value, layout)) {
            return *copy;
        }
        let to = self.draft.value(layout, extent.channels, extent.size);
        self.draft.push("other layout", Op::Move { from: value, to, gathers: Vec::new() });
        self.moved.push((value, layout, to));
        to
    }

    /// Gives every value its place. `None` if one of them is too large.
    pub fn finish(mut self) -> Option<Program> {
        // Offsets of vectors are 32-bit numbers of bytes.
        let fits = |extent: &Extent| extent.total().checked_mul(VECTOR_BYTES).is_some_and(|bytes| bytes <= u32::MAX as usize);
        if !self.draft.extents.iter().all(fits) {
            return None;
        }
        self.draft.insert_replicas();
        self.draft.insert_halos();
        let allocation = Allocation::new(&mut self.draft);
        let replicas = self.draft.extents.len() * self.draft.threads;
        let Builder { isa, images, draft, inputs, outputs, .. } = self;
        let (names, ops) = lower::lower(isa, draft, &allocation);
        Some(Program { isa, ops, names, vectors: allocation.vectors, replicas, inputs, outputs, images })
    }
}
