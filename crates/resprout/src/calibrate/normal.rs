//! Normal equations of a layer: the Gram matrix of its inputs in the pruned network, and their
//! products with targets.

use super::site::{WeightRows, WeightSite};
use super::target::Target;
use crate::ops::Op;
use crate::random::SplitMix64;
use rayon::prelude::*;
use resprout_kernels::Kernel;
use resprout_kernels::conv::Scratch;
use resprout_kernels::dense::ROWS;
use resprout_kernels::gram::{PackedRows, Patches, Side, accumulate};
use std::ops::Range;

/// Rows that are packed before they are added up stay within about so many bytes.
const PACKED_BYTES: usize = 128 << 20;

/// A layer's inputs as rows of a matrix: windows of a convolution, or vectors.
pub struct Inputs {
    kind: Kind,
    groups: usize,
    group_out: usize,
    /// `K`
    len: usize,
    /// Rows per image.
    positions: usize,
}

enum Kind {
    Windows(Patches),
    Vectors,
}

impl Inputs {
    /// `input` is the shape of the values of `batch` images.
    pub(super) fn new(op: &Op, input: &[usize], batch: usize, weight: &[usize], rows: &WeightRows) -> Option<Inputs> {
        let (kind, positions) = match op {
            Op::Conv(attributes) => {
                let (shape, out) = attributes.shape(input, weight).ok()?;
                (Kind::Windows(Patches::new(shape)), out[2..].iter().product())
            }
            Op::Gemm { trans_a: false, .. } | Op::MatMul => {
                (Kind::Vectors, input.iter().product::<usize>() / rows.len.max(1) / batch.max(1))
            }
            _ => return None,
        };
        Some(Inputs { kind, groups: rows.groups, group_out: rows.rows / rows.groups, len: rows.len, positions })
    }

    /// Groups of outputs that read different inputs.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// The outputs of a group.
    pub fn outputs(&self, group: usize) -> Range<usize> {
        group * self.group_out..(group + 1) * self.group_out
    }

    /// Blocks that are packed together.
    fn blocks_together(&self) -> usize {
        // Columns, and the same packed for both sides.
        let block = 3 * PackedRows::MOST * (self.len + 1) * size_of::<f32>();
        (PACKED_BYTES / block).clamp(2, 32)
    }

    /// Writes the rows at `positions` of one image, from row `at` on, into `columns: [K + 1][stride]`; the last column is 1.
    fn gather(
        &self,
        image: &[f32],
        group: usize,
        positions: &[u32],
        columns: &mut [f32],
        stride: usize,
        at: usize,
        scratch: &mut Scratch,
    ) {
        let (inputs, ones) = columns.split_at_mut(self.len * stride);
        ones[at..at + positions.len()].fill(1.0);
        match &self.kind {
            Kind::Windows(patches) => patches.gather(image, group, positions, inputs, stride, at, scratch),
            Kind::Vectors => {
                for (i, &position) in positions.iter().enumerate() {
                    let row = &image[position as usize * self.len..][..self.len];
                    row.iter().enumerate().for_each(|(k, &value)| inputs[k * stride + at + i] = value);
                }
            }
        }
    }
}

/// Which rows of which images are used, in blocks that are packed together.
pub struct Sample {
    blocks: Vec<Vec<Part>>,
}

struct Part {
    chunk: usize,
    image: usize,
    positions: Vec<u32>,
}

impl Sample {
    /// Every row, or about `most` of them, the same number from every image, drawn from `seed`.
    pub fn new(site: &WeightSite, inputs: &Inputs, most: usize, seed: u64) -> Sample {
        let images: Vec<(usize, usize)> =
            (0..site.sweep.chunks()).flat_map(|chunk| (0..site.sweep.images(chunk)).map(move |image| (chunk, image))).collect();
        let per_image = most.div_ceil(images.len().max(1)).clamp(1, inputs.positions.max(1));
        let mut blocks: Vec<Vec<Part>> = Vec::new();
        let mut room = 0;
        for (index, &(chunk, image)) in images.iter().enumerate() {
            let mut random = SplitMix64::new(seed, index as u64);
            let mut rest = &draw(inputs.positions, per_image, &mut random)[..];
            while !rest.is_empty() {
                if room == 0 {
                    blocks.push(Vec::new());
                    room = PackedRows::MOST;
                }
                let (now, later) = rest.split_at(rest.len().min(room));
                if let Some(block) = blocks.last_mut() {
                    block.push(Part { chunk, image, positions: now.to_vec() });
                }
                room -= now.len();
                rest = later;
            }
        }
        Sample { blocks }
    }
}

/// `count` of `0..all` in ascending order, each as likely as any other.
fn draw(all: usize, count: usize, random: &mut SplitMix64) -> Vec<u32> {
    let mut left = count;
    let taken = |&i: &usize| {
        let take = random.next_f64() * (all - i) as f64 <= left as f64 && left > 0;
        left -= usize::from(take);
        take
    };
    (0..all).filter(taken).map(|i| i as u32).collect()
}

/// Sums over the rows of one group of a layer's inputs; column `K` is the constant 1.
pub struct InputSums {
    /// `K + 1`
    pub width: usize,
    /// Number of rows.
    pub count: f64,
    /// `[K + 1][K + 1]`: `sum x x'`, the upper triangle.
    pub gram: Vec<f64>,
}

