//! Normal equations of a layer: the Gram matrix of its inputs in the pruned network, and their products with targets.

use super::inputs::{InputValue, Inputs, Part, rows_of};
use super::sample::Sample;
use super::site::WeightSite;
use super::target::DenseTarget;
use rayon::prelude::*;
use resprout_kernels::Isa;
use resprout_kernels::gram::{
    CsrRow, PackedRows, accumulate, accumulate_narrow, narrow_stride, sparse_cross, sparse_product, strip,
};

/// Memory of packed rows that wait to be summed. A layer whose rows all fit is packed once.
const PACKED_BYTES: usize = 160 << 20;

/// Up to this share of kept weights, products with targets are summed for the kept weights alone.
const SPARSE_SHARE: f64 = 0.3;

/// Sums per task: few enough for the first-level cache.
const SUMS: usize = 4096;

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

    /// Covariances or mean products of all inputs, both triangles: `[K][K + 1]`. The inputs' means come second.
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

/// Copies the upper triangle of `matrix: [len][stride]` to the lower one. It goes tile by tile because columns are far apart
/// in memory.
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

/// The current weights and intercepts of some outputs.
pub(crate) struct CurrentRows {
    /// The kept weights, by output.
    pub weights: Vec<CsrRow>,
    /// Intercepts, by output.
    pub intercepts: Vec<f32>,
}

/// The sampled rows of one group of a layer's inputs.
pub(crate) struct Rows<'r> {
    value: InputValue<'r>,
    inputs: &'r Inputs,
    sample: &'r Sample,
    group: usize,
    /// Whether the packed rows of all groups fit in memory.
    keep: bool,
    packed: Vec<PackedRows>,
}

