//! Normal equations of a layer: the Gram matrix of its inputs in the pruned network, and their
//! products with targets.

use super::site::{WeightRows, WeightSite};
use super::target::DenseTarget;
use crate::ops::Op;
use crate::random::SplitMix64;
use rayon::prelude::*;
use resprout_kernels::Isa;
use resprout_kernels::conv::Scratch;
use resprout_kernels::gram::{
    CsrRow, NARROW, PackedRows, Patches, accumulate, accumulate_narrow, narrow_stride, sparse_cross, sparse_product, strip,
};
use std::ops::Range;

/// Rows that are packed before they are added up stay within about so many bytes. A layer whose rows all fit is packed once.
const PACKED_BYTES: usize = 160 << 20;

/// Where at most this share of a layer's weights is left, products with targets are summed for those alone.
const FEW: f64 = 0.3;

/// Sums that a thread adds to at a time: few enough for its first-level cache.
const SUMS: usize = 4096;

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

    /// Columns of the Gram matrix: the weights of an output and the constant 1.
    pub fn width(&self) -> usize {
        self.len + 1
    }

    /// Blocks that are packed together, so that a pack's panels are read for many others.
    fn blocks_together(&self, targets: usize) -> usize {
        let block = PackedRows::bytes(self.width(), PackedRows::MOST) + PackedRows::bytes(targets, PackedRows::MOST);
        (PACKED_BYTES / block).clamp(2, 128)
    }

    /// Whether matrices of so few columns are summed without packing.
    fn is_narrow(&self) -> bool {
        self.width() <= NARROW
    }

    /// Writes the rows of one block into `columns: [K][stride]`.
    fn columns(&self, site: &WeightSite, group: usize, block: &[Part], columns: &mut [f32], stride: usize) {
        let mut scratch = Scratch::default();
        let mut at = 0;
        for part in block {
            let image = part.input(site);
            match &self.kind {
                Kind::Windows(patches) => {
                    patches.gather(image, group, &part.positions, columns, stride, at, &mut scratch);
                }
                Kind::Vectors => {
                    for (i, &position) in part.positions.iter().enumerate() {
                        let row = &image[position as usize * self.len..][..self.len];
                        row.iter().enumerate().for_each(|(k, &value)| columns[k * stride + at + i] = value);
                    }
                }
            }
            at += part.positions.len();
        }
    }

    /// The rows of one block with the constant, packed.
    fn pack(&self, site: &WeightSite, group: usize, block: &[Part]) -> PackedRows {
        let rows = rows_of(block);
        let mut packed = PackedRows::zeros(self.width(), rows);
        packed.set_column(self.len, 0, &vec![1.0; rows]);
        let mut scratch = Scratch::default();
        let mut at = 0;
        for part in block {
            let image = part.input(site);
            match &self.kind {
                Kind::Windows(patches) => patches.pack(image, group, &part.positions, &mut packed, at, &mut scratch),
                Kind::Vectors => {
                    for (i, &position) in part.positions.iter().enumerate() {
                        packed.set_row(at + i, &image[position as usize * self.len..][..self.len]);
                    }
                }
            }
            at += part.positions.len();
        }
        packed
    }
}

fn rows_of(block: &[Part]) -> usize {
    block.iter().map(|part| part.positions.len()).sum()
}

/// Which rows of which images are used, in blocks that are packed together.
pub struct Sample {
    blocks: Vec<Vec<Part>>,
}

pub(super) struct Part {
    pub chunk: usize,
    pub image: usize,
    pub positions: Vec<u32>,
}

impl Part {
    /// The layer's input in this image.
    fn input<'s>(&self, site: &'s WeightSite) -> &'s [f32] {
        let value = site.store.value(self.chunk, site.input_slot());
        let image_len = value.len() / site.store.batch();
        &value.data[self.image * image_len..][..image_len]
    }
}

