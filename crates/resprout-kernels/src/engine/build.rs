//! Makes a program, and checks all that running it relies on.

use super::arena::{LANES, VECTOR_BYTES};
use super::layout::{Extent, PAGE, VectorLayout};
use super::program::{Conv, Op, Placed, Pool, Program};
use super::stream::{self, SparseRow};
use crate::isa::Isa;
use crate::{Activation, ConvShape};

/// A channel's lines are few where its border has more of them: around 4x4 there are 20.
const FEW: usize = 16;

/// A value of a program that is being built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Value(usize);

/// A convolution and what is done in the same pass.
pub struct Convolution<'w> {
    /// For images of the input's size. Strides are 1 or 2 across; groups are as they come.
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

/// An operation, before values have their places.
enum Draft {
    Input {
        index: usize,
        to: Value,
    },
    Conv {
        from: Value,
        to: Value,
        shape: ConvShape,
        rows: Vec<SparseRow>,
        bias: Vec<f32>,
        activation: Activation,
        added: Option<Value>,
        /// Whether windows reach beyond patches.
        beyond: bool,
    },
    /// A copy with a border, of which each thread has its own part or all.
    WithHalo {
        from: Value,
        to: Value,
    },
    FillHalo {
        value: Value,
    },
    Move {
        from: Value,
        to: Value,
    },
    Copy {
        from: Value,
        to: Value,
        first: usize,
    },
    Pool {
        from: Value,
        to: Value,
        kernel: [usize; 2],
        stride: [usize; 2],
        pads: [usize; 2],
        mean: bool,
        /// As of a convolution.
        beyond: bool,
    },
    Affine {
        from: Value,
        to: Value,
        scale: Vec<f32>,
        shift: Vec<f32>,
        activation: Activation,
    },
    Add {
        a: Value,
        b: Value,
        to: Value,
        activation: Activation,
    },
    Mean {
        from: Value,
        to: Value,
    },
    Output {
        from: Value,
        index: usize,
    },
}

impl Draft {
    fn reads(&self) -> Vec<Value> {
        match self {
            Draft::Input { .. } => vec![],
            Draft::Conv { from, added, .. } => [Some(*from), *added].into_iter().flatten().collect(),
            Draft::FillHalo { value } => vec![*value],
            Draft::Add { a, b, .. } => vec![*a, *b],
            Draft::WithHalo { from, .. }
            | Draft::Move { from, .. }
            | Draft::Copy { from, .. }
            | Draft::Pool { from, .. }
            | Draft::Affine { from, .. }
            | Draft::Mean { from, .. }
            | Draft::Output { from, .. } => vec![*from],
        }
    }

    /// The value whose border it reads.
    fn halo_of(&self) -> Option<Value> {
        match self {
            Draft::Conv { from, beyond: true, .. } | Draft::Pool { from, beyond: true, .. } => Some(*from),
            _ => None,
        }
    }

    fn writes(&self) -> Option<Value> {
        match self {
            Draft::Input { to, .. }
            | Draft::Conv { to, .. }
            | Draft::WithHalo { to, .. }
            | Draft::Move { to, .. }
            | Draft::Copy { to, .. }
            | Draft::Pool { to, .. }
            | Draft::Affine { to, .. }
            | Draft::Add { to, .. }
            | Draft::Mean { to, .. } => Some(*to),
            Draft::FillHalo { value } => Some(*value),
            Draft::Output { .. } => None,
        }
    }
}

/// Builds a [`Program`] for a number of images that run together.
pub struct Builder {
    isa: Isa,
    images: usize,
    threads: usize,
    extents: Vec<Extent>,
    drafts: Vec<(String, Draft)>,
    /// The same pixels in other lanes, once they were needed.
    moved: Vec<(Value, VectorLayout, Value)>,
    inputs: Vec<usize>,
    outputs: Vec<usize>,
}

impl Builder {
    /// For 1, 2, 4, 8 or 16 images, and the threads that will share the work on them: each has its part of every value where
    /// no other writes. Any other number of threads can run it too.
    ///
    /// # Panics
    /// For any other number of images.
    pub fn new(isa: Isa, images: usize, threads: usize) -> Builder {
        assert!(images.is_power_of_two() && images <= LANES, "{images} images for {LANES} lanes");
        Builder {
            isa,
            images,
            threads: threads.max(1),
            extents: Vec::new(),
            drafts: Vec::new(),
            moved: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
        }
    }