impl<'r> Rows<'r> {
    /// Rows of one group; `groups` of them are in memory at a time.
    pub fn new(site: &'r WeightSite, inputs: &'r Inputs, sample: &'r Sample, group: usize, groups: usize) -> Rows<'r> {
        let bytes = PackedRows::bytes(inputs.width(), sample.rows());
        let keep = !inputs.is_narrow() && bytes.saturating_mul(groups) <= PACKED_BYTES;
        Rows { value: site.input_value(), inputs, sample, group, keep, packed: Vec::new() }
    }

    /// Sums of the inputs' products, and `[outputs][K + 1]` sums of their products with the targets. The latter are valid at an
    /// output's kept weights (`kept`) and at the constant.
    pub fn sums(&mut self, target: Option<(&DenseTarget, &[&[u32]])>) -> (InputSums, Vec<f64>) {
        let width = self.inputs.width();
        let mut sums = InputSums { width, count: self.sample.rows() as f64, gram: vec![0.0; width * width] };
        let mut cross = Vec::new();
        let outputs: Vec<usize> = self.inputs.outputs(self.group).collect();
        match target {
            Some((target, kept)) => cross = self.run(Some(&mut sums.gram), &outputs, kept, target, None),
            None if self.inputs.is_narrow() => self.run_narrow(Some(&mut sums.gram[..]), &[], None, &mut cross),
            None => {
                for blocks in self.sample.blocks.chunks(self.blocks_per_pack(0)) {
                    let packed: Vec<PackedRows> = blocks.par_iter().map(|block| self.pack(block)).collect();
                    add_product(&mut sums.gram, &packed, &packed, width, true);
                }
            }
        }
        (sums, cross)
    }

    /// Sums of products of the inputs with targets of some outputs: `[outputs][K + 1]`. They are valid at kept weights and at
    /// the constant.
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
            self.run_narrow(gram.map(|gram| &mut gram[..]), outputs, Some((target, current)), &mut cross);
            return cross;
        }
        let count = kept.iter().map(|kept| kept.len()).sum::<usize>();
        if count as f64 <= SPARSE_SHARE * (outputs.len() * self.inputs.len()) as f64 {
            self.run_sparse(gram, outputs, kept, (target, current), &mut cross);
            return cross;
        }
        let blocks_per_pack = self.blocks_per_pack(outputs.len());
        let blocks_per_pack = if self.keep { self.sample.blocks.len().max(1) } else { blocks_per_pack };
        for blocks in self.sample.blocks.chunks(blocks_per_pack) {
            let fresh = self.packed.is_empty();
            let this = &*self;
            let pack = |block: &Vec<Part>| (fresh.then(|| this.pack(block)), this.pack_targets(block, outputs, target, current));
            let (inputs, targets): (Vec<Option<PackedRows>>, Vec<PackedRows>) = blocks.par_iter().map(pack).unzip();
            let fresh: Vec<PackedRows> = inputs.into_iter().flatten().collect();
            let inputs = if self.packed.is_empty() { &fresh } else { &self.packed };
            if let Some(gram) = &mut gram {
                add_product(gram, inputs, inputs, width, true);
            }
            add_product(&mut cross, &targets, inputs, width, false);
            if self.keep && self.packed.is_empty() {
                self.packed = fresh;
            }
        }
        cross
    }

    /// As [`run`](Self::run), for the kept weights alone.
    fn run_sparse(
        &self,
        mut gram: Option<&mut Vec<f64>>,
        outputs: &[usize],
        kept: &[&[u32]],
        (target, current): (&DenseTarget, Option<&CurrentRows>),
        cross: &mut [f64],
    ) {
        let width = self.inputs.width();
        let constant = self.inputs.len() as u32;
        let indices: Vec<Vec<u32>> = kept.iter().map(|kept| [kept, &[constant][..]].concat()).collect();
        let count: usize = indices.iter().map(Vec::len).sum();
        let needs_gram = gram.is_some();
        let of_block = |block: &Vec<Part>| {
            let inputs = needs_gram.then(|| self.pack(block));
            let (columns, stride) = self.columns(block);
            let targets = self.targets(block, outputs, target, current, &columns, stride);
            let mut products = vec![0.0; count];
            sparse_cross(Isa::best(), &targets, &columns, stride, &indices, &mut products);
            (inputs, products)
        };
        let bytes = PackedRows::bytes(width, if needs_gram { PackedRows::MOST } else { 0 }) + count * size_of::<f32>();
        let mut sums = vec![0.0; count];
        for blocks in self.sample.blocks.chunks((PACKED_BYTES / bytes).clamp(2, 128)) {
            let (inputs, products): (Vec<Option<PackedRows>>, Vec<Vec<f32>>) = blocks.par_iter().map(of_block).unzip();
            let inputs: Vec<PackedRows> = inputs.into_iter().flatten().collect();
            if let Some(gram) = &mut gram {
                add_product(gram, &inputs, &inputs, width, true);
            }
            // In the order of the blocks.
            sums.par_chunks_mut(SUMS).enumerate().for_each(|(at, sums)| {
                for products in &products {
                    sums.iter_mut().zip(&products[at * SUMS..]).for_each(|(sum, &product)| *sum += f64::from(product));
                }
            });
        }
        let places = indices.iter().enumerate().flat_map(|(m, indices)| indices.iter().map(move |&k| m * width + k as usize));
        places.zip(sums).for_each(|(place, sum)| cross[place] = sum);
    }

    /// As [`run`](Self::run), for matrices of few columns: the sums of blocks are added in order.
    fn run_narrow(
        &self,
        gram: Option<&mut [f64]>,
        outputs: &[usize],
        target: Option<(&DenseTarget, Option<&CurrentRows>)>,
        cross: &mut [f64],
    ) {
        let (width, isa) = (self.inputs.width(), Isa::best());
        let needs_gram = gram.is_some();
        let of_block = |block: &Vec<Part>| {
            let (columns, stride) = self.columns(block);
            let mut sums = vec![0.0; if needs_gram { width * width } else { 0 }];
            let mut products = vec![0.0; outputs.len() * width];
            if needs_gram {
                accumulate_narrow(isa, &columns, &columns, stride, &mut sums);
            }
            if let Some((target, current)) = target {
                let targets = self.targets(block, outputs, target, current, &columns, stride);
                accumulate_narrow(isa, &targets, &columns, stride, &mut products);
            }
            (sums, products)
        };
        let gram = gram.unwrap_or_default();
        let add = |to: &mut [f64], from: &[f64]| to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        // A few blocks at a time, so that their sums do not fill the memory.
        for blocks in self.sample.blocks.chunks(64) {
            let sums: Vec<(Vec<f64>, Vec<f64>)> = blocks.par_iter().map(of_block).collect();
            for (sums, products) in &sums {
                add(gram, sums);
                add(cross, products);
            }
        }
    }

    /// Blocks that are packed at a time, so that the panels of one block are multiplied with many others.
    fn blocks_per_pack(&self, targets: usize) -> usize {
        let block = PackedRows::bytes(self.inputs.width(), PackedRows::MOST) + PackedRows::bytes(targets, PackedRows::MOST);
        (PACKED_BYTES / block).clamp(2, 128)
    }

    fn pack(&self, block: &[Part]) -> PackedRows {
        self.inputs.pack(self.value, self.group, block)
    }

    fn columns(&self, block: &[Part]) -> (Vec<f32>, usize) {
        self.inputs.columns(self.value, self.group, block)
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

    /// The targets of a block: `[outputs][stride]`. With `current`, errors beyond an activation's bounds do not count.
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
        // The padding after the rows must add nothing.
        let rows = rows_of(block);
        targets.chunks_exact_mut(stride.max(1)).for_each(|column| column[rows..].fill(0.0));
        targets
    }
}

/// Adds `left' * right` to `out`, in parallel strips; the upper triangle of a symmetric product.
fn add_product(out: &mut [f64], left: &[PackedRows], right: &[PackedRows], width: usize, symmetric: bool) {
    let (isa, strip) = (Isa::best(), strip(out.len() / width));
    out.par_chunks_mut(strip * width).enumerate().for_each(|(i, out)| {
        accumulate(isa, left, right, i * strip, if symmetric { i * strip } else { 0 }, out);
    });
}
