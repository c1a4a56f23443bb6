//! Statistics of a value's channels, in `f64`.

/// Mean and variance of every channel of a value, over images and positions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChannelStats {
    /// Number of elements per channel.
    pub count: u64,
    /// Means, `[C]`.
    pub mean: Vec<f64>,
    /// Variances, `[C]`, divided by `count` (not `count - 1`).
    pub var: Vec<f64>,
}

/// Statistics of the same value in the dense and in the pruned network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PairStats {
    /// Of the dense network.
    pub dense: ChannelStats,
    /// Of the pruned network.
    pub sparse: ChannelStats,
    /// Covariance of the two, `[C]`.
    pub cov: Vec<f64>,
}

impl PairStats {
    /// Correlation of channel `c` between the two networks; 0 where one of them is constant.
    pub fn correlation(&self, c: usize) -> f64 {
        let norm = (self.dense.var[c] * self.sparse.var[c]).sqrt();
        if norm > 0.0 { (self.cov[c] / norm).clamp(-1.0, 1.0) } else { 0.0 }
    }
}

/// The layout of a value's channels: `[outer][channels][inner]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelView {
    /// Number of channels.
    pub channels: usize,
    /// Adjacent elements of a channel.
    pub inner: usize,
}

impl ChannelView {
    /// Channels along axis 1, or along the last axis.
    pub fn new(shape: &[usize], last: bool) -> ChannelView {
        if last {
            return ChannelView { channels: shape.last().copied().unwrap_or(1).max(1), inner: 1 };
        }
        let channels = shape.get(1).copied().unwrap_or(1).max(1);
        ChannelView { channels, inner: shape.iter().skip(2).product::<usize>().max(1) }
    }
}

/// Sums per channel.
#[derive(Clone, Default)]
pub(super) struct Sums {
    count: u64,
    sum: Vec<f64>,
    squares: Vec<f64>,
}

impl Sums {
    pub(super) fn of(values: &[f32], view: ChannelView) -> Sums {
        let mut sums = Sums { count: 0, sum: vec![0.0; view.channels], squares: vec![0.0; view.channels] };
        for outer in values.chunks_exact(view.channels * view.inner) {
            sums.count += view.inner as u64;
            for (c, values) in outer.chunks_exact(view.inner).enumerate() {
                let (sum, squares) = lane_sums(values);
                sums.sum[c] += sum;
                sums.squares[c] += squares;
            }
        }
        sums
    }

    pub(super) fn add(mut self, other: &Sums) -> Sums {
        if self.sum.is_empty() {
            return other.clone();
        }
        self.count += other.count;
        add_to(&mut self.sum, &other.sum);
        add_to(&mut self.squares, &other.squares);
        self
    }

    pub(super) fn stats(&self) -> ChannelStats {
        let count = self.count.max(1) as f64;
        let mean: Vec<f64> = self.sum.iter().map(|sum| sum / count).collect();
        // Squares of f32 are exact in f64, yet the variance of a constant channel may round to a tiny value.
        let var = self.squares.iter().zip(&mean).map(|(squares, mean)| {
            let var = squares / count - mean * mean;
            if var > 1e-14 * mean * mean { var } else { 0.0 }
        });
        ChannelStats { count: self.count, var: var.collect(), mean }
    }
}

/// Sums of two values and of their product, per channel.
#[derive(Clone, Default)]
pub(super) struct PairSums {
    dense: Sums,
    sparse: Sums,
    product: Vec<f64>,
}

impl PairSums {
    pub(super) fn of(dense: &[f32], sparse: &[f32], view: ChannelView) -> PairSums {
        let mut product = vec![0.0; view.channels];
        let block = view.channels * view.inner;
        for (dense, sparse) in dense.chunks_exact(block).zip(sparse.chunks_exact(block)) {
            let rows = dense.chunks_exact(view.inner).zip(sparse.chunks_exact(view.inner));
            rows.zip(&mut product).for_each(|((a, b), sum)| *sum += lane_products(a, b));
        }
        PairSums { dense: Sums::of(dense, view), sparse: Sums::of(sparse, view), product }
    }

    pub(super) fn add(mut self, other: &PairSums) -> PairSums {
        if self.product.is_empty() {
            return other.clone();
        }
        self.dense = self.dense.add(&other.dense);
        self.sparse = self.sparse.add(&other.sparse);
        add_to(&mut self.product, &other.product);
        self
    }

    pub(super) fn stats(&self) -> PairStats {
        let (dense, sparse) = (self.dense.stats(), self.sparse.stats());
        let count = self.sparse.count.max(1) as f64;
        let cov = (0..self.product.len()).map(|c| self.product[c] / count - dense.mean[c] * sparse.mean[c]).collect();
        PairStats { dense, sparse, cov }
    }
}

fn add_to(sums: &mut [f64], more: &[f64]) {
    sums.iter_mut().zip(more).for_each(|(a, b)| *a += b);
}

/// Eight interleaved sums, which hide the latency of the additions.
fn lane_sums(values: &[f32]) -> (f64, f64) {
    let (mut sums, mut squares) = ([0.0f64; 8], [0.0f64; 8]);
    let (blocks, rest) = values.as_chunks::<8>();
    for block in blocks {
        for lane in 0..8 {
            let value = f64::from(block[lane]);
            sums[lane] += value;
            squares[lane] += value * value;
        }
    }
    for &value in rest {
        let value = f64::from(value);
        sums[0] += value;
        squares[0] += value * value;
    }
    (sums.iter().sum(), squares.iter().sum())
}

fn lane_products(a: &[f32], b: &[f32]) -> f64 {
    let mut sums = [0.0f64; 8];
    let ((a_blocks, a_rest), (b_blocks, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..8 {
            sums[lane] += f64::from(a[lane]) * f64::from(b[lane]);
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_exact_where_f32_would_lose_everything() {
        // Mean 4096, variance 1: an f32 sum of squares would have an error larger than the variance.
        let data: Vec<f32> = (0..2 * 1000).map(|i| if i % 2 == 0 { 4097.0 } else { 4095.0 }).collect();
        let stats = Sums::of(&data, ChannelView { channels: 1, inner: 1000 }).stats();
        assert_eq!((stats.count, stats.mean[0], stats.var[0]), (2000, 4096.0, 1.0));
    }

    #[test]
    fn pairs_by_hand() {
        // Channel 0: (1, 2), (3, 6); channel 1: (0, 5), (0, 7).
        let view = ChannelView { channels: 2, inner: 1 };
        let whole = PairSums::of(&[1.0, 0.0, 3.0, 0.0], &[2.0, 5.0, 6.0, 7.0], view);
        let parts = PairSums::of(&[1.0, 0.0], &[2.0, 5.0], view).add(&PairSums::of(&[3.0, 0.0], &[6.0, 7.0], view));
        for stats in [whole.stats(), parts.stats()] {
            assert_eq!((stats.dense.mean.clone(), stats.dense.var.clone()), (vec![2.0, 0.0], vec![1.0, 0.0]));
            assert_eq!((stats.sparse.mean.clone(), stats.sparse.var.clone()), (vec![4.0, 6.0], vec![4.0, 1.0]));
            assert_eq!(stats.cov, [2.0, 0.0]);
            assert_eq!((stats.correlation(0), stats.correlation(1)), (1.0, 0.0));
        }
    }
}