impl Sample {
    /// Every row, or about `most` of them, the same number from every image, drawn from `seed`.
    pub fn new(site: &WeightSite, inputs: &Inputs, most: usize, seed: u64) -> Sample {
        let images: Vec<(usize, usize)> =
            (0..site.store.chunks()).flat_map(|chunk| (0..site.store.images(chunk)).map(move |image| (chunk, image))).collect();
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

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.blocks.iter().map(|block| rows_of(block)).sum()
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

impl InputSums {
    /// Sums over a sample of one group's inputs.
    pub fn new(site: &WeightSite, inputs: &Inputs, sample: &Sample, group: usize) -> InputSums {
        Rows::new(site, inputs, sample, group, 1).sums(None).0
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

    /// Covariances, or mean products, of all inputs, both triangles: `[K][K + 1]`, and the inputs' means.
    pub fn into_matrix(mut self, centred: bool) -> (Vec<f64>, Vec<f64>) {
        let (width, len) = (self.width, self.width - 1);
        let means: Vec<f64> = (0..len).map(|i| self.mean(i)).collect();
        self.gram.truncate(len * width);
        let count = self.count;
        self.gram.par_chunks_mut(width).enumerate().for_each(|(i, row)| {
            let mean = if centred { means[i] } else { 0.0 };
            row[i..len].iter_mut().zip(&means[i..]).for_each(|(value, other)| *value = *value / count - mean * other);
        });
        mirror(&mut self.gram, len, width);
        (self.gram, means)
    }
}

/// Copies the upper triangle of `matrix: [len][stride]` to the lower one, tile by tile: columns are far apart in memory.
fn mirror(matrix: &mut [f64], len: usize, stride: usize) {
    const TILE: usize = 32;
    for rows in (0..len).step_by(TILE) {
        for columns in (rows..len).step_by(TILE) {
            for i in rows..(rows + TILE).min(len) {
                for j in columns.max(i + 1)..(columns + TILE).min(len) {
                    matrix[j * stride + i] = matrix[i * stride + j];
                }
            }
        }
    }
}

/// What outputs have become so far: their weights, and what is added.
pub(crate) struct CurrentRows {
    /// The weights that are left, by output.
    pub weights: Vec<CsrRow>,
    /// Intercepts, by output.
    pub intercepts: Vec<f32>,
}

/// The sampled rows of one group of a layer's inputs.
pub(crate) struct Rows<'r> {
    site: &'r WeightSite<'r>,
    inputs: &'r Inputs,
    sample: &'r Sample,
    group: usize,
    /// Whether packed rows of all groups may stay in memory.
    keep: bool,
    packed: Vec<PackedRows>,
}

impl<'r> Rows<'r> {
    /// Rows of a group, `together` of which are worked on at a time.
    pub fn new(site: &'r WeightSite, inputs: &'r Inputs, sample: &'r Sample, group: usize, together: usize) -> Rows<'r> {
        let bytes = PackedRows::bytes(inputs.width(), sample.rows());
        let keep = !inputs.is_narrow() && bytes.saturating_mul(together) <= PACKED_BYTES;
        Rows { site, inputs, sample, group, keep, packed: Vec::new() }
    }

    /// Sums of the inputs' products, and `[outputs][K + 1]` of theirs with the targets: where an output has weights left (`kept`), and
    /// of the constant. What stands elsewhere means nothing.
    pub fn sums(&mut self, target: Option<(&DenseTarget, &[&[u32]])>) -> (InputSums, Vec<f64>) {
        let width = self.inputs.width();
        let mut sums = InputSums { width, count: self.sample.rows() as f64, gram: vec![0.0; width * width] };
        let mut cross = Vec::new();
        let outputs: Vec<usize> = self.inputs.outputs(self.group).collect();
        match target {
            Some((target, kept)) => cross = self.run(Some(&mut sums.gram), &outputs, kept, target, None),
            None if self.inputs.is_narrow() => self.narrow(Some(&mut sums.gram[..]), &[], None, &mut cross),
            None => {
                for blocks in self.sample.blocks.chunks(self.inputs.blocks_together(0)) {
                    let packed: Vec<PackedRows> =
                        blocks.par_iter().map(|block| self.inputs.pack(self.site, self.group, block)).collect();
                    add(&mut sums.gram, &packed, &packed, width, true);
                }
            }
        }
        (sums, cross)
    }

    /// Products of inputs and targets of some outputs, `[outputs][K + 1]`, where they have weights left, and of the constant.
    pub fn cross(&mut self, outputs: &[usize], target: &DenseTarget, current: &CurrentRows) -> Vec<f64> {
        let kept: Vec<&[u32]> = current.weights.iter().map(|row| &row.indices[..]).collect();
        self.run(None, outputs, &kept, target, Some(current))
    }

    fn run(
        &mut self,
        mut gram: Option<&mut Vec<f64>>,
        outputs: &[usize],
        kept: &[&[u32]],
        target: &DenseTarget,
        current: Option<&CurrentRows>,
    ) -> Vec<f64> {
        let width = self.inputs.width();
        let mut cross = vec![0.0; outputs.len() * width];
        if self.inputs.is_narrow() {
            self.narrow(gram.map(|gram| &mut gram[..]), outputs, Some((target, current)), &mut cross);
            return cross;
        }
        if kept.iter().map(|kept| kept.len()).sum::<usize>() as f64 <= FEW * (outputs.len() * self.inputs.len) as f64 {
            self.run_few(gram, outputs, kept, (target, current), &mut cross);
            return cross;
        }
        let together = self.inputs.blocks_together(outputs.len());
        let together = if self.keep { self.sample.blocks.len().max(1) } else { together };
        for blocks in self.sample.blocks.chunks(together) {
            let fresh = self.packed.is_empty();
            let this = &*self;
            let pack = |block: &Vec<Part>| {
                let inputs = fresh.then(|| this.inputs.pack(this.site, this.group, block));
                (inputs, this.pack_targets(block, outputs, target, current))
            };
            let (inputs, targets): (Vec<Option<PackedRows>>, Vec<PackedRows>) = blocks.par_iter().map(pack).unzip();
            let fresh: Vec<PackedRows> = inputs.into_iter().flatten().collect();
            let inputs = if self.packed.is_empty() { &fresh } else { &self.packed };
            if let Some(gram) = &mut gram {
                add(gram, inputs, inputs, width, true);
            }
            add(&mut cross, &targets, inputs, width, false);
            if self.keep && self.packed.is_empty() {
                self.packed = fresh;
            }
        }
        cross
    }

    /// The same, one by one for each weight that is left.
    fn run_few(
        &self,
        mut gram: Option<&mut Vec<f64>>,
        outputs: &[usize],
        kept: &[&[u32]],
        (target, current): (&DenseTarget, Option<&CurrentRows>),
        cross: &mut [f64],
    ) {
        let width = self.inputs.width();
        let constant = self.inputs.len as u32;
        let asked: Vec<Vec<u32>> = kept.iter().map(|kept| [kept, &[constant][..]].concat()).collect();
        let count: usize = asked.iter().map(Vec::len).sum();
        let needs_gram = gram.is_some();
        let of_block = |block: &Vec<Part>| {
            let inputs = needs_gram.then(|| self.inputs.pack(self.site, self.group, block));
            let (columns, stride) = self.columns(block);
            let targets = self.targets(block, outputs, target, current, &columns, stride);
            let mut products = vec![0.0; count];
            sparse_cross(Isa::best(), &targets, &columns, stride, &asked, &mut products);
            (inputs, products)
        };
        let bytes = PackedRows::bytes(width, if needs_gram { PackedRows::MOST } else { 0 }) + count * size_of::<f32>();
        let mut sums = vec![0.0; count];
        for blocks in self.sample.blocks.chunks((PACKED_BYTES / bytes).clamp(2, 128)) {
            let (inputs, products): (Vec<Option<PackedRows>>, Vec<Vec<f32>>) = blocks.par_iter().map(of_block).unzip();
            let inputs: Vec<PackedRows> = inputs.into_iter().flatten().collect();
            if let Some(gram) = &mut gram {
                add(gram, &inputs, &inputs, width, true);
            }
            // In the order of the blocks.
            sums.par_chunks_mut(SUMS).enumerate().for_each(|(at, sums)| {
                for products in &products {
                    sums.iter_mut().zip(&products[at * SUMS..]).for_each(|(sum, &product)| *sum += f64::from(product));
                }
            });
        }
        let places = asked.iter().enumerate().flat_map(|(m, asked)| asked.iter().map(move |&k| m * width + k as usize));
        places.zip(sums).for_each(|(place, sum)| cross[place] = sum);
    }

    fn pack_targets(&self, block: &[Part], outputs: &[usize], target: &DenseTarget, current: Option<&CurrentRows>) -> PackedRows {
        let rows = rows_of(block);
        let mut packed = PackedRows::zeros(outputs.len(), rows);
        let (columns, stride) = match current {
            Some(_) => self.columns(block),
            None => (Vec::new(), narrow_stride(rows)),
        };
        let targets = self.targets(block, outputs, target, current, &columns, stride);
        targets.chunks_exact(stride.max(1)).enumerate().for_each(|(m, column)| packed.set_column(m, 0, &column[..rows]));
        packed
    }

    /// The rows of a block, column by column, the constant last; filled up with zeros to whole vectors.
    fn columns(&self, block: &[Part]) -> (Vec<f32>, usize) {
        let rows = rows_of(block);
        let stride = narrow_stride(rows);
        let mut columns = vec![0.0; self.inputs.width() * stride];
        self.inputs.columns(self.site, self.group, block, &mut columns, stride);
        columns[self.inputs.len * stride..][..rows].fill(1.0);
        (columns, stride)
    }

    /// The targets of a block: `[outputs][stride]`. With `current` errors behind an activation's bounds do not count.
    fn targets(
        &self,
        block: &[Part],
        outputs: &[usize],
        target: &DenseTarget,
        current: Option<&CurrentRows>,
        columns: &[f32],
        stride: usize,
    ) -> Vec<f32> {
        let mut targets = vec![0.0; outputs.len() * stride];
        if let Some(current) = current {
            sparse_product(Isa::best(), &current.weights, columns, stride, &mut targets);
        }
        let mut at = 0;
        for part in block {
            for (m, &output) in outputs.iter().enumerate() {
                let out = &mut targets[m * stride + at..][..part.positions.len()];
                if let Some(current) = current {
                    out.iter_mut().for_each(|now| *now += current.intercepts[m]);
                }
                target.fill(part, output, current.is_some(), out);
            }
            at += part.positions.len();
        }
        // What lies behind the rows of a block is no row.
        let rows = rows_of(block);
        targets.chunks_exact_mut(stride.max(1)).for_each(|column| column[rows..].fill(0.0));
        targets
    }

    /// Sums of matrices with few columns: block by block, the blocks' sums added in order.
    fn narrow(
        &self,
        gram: Option<&mut [f64]>,
        outputs: &[usize],
        target: Option<(&DenseTarget, Option<&CurrentRows>)>,
        cross: &mut [f64],
    ) {
        let (width, kernel) = (self.inputs.width(), Isa::best());
        let needs_gram = gram.is_some();
        let of_block = |block: &Vec<Part>| {
            let (columns, stride) = self.columns(block);
            let mut sums = vec![0.0; if needs_gram { width * width } else { 0 }];
            let mut products = vec![0.0; outputs.len() * width];
            if needs_gram {
                accumulate_narrow(kernel, &columns, &columns, stride, &mut sums);
            }
            if let Some((target, current)) = target {
                let targets = self.targets(block, outputs, target, current, &columns, stride);
                accumulate_narrow(kernel, &targets, &columns, stride, &mut products);
            }
            (sums, products)
        };
        let gram = gram.unwrap_or_default();
        let add = |to: &mut [f64], from: &[f64]| to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        // In groups, so that the blocks' sums do not fill the memory.
        for blocks in self.sample.blocks.chunks(64) {
            let sums: Vec<(Vec<f64>, Vec<f64>)> = blocks.par_iter().map(of_block).collect();
            for (sums, products) in &sums {
                add(gram, sums);
                add(cross, products);
            }
        }
    }
}

/// Adds `left' * right` to `out`, strips of it in parallel; of a symmetric product the upper triangle.
fn add(out: &mut [f64], left: &[PackedRows], right: &[PackedRows], width: usize, symmetric: bool) {
    let (kernel, strip) = (Isa::best(), strip(out.len() / width));
    out.par_chunks_mut(strip * width).enumerate().for_each(|(i, out)| {
        accumulate(kernel, left, right, i * strip, if symmetric { i * strip } else { 0 }, out);
    });
}