    fn value(&mut self, layout: VectorLayout, channels: usize, size: [usize; 2]) -> Value {
        self.extents.push(Extent { layout, size, channels, halo: [0, 0], partition: 0, replicas: 1 });
        Value(self.extents.len() - 1)
    }

    /// Channels, height and width of a value.
    pub fn shape(&self, value: Value) -> [usize; 3] {
        let extent = &self.extents[value.0];
        [extent.channels, extent.size[0], extent.size[1]]
    }

    /// The next input, `[images, C, H, W]`.
    pub fn input(&mut self, channels: usize, size: [usize; 2]) -> Value {
        let to = self.value(VectorLayout::best(self.images, size, self.threads), channels, size);
        self.inputs.push(self.images * channels * size[0] * size[1]);
        self.drafts.push(("input".into(), Draft::Input { index: self.inputs.len() - 1, to }));
        to
    }

    /// Whether [`conv`](Self::conv) knows such a convolution.
    pub fn knows(shape: &ConvShape) -> bool {
        shape.stride.iter().all(|stride| (1..=2).contains(stride)) && shape.in_channels > 0 && shape.out_channels > 0
    }

    /// A convolution.
    ///
    /// # Panics
    /// If the shape is not the input's, or [`knows`](Self::knows) says no.
    pub fn conv(&mut self, name: &str, from: Value, conv: Convolution) -> Value {
        let Convolution { shape, weight, bias, activation, added } = conv;
        assert!(Builder::knows(&shape), "{shape:?}");
        assert_eq!(self.shape(from), [shape.in_channels, shape.in_h, shape.in_w], "input of {shape:?}");
        assert_eq!(weight.len(), shape.out_channels * shape.dot_length(), "weight of {shape:?}");
        assert!(bias.is_empty() || bias.len() == shape.out_channels, "bias of {shape:?}");
        let (out_h, out_w) = shape.out_size();
        let extent = [0, 1].map(|axis| (shape.kernel[axis] - 1) * shape.dilation[axis] + 1);
        let pads = [shape.pads[0], shape.pads[1]];
        let (layout, from, beyond) = self.windows(from, [out_h, out_w], extent, shape.stride, pads);
        let to = self.value(layout, shape.out_channels, [out_h, out_w]);
        let added = added.map(|added| {
            assert_eq!(self.shape(added), self.shape(to), "summand of {shape:?}");
            self.in_layout(added, layout)
        });
        let rows = stream::rows(&shape, weight);
        let bias = if bias.is_empty() { vec![0.0; shape.out_channels] } else { bias.to_vec() };
        let draft = Draft::Conv { from, to, shape, rows, bias, activation, added, beyond };
        self.drafts.push((name.into(), draft));
        to
    }

