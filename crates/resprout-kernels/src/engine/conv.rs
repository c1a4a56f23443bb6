//! A convolution of a program: its weights, and the geometry of its output.

use super::packed_sparse::SparseRow;
use super::place::Placed;
use crate::{Activation, ConvShape};

/// A convolution and what happens in the same pass, on values of type `V`.
pub(super) struct Conv<V> {
    pub from: V,
    pub to: V,
    /// The summand, which is added before the activation.
    pub added: Option<V>,
    pub shape: ConvShape,
    pub rows: Vec<SparseRow>,
    /// The number of nonzero weights.
    pub nonzero: usize,
    pub bias: Vec<f32>,
    pub activation: Activation,
    /// Whether windows reach beyond patches.
    pub reads_halo: bool,
}

impl<V> Conv<V> {
    /// The same on values of another type.
    pub fn map<W>(self, value: impl Fn(V) -> W) -> Conv<W> {
        let Conv { from, to, added, shape, rows, nonzero, bias, activation, reads_halo } = self;
        let (from, to, added) = (value(from), value(to), added.map(value));
        Conv { from, to, added, shape, rows, nonzero, bias, activation, reads_halo }
    }

    /// The share of nonzero weights.
    pub fn density(&self) -> f64 {
        self.nonzero as f64 / (self.shape.dot_length() * self.shape.out_channels).max(1) as f64
    }

    /// The work of a tile: a unit for each nonzero weight and one for each output channel.
    pub fn work(&self) -> usize {
        self.nonzero + self.shape.out_channels
    }
}

impl Conv<Placed> {
    /// Whether the vectors of a row partition are contiguous and in the same order in input, output and summand, which have no halo.
    fn is_flat(&self) -> bool {
        let no_halo = |placed: &Placed| placed.extent.halo == [0, 0];
        self.shape.stride == [1, 1] && no_halo(&self.from) && no_halo(&self.to) && self.added.as_ref().is_none_or(no_halo)
    }

    /// Height and width of each row partition, which is cut into tiles. A flat one is a single row.
    pub fn row_partitions(&self) -> impl Iterator<Item = [usize; 2]> {
        let (layout, flat) = (self.to.extent.layout, self.is_flat());
        let size = move |rows: usize| if flat { [1, rows * layout.patch[1]] } else { [rows, layout.patch[1]] };
        (0..layout.row_partitions).map(move |partition| size(layout.rows(partition).len()))
    }

    /// Height and width of the first row partition; no other is larger.
    pub fn first_partition(&self) -> [usize; 2] {
        self.row_partitions().next().unwrap_or([1, 1])
    }

    /// Vectors of each output channel.
    pub fn vectors(&self) -> usize {
        self.to.extent.layout.vectors()
    }
}
