//! The inputs of a layer as rows of a matrix.

use super::store::ActivationStore;
use super::weights::WeightRows;
use crate::ops::Op;
use resprout_kernels::conv::Scratch;
use resprout_kernels::gram::{NARROW, PackedRows, Patches, narrow_stride};
use std::ops::Range;

/// The inputs of a layer as rows of a matrix: windows of a convolution, or vectors.
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

/// Some rows of one image.
pub(super) struct Part {
    pub chunk: usize,
    pub image: usize,
    pub positions: Vec<u32>,
}

/// The value that a layer reads, for all images.
#[derive(Clone, Copy)]
pub(super) struct InputValue<'s> {
    pub store: &'s ActivationStore,
    pub slot: usize,
}

impl<'s> InputValue<'s> {
    /// The value in the image of a part.
    fn of(&self, part: &Part) -> &'s [f32] {
        let value = self.store.value(part.chunk, self.slot);
        let image_len = value.len() / self.store.batch();
        &value.data[part.image * image_len..][..image_len]
    }
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

    /// Weights of an output.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Rows per image.
    pub(super) fn positions(&self) -> usize {
        self.positions
    }

    /// Whether matrices of so few columns are summed without packing.
    pub(super) fn is_narrow(&self) -> bool {
        self.width() <= NARROW
    }

    /// The rows of a block column by column, padded with zeros to whole vectors, and the stride. The last column is the constant.
    pub(super) fn columns(&self, value: InputValue, group: usize, block: &[Part]) -> (Vec<f32>, usize) {
        let rows = rows_of(block);
        let stride = narrow_stride(rows);
        let mut columns = vec![0.0; self.width() * stride];
        self.gather(value, group, block, &mut columns, stride);
        columns[self.len * stride..][..rows].fill(1.0);
        (columns, stride)
    }

    /// Writes the rows of one block into `columns: [K][stride]`.
    fn gather(&self, value: InputValue, group: usize, block: &[Part], columns: &mut [f32], stride: usize) {
        let mut scratch = Scratch::default();
        let mut at = 0;
        for part in block {
            let image = value.of(part);
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
    pub(super) fn pack(&self, value: InputValue, group: usize, block: &[Part]) -> PackedRows {
        let rows = rows_of(block);
        let mut packed = PackedRows::zeros(self.width(), rows);
        packed.set_column(self.len, 0, &vec![1.0; rows]);
        let mut scratch = Scratch::default();
        let mut at = 0;
        for part in block {
            let image = value.of(part);
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

/// The rows of a block.
pub(super) fn rows_of(block: &[Part]) -> usize {
    block.iter().map(|part| part.positions.len()).sum()
}
