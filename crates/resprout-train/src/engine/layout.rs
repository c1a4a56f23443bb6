//! How values lie in memory: `[chunks][C][H][W][lanes]`.

use resprout_kernels::batched::LANES;

/// From so many images on, vectors of images are used: fewer would leave most lanes empty.
const FEWEST: usize = 17;

/// Images, and how many of them a vector holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub images: usize,
    pub lanes: usize,
}

impl Layout {
    /// The best layout for so many images.
    pub fn of(images: usize) -> Layout {
        Layout { images, lanes: if images < FEWEST { 1 } else { LANES } }
    }

    pub fn chunks(&self) -> usize {
        self.images.div_ceil(self.lanes)
    }

    /// Elements of a value of this shape for one image.
    pub fn len(&self, shape: &[usize]) -> usize {
        self.chunks() * self.lanes * shape.iter().product::<usize>()
    }

    /// Lanes of the last chunk that hold an image of their own.
    pub fn last_lanes(&self) -> usize {
        self.images - (self.chunks() - 1) * self.lanes
    }

    /// `[N, each]` to vectors. Lanes without an image get the last one, whose numbers are as sane as any.
    pub fn pack(&self, rows: &[f32], each: usize, out: &mut [f32]) {
        for (chunk, out) in out.chunks_exact_mut((each * self.lanes).max(1)).enumerate() {
            for lane in 0..self.lanes {
                let image = (chunk * self.lanes + lane).min(self.images - 1);
                let row = &rows[image * each..][..each];
                out.iter_mut().skip(lane).step_by(self.lanes).zip(row).for_each(|(out, value)| *out = *value);
            }
        }
    }

    /// The same with zeros in lanes without an image: for gradients.
    pub fn pack_gradient(&self, rows: &[f32], each: usize, out: &mut [f32]) {
        self.pack(rows, each, out);
        self.clear_empty(out, each);
    }

    /// Vectors to `[N, each]`.
    pub fn unpack(&self, value: &[f32], each: usize) -> Vec<f32> {
        let at = |image: usize, at: usize| (image / self.lanes * each + at) * self.lanes + image % self.lanes;
        (0..self.images).flat_map(|image| (0..each).map(move |element| value[at(image, element)])).collect()
    }

    /// Sets lanes without an image to zero.
    pub fn clear_empty(&self, value: &mut [f32], each: usize) {
        let last = self.last_lanes();
        if last < self.lanes {
            let first = (self.chunks() - 1) * each * self.lanes;
            value[first..].chunks_exact_mut(self.lanes).for_each(|vector| vector[last..].fill(0.0));
        }
    }
}