/// These with the products of inputs and targets.
pub struct NormalEquations {
    /// The inputs' own products.
    pub inputs: InputSums,
    /// `[outputs of the group][K + 1]`: `sum t x'`.
    pub cross: Vec<f64>,
}

impl InputSums {
    /// Sums over a sample of one group's inputs.
    pub fn new(site: &WeightSite, inputs: &Inputs, sample: &Sample, group: usize) -> InputSums {
        let width = inputs.len + 1;
        let rows = sample.blocks.iter().flatten().map(|part| part.positions.len() as f64).sum();
        let mut sums = InputSums { width, count: rows, gram: vec![0.0; width * width] };
        for blocks in sample.blocks.chunks(inputs.blocks_together()) {
            let packed: Vec<PackedRows> = blocks.par_iter().map(|block| pack_inputs(site, inputs, block, group)).collect();
            sums.add(&packed);
        }
        sums
    }

    fn add(&mut self, packed: &[PackedRows]) {
        let kernel = Kernel::best();
        self.gram.par_chunks_mut(ROWS * self.width).enumerate().for_each(|(i, out)| {
            packed.iter().for_each(|rows| accumulate(kernel, rows, rows, i * ROWS, i * ROWS, out));
        });
    }

    /// `sum x_i x_j`.
    pub fn product(&self, i: usize, j: usize) -> f64 {
        self.gram[i.min(j) * self.width + i.max(j)]
    }

    /// Covariance of inputs `i` and `j`.
    pub fn covariance(&self, i: usize, j: usize) -> f64 {
        self.product(i, j) / self.count - self.mean(i) * self.mean(j)
    }

    /// Mean of input `i`.
    pub fn mean(&self, i: usize) -> f64 {
        self.product(i, self.width - 1) / self.count
    }
}

impl NormalEquations {
    /// Sums over a sample of one group's inputs, with the target's products.
    pub(crate) fn new(site: &WeightSite, inputs: &Inputs, sample: &Sample, group: usize, target: &dyn Target) -> NormalEquations {
        let mut equations = NormalEquations { inputs: InputSums::new(site, inputs, sample, group), cross: Vec::new() };
        equations.retarget(site, inputs, sample, group, target);
        equations
    }

    /// Computes the products with another target; the inputs' own stay.
    pub(crate) fn retarget(&mut self, site: &WeightSite, inputs: &Inputs, sample: &Sample, group: usize, target: &dyn Target) {
        let (kernel, width) = (Kernel::best(), self.inputs.width);
        self.cross = vec![0.0; inputs.group_out * width];
        for blocks in sample.blocks.chunks(inputs.blocks_together()) {
            let pack = |block: &Vec<Part>| (pack_inputs(site, inputs, block, group), pack_targets(inputs, block, group, target));
            let packed: Vec<(PackedRows, PackedRows)> = blocks.par_iter().map(pack).collect();
            self.cross.par_chunks_mut(ROWS * width).enumerate().for_each(|(i, out)| {
                packed.iter().for_each(|(rows, targets)| accumulate(kernel, targets, rows, i * ROWS, 0, out));
            });
        }
    }

    /// Covariance of input `i` and the target of output `row` of the group.
    pub fn target_covariance(&self, row: usize, i: usize) -> f64 {
        self.target_product(row, i) - self.inputs.mean(i) * self.target_mean(row)
    }

    /// Mean product of input `i` and the target of output `row` of the group.
    pub fn target_product(&self, row: usize, i: usize) -> f64 {
        self.cross[row * self.inputs.width + i] / self.inputs.count
    }

    /// Mean of the target of output `row` of the group.
    pub fn target_mean(&self, row: usize) -> f64 {
        self.target_product(row, self.inputs.width - 1)
    }
}

/// The inputs (with the constant) of one block of rows.
fn pack_inputs(site: &WeightSite, inputs: &Inputs, block: &[Part], group: usize) -> PackedRows {
    let (sweep, slot) = (&site.sweep, site.input_slot());
    let rows: usize = block.iter().map(|part| part.positions.len()).sum();
    let mut columns = vec![0.0; (inputs.len + 1) * rows];
    let mut scratch = Scratch::default();
    let mut at = 0;
    for part in block {
        let value = sweep.value(part.chunk, slot);
        let image_len = value.len() / sweep.batch();
        let image = &value.data[part.image * image_len..][..image_len];
        inputs.gather(image, group, &part.positions, &mut columns, rows, at, &mut scratch);
        at += part.positions.len();
    }
    PackedRows::new(&columns, inputs.len + 1, rows, Side::Both)
}

/// The targets of one block of rows.
fn pack_targets(inputs: &Inputs, block: &[Part], group: usize, target: &dyn Target) -> PackedRows {
    let rows: usize = block.iter().map(|part| part.positions.len()).sum();
    let outputs = inputs.outputs(group);
    let mut targets = vec![0.0; outputs.len() * rows];
    let mut at = 0;
    for part in block {
        for (m, output) in outputs.clone().enumerate() {
            let out = &mut targets[m * rows + at..][..part.positions.len()];
            target.fill(part.chunk, part.image, output, &part.positions, out);
        }
        at += part.positions.len();
    }
    PackedRows::new(&targets, outputs.len(), rows, Side::Left)
}