    /// The largest value, or the mean, of each window; windows that leave the image see zeros.
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
        let (layout, from, beyond) = self.windows(from, out, kernel, stride, pads);
        let to = self.value(layout, self.extents[from.0].channels, out);
        self.drafts.push((name.into(), Draft::Pool { from, to, kernel, stride, pads, mean, beyond }));
        to
    }

    /// `scale[c] * x + shift[c]`, then the activation.
    ///
    /// # Panics
    /// If there is not one of each for every channel.
    pub fn affine(&mut self, name: &str, from: Value, scale: &[f32], shift: &[f32], activation: Activation) -> Value {
        let extent = self.extents[from.0];
        assert!(scale.len() == extent.channels && shift.len() == extent.channels, "scale and shift of {name}");
        let to = self.value(extent.layout, extent.channels, extent.size);
        self.drafts.push((name.into(), Draft::Affine { from, to, scale: scale.to_vec(), shift: shift.to_vec(), activation }));
        to
    }

    /// The sum of two values of one size.
    ///
    /// # Panics
    /// If their sizes differ.
    pub fn add(&mut self, name: &str, a: Value, b: Value, activation: Activation) -> Value {
        assert_eq!(self.shape(a), self.shape(b), "summands of {name}");
        let extent = self.extents[a.0];
        let b = self.in_layout(b, extent.layout);
        let to = self.value(extent.layout, extent.channels, extent.size);
        self.drafts.push((name.into(), Draft::Add { a, b, to, activation }));
        to
    }

    /// Channels of several values, one after another.
    ///
    /// # Panics
    /// If there are none or their sizes differ.
    pub fn concat(&mut self, name: &str, parts: &[Value]) -> Value {
        let first = self.extents[parts[0].0];
        let channels = parts.iter().map(|part| self.extents[part.0].channels).sum();
        let to = self.value(first.layout, channels, first.size);
        let mut begin = 0;
        for &part in parts {
            assert_eq!(self.extents[part.0].size, first.size, "parts of {name}");
            let from = self.in_layout(part, first.layout);
            self.drafts.push((name.into(), Draft::Copy { from, to, first: begin }));
            begin += self.extents[part.0].channels;
        }
        to
    }

    /// The mean over all pixels of an image: one pixel for each channel.
    pub fn mean(&mut self, name: &str, from: Value) -> Value {
        let channels = self.extents[from.0].channels;
        let to = self.value(VectorLayout::best(self.images, [1, 1], self.threads), channels, [1, 1]);
        self.drafts.push((name.into(), Draft::Mean { from, to }));
        to
    }

    /// The next output, `[images, C, H, W]`.
    pub fn output(&mut self, from: Value) {
        let extent = &self.extents[from.0];
        self.outputs.push(self.images * extent.channels * extent.size[0] * extent.size[1]);
        self.drafts.push(("output".into(), Draft::Output { from, index: self.outputs.len() - 1 }));
    }

    /// The spread of an output whose windows step over `from`, `from` in lanes that suit it, and whether windows reach beyond
    /// its patches.
    fn windows(
        &mut self,
        from: Value,
        out: [usize; 2],
        kernel: [usize; 2],
        stride: [usize; 2],
        pads: [usize; 2],
    ) -> (VectorLayout, Value, bool) {
        let input = self.extents[from.0];
        // A window of the last patch may begin before the image ends and reach beyond the patch's border.
        let threads = self.threads;
        let suits = |layout: &VectorLayout| {
            let reach = |axis: usize| input.size[axis].div_ceil(stride[axis] * layout.grid[axis]);
            layout.with_patch([0, 1].map(|axis| layout.patch[axis].max(reach(axis))), threads)
        };
        let inner =
            |layout: &VectorLayout| VectorLayout { patch: [layout.patch[0] * stride[0], layout.patch[1] * stride[1]], ..*layout };
        // The lanes as they are, if they can be halved and nothing is wasted by it; else the best ones, and a move.
        let cells = |axis: usize| input.layout.patch[axis].is_multiple_of(stride[axis]);
        let kept = input.layout.with_patch([0, 1].map(|axis| input.layout.patch[axis] / stride[axis]), threads);
        let covers = (0..2).all(|axis| cells(axis) && kept.patch[axis] * kept.grid[axis] >= out[axis]) && suits(&kept) == kept;
        let best =
            VectorLayout::candidates(self.images, out, threads).map(|layout| suits(&layout)).min_by_key(VectorLayout::cost);
        let layout = match best {
            Some(best) if !covers || best.vectors() * 10 < kept.vectors() * 9 => best,
            _ => kept,
        };
        let from = self.in_layout(from, inner(&layout));
        let extent = &mut self.extents[from.0];
        // Past the last row or column that windows reach, of those before them.
        let behind = |axis: usize, windows: usize| (kernel[axis] + stride[axis] * (windows - 1)).saturating_sub(pads[axis]);
        let below =
            |partition: usize| behind(0, layout.first_row(partition + 1)).saturating_sub(extent.layout.first_row(partition + 1));
        let halo = [
            (0..layout.row_partitions).map(below).max().unwrap_or(0).max(pads[0]),
            behind(1, layout.patch[1]).saturating_sub(extent.layout.patch[1]).max(pads[1]),
        ];
        extent.halo = [0, 1].map(|axis| extent.halo[axis].max(halo[axis]));
        (layout, from, kernel != [1, 1] || halo != [0, 0])
    }

    /// The value in these lanes: itself, or a copy.
    fn in_layout(&mut self, value: Value, layout: VectorLayout) -> Value {
        let extent = self.extents[value.0];
        if extent.layout == layout {
            return value;
        }
        if let Some((_, _, there)) = self.moved.iter().find(|(from, to, _)| (*from, *to) == (value, layout)) {
            return *there;
        }
        let to = self.value(layout, extent.channels, extent.size);
        self.drafts.push(("other lanes".into(), Draft::Move { from: value, to }));
        self.moved.push((value, layout, to));
        to
    }

    /// Gives every value its place. `None` if one of them would be too large.
    pub fn finish(mut self) -> Option<Program> {
        // Offsets of lines are 32-bit numbers of bytes.
        let fits = |extent: &Extent| extent.total().checked_mul(VECTOR_BYTES).is_some_and(|bytes| bytes <= u32::MAX as usize);
        if !self.extents.iter().all(fits) {
            return None;
        }
        self.insert_copies();
        self.insert_halos();
        let (places, vectors) = self.places();
        let with_halo: Vec<bool> = (0..self.extents.len()).map(|value| self.has_halo(Value(value))).collect();
        let placed =
            |value: Value| Placed { extent: self.extents[value.0], start: places[value.0], made: value.0 * self.threads };
        let replicas = self.extents.len() * self.threads;
        let mut ops = Vec::with_capacity(self.drafts.len());
        let mut names = Vec::with_capacity(self.drafts.len());
        for (name, draft) in std::mem::take(&mut self.drafts) {
            names.push(name);
            ops.push(match draft {
                Draft::Input { index, to } => {
                    let extent = &self.extents[to.0];
                    Op::Input { index, to: placed(to), table: extent.gathers(extent.plain()).into_iter().flatten().collect() }
                }
                Draft::Conv { from, to, shape, rows, bias, activation, added, .. } => {
                    let halo_copies = if with_halo[to.0] { self.extents[to.0].halo_copies().concat() } else { Vec::new() };
                    let places = [placed(from), placed(to)];
                    let added = added.map(placed);
                    let conv = Conv::new(self.isa, shape, rows, bias, activation, places, added, halo_copies, self.threads);
                    Op::Conv(Box::new(conv))
                }
                Draft::WithHalo { from, to } => {
                    let vectors = self.extents[to.0].vectors_from(&self.extents[from.0]);
                    match self.extents[to.0].replicas {
                        1 => Op::FillHalo { from: placed(from), to: placed(to), halo_copies: vectors },
                        _ => Op::Replicate { from: placed(from), to: placed(to), vectors: vectors.concat() },
                    }
                }
                Draft::FillHalo { value } => {
                    Op::FillHalo { from: placed(value), to: placed(value), halo_copies: self.extents[value.0].halo_copies() }
                }
                Draft::Move { from, to } => {
                    let source = self.extents[from.0];
                    let tables = self.extents[to.0].gathers(|image, pixel| source.float(image, pixel));
                    Op::Move { from: placed(from), to: placed(to), tables }
                }
                Draft::Copy { from, to, first } => Op::Copy { from: placed(from), to: placed(to), first },
                Draft::Pool { from, to, kernel, stride, pads, mean, .. } => {
                    let input = self.extents[from.0];
                    let at = |tap: usize, axis: usize| tap as isize - pads[axis] as isize;
                    let taps = (0..kernel[0]).flat_map(|y| (0..kernel[1]).map(move |x| (y, x)));
                    let kind = if mean { Pool::Mean(1.0 / (kernel[0] * kernel[1]) as f32) } else { Pool::Max };
                    let taps = taps.map(|(y, x)| input.vector_of(0, at(y, 0), at(x, 1))).collect();
                    Op::Pool { from: placed(from), to: placed(to), taps, step: stride, kind }
                }
                Draft::Affine { from, to, scale, shift, activation } => {
                    Op::Affine { from: placed(from), to: placed(to), scale, shift, activation }
                }
                Draft::Add { a, b, to, activation } => Op::Add { a: placed(a), b: placed(b), to: placed(to), activation },
                Draft::Mean { from, to } => {
                    let table = self.extents[from.0].inner_gathers(|image, _| image);
                    Op::Mean { from: placed(from), to: placed(to), table }
                }
                Draft::Output { from, index } => {
                    let extent = &self.extents[from.0];
                    Op::Output { from: placed(from), index, table: extent.inner_gathers(extent.plain()) }
                }
            });
        }
        let Builder { isa, images, inputs, outputs, .. } = self;
        Some(Program { isa, ops, names, vectors, replicas, inputs, outputs, images })
    }

    /// Where much of a value is border, what others have written is read less often if each thread makes the border of its band
    /// itself; or of all, where threads share the output channels and each reads all of the input.
    fn insert_copies(&mut self) {
        for value in (0..self.extents.len()).map(Value) {
            let extent = self.extents[value.0];
            let few = extent.layout.vectors() <= FEW;
            let all = |draft: &Draft| matches!(draft, Draft::Conv { shape, .. } if shape.groups == 1);
            let mut readers = self.drafts.iter().filter(|(_, draft)| draft.halo_of() == Some(value));
            let wanted = self.threads > 1 && self.has_halo(value) && few && readers.all(|(_, draft)| all(draft));
            let written = self.drafts.iter().rposition(|(_, draft)| draft.writes() == Some(value));
            let Some(written) = written.filter(|_| wanted) else { continue };
            let copy = self.value(extent.layout, extent.channels, extent.size);
            let replicas = if extent.layout.row_partitions > 1 { 1 } else { self.threads };
            self.extents[copy.0] = Extent { replicas, ..extent };
            self.extents[value.0].halo = [0, 0];
            for (_, draft) in self.drafts.iter_mut().filter(|(_, draft)| draft.halo_of() == Some(value)) {
                if let Draft::Conv { from, .. } = draft {
                    *from = copy;
                }
            }
            self.drafts.insert(written + 1, ("border".into(), Draft::WithHalo { from: value, to: copy }));
        }
    }

    /// Whether somebody reads the value's border.
    fn has_halo(&self, value: Value) -> bool {
        self.drafts.iter().any(|(_, draft)| draft.halo_of() == Some(value))
    }

    /// Borders are filled behind the last operation that writes the value, unless that fills them itself.
    fn insert_halos(&mut self) {
        let mut index = 0;
        while index < self.drafts.len() {
            let written = self.drafts[index].1.writes();
            let fills = matches!(
                self.drafts[index].1,
                Draft::Input { .. } | Draft::Conv { .. } | Draft::WithHalo { .. } | Draft::Move { .. } | Draft::FillHalo { .. }
            );
            if let Some(value) = written.filter(|value| !fills && self.has_halo(*value)) {
                let again = self.drafts[index + 1..].iter().any(|(_, draft)| draft.writes() == Some(value));
                if !again {
                    self.drafts.insert(index + 1, ("border".into(), Draft::FillHalo { value }));
                }
            }
            index += 1;
        }
    }

    /// Each value's first line, and how many lines there are. Values of which each thread has its own part lie in as many parts of the
    /// same size, the others behind them.
    fn places(&mut self) -> (Vec<usize>, usize) {
        let mut last = vec![0; self.extents.len()];
        for (index, (_, draft)) in self.drafts.iter().enumerate() {
            draft.reads().into_iter().chain(draft.writes()).for_each(|value| last[value.0] = index);
        }
        let mut places = vec![usize::MAX; self.extents.len()];
        let part = self.place(&mut places, &last, Extent::is_parted).next_multiple_of(PAGE);
        let shared = self.place(&mut places, &last, |extent| !extent.is_parted());
        for (extent, place) in self.extents.iter_mut().zip(&mut places) {
            match extent.is_parted() {
                true => extent.partition = part,
                false => *place += self.threads * part,
            }
        }
        (places, self.threads * part + shared)
    }

    /// The summand of a convolution that its result can take the place of: every tile reads and writes the same lines of both,
    /// and nothing else reads the summand afterwards. Large values come from far away, and one is less than two.
    fn in_place(&self, draft: &Draft, last: &[usize], index: usize) -> Option<Value> {
        let Draft::Conv { from, to, added: Some(added), .. } = draft else { return None };
        let fits = added != from && last[added.0] == index && self.extents[added.0] == self.extents[to.0];
        fits.then_some(*added)
    }

    /// Places for such values, and how many lines they take: values that are never alive together share lines.
    /// `last` says where each is used for the last time.
    fn place(&self, places: &mut [usize], last: &[usize], of: impl Fn(&Extent) -> bool) -> usize {
        // First line, past the last line, past the last use.
        let mut taken: Vec<(usize, usize, usize)> = Vec::new();
        let mut vectors = 0;
        for (index, (_, draft)) in self.drafts.iter().enumerate() {
            let new = |value: &Value| places[value.0] == usize::MAX && of(&self.extents[value.0]);
            let Some(value) = draft.writes().filter(new) else { continue };
            taken.retain(|(_, _, until)| *until >= index);
            if let Some(added) = self.in_place(draft, last, index) {
                places[value.0] = places[added.0];
                let own = taken.iter_mut().find(|(start, ..)| *start == places[added.0]);
                own.into_iter().for_each(|(_, _, until)| *until = last[value.0]);
                continue;
            }
            taken.sort_unstable();
            let size = self.extents[value.0].total();
            let mut start = 0;
            for (from, to, _) in &taken {
                if start + size <= *from {
                    break;
                }
                start = start.max(*to);
            }
            places[value.0] = start;
            vectors = vectors.max(start + size);
            taken.push((start, start + size, last[value.0]));
        }
        vectors
    }
}
