//! Batches of unlabelled images: shuffled, changed at random, and mixed.

use rayon::prelude::*;
use resprout::random::SplitMix64;
use resprout::tensor::Tensor;

/// Random changes to images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Changes {
    /// Whether an image is mirrored left to right with probability 1/2.
    pub flip: bool,
    /// The most pixels of a shift along each axis. Pixels of the edge fill what it uncovers.
    pub shift: usize,
    /// Share of images that are mixed with another one of the batch.
    pub mix: f64,
    /// Whether half of the mixed images get a rectangle of the other one, in place of a sum.
    pub cut: bool,
}

/// An endless row of batches.
pub(super) struct Batches<'i> {
    images: &'i Tensor,
    changes: Changes,
    batch: usize,
    seed: u64,
    /// Position in the row of all images of all epochs.
    next: usize,
    /// The epoch whose order is kept, and the order.
    order: (usize, Vec<usize>),
}

impl<'i> Batches<'i> {
    /// Of `images: [N, ...]`, from the first epoch on.
    pub fn new(images: &'i Tensor, changes: Changes, batch: usize, seed: u64) -> Batches<'i> {
        Batches { images, changes, batch, seed, next: 0, order: (0, order(images.shape[0], seed, 0)) }
    }

    /// The next batch, `[batch, ...]`. With fewer images than a batch, an image comes several times, each time changed anew.
    pub fn next(&mut self) -> Vec<f32> {
        let first = self.next;
        let picked: Vec<usize> = (0..self.batch).map(|_| self.pick()).collect();
        let each: usize = self.images.shape[1..].iter().product();
        let mut plain = vec![0.0; self.batch * each];
        let changed = plain.par_chunks_mut(each.max(1)).zip(picked).enumerate();
        changed.for_each(|(i, (out, image))| {
            let mut random = SplitMix64::new(self.seed.wrapping_add(1), (first + i) as u64);
            self.changes.view(&self.images.data[image * each..][..each], &self.images.shape[1..], &mut random, out);
        });
        let mut mixed = plain.clone();
        mixed.par_chunks_mut(each.max(1)).enumerate().for_each(|(i, out)| {
            let mut random = SplitMix64::new(self.seed.wrapping_add(2), (first + i) as u64);
            if random.next_f64() < self.changes.mix {
                let other = (i + 1 + random.below(self.batch - 1)) % self.batch;
                self.changes.mix(&plain[other * each..][..each], &self.images.shape[1..], &mut random, out);
            }
        });
        mixed
    }

    fn pick(&mut self) -> usize {
        let count = self.images.shape[0];
        let (epoch, at) = (self.next / count, self.next % count);
        if self.order.0 != epoch {
            self.order = (epoch, order(count, self.seed, epoch as u64));
        }
        self.next += 1;
        self.order.1[at]
    }
}

fn order(count: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    SplitMix64::new(seed, epoch).shuffle(&mut order);
    order
}

impl Changes {
    /// Mirrors and shifts one image.
    fn view(&self, image: &[f32], shape: &[usize], random: &mut SplitMix64, out: &mut [f32]) {
        let &[_, height, width] = shape else { return out.copy_from_slice(image) };
        let flip = self.flip && random.next_u64() & 1 == 1;
        let [down, right] = [(); 2].map(|()| random.below(2 * self.shift + 1));
        let moved = |at: usize, by: usize, size: usize| (at + by).saturating_sub(self.shift).min(size - 1);
        for (image, out) in image.chunks_exact(height * width).zip(out.chunks_exact_mut(height * width)) {
            for (y, row) in out.chunks_exact_mut(width).enumerate() {
                let from = &image[moved(y, down, height) * width..][..width];
                row.iter_mut().enumerate().for_each(|(x, out)| *out = from[moved(x, right, width)]);
                if flip {
                    row.reverse();
                }
            }
        }
    }

    /// Mixes `other` into `out`: a weighted sum (Zhang et al., mixup, ICLR 2018) or a rectangle (Yun et al., CutMix, ICCV 2019),
    /// with the share of the other image drawn evenly from 0 to 1, as both papers do for CIFAR-10.
    fn mix(&self, other: &[f32], shape: &[usize], random: &mut SplitMix64, out: &mut [f32]) {
        let share = random.next_f64();
        match *shape {
            [_, height, width] if self.cut && random.next_u64() & 1 == 1 => {
                let side = share.sqrt();
                let range = |size: usize, random: &mut SplitMix64| {
                    let (half, centre) = (side * size as f64 / 2.0, random.below(size) as f64);
                    ((centre - half).max(0.0) as usize)..((centre + half) as usize).min(size)
                };
                let (rows, columns) = (range(height, random), range(width, random));
                for (out, other) in out.chunks_exact_mut(height * width).zip(other.chunks_exact(height * width)) {
                    for row in rows.clone() {
                        let part = row * width + columns.start..row * width + columns.end;
                        out[part.clone()].copy_from_slice(&other[part]);
                    }
                }
            }
            _ => out.iter_mut().zip(other).for_each(|(out, other)| *out += (other - *out) * share as f32),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Changes = Changes { flip: false, shift: 0, mix: 0.0, cut: false };

    fn images(count: usize, shape: [usize; 3]) -> Tensor {
        let each: usize = shape.iter().product();
        Tensor::new([&[count][..], &shape].concat(), (0..count * each).map(|i| i as f32).collect())
    }

    #[test]
    fn every_image_comes_once_in_each_epoch() {
        let images = images(6, [1, 1, 1]);
        let mut batches = Batches::new(&images, NONE, 4, 3);
        let mut row: Vec<f32> = (0..3).flat_map(|_| batches.next()).collect();
        assert_ne!(row[..6], row[6..]);
        row[..6].sort_by(f32::total_cmp);
        row[6..].sort_by(f32::total_cmp);
        assert_eq!(row, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    }

    #[test]
    fn shifts_repeat_the_edge_and_flips_mirror_rows() {
        let images = images(1, [1, 2, 3]);
        let (mut shifted, mut mirrored) = (0, 0);
        let changes = Changes { flip: true, shift: 1, ..NONE };
        for seed in 0..50 {
            let view = Batches::new(&images, changes, 2, seed).next();
            for view in view.chunks_exact(6) {
                // Rows and columns keep their order, or run backwards, and the edge comes again.
                let backwards = view[0] > view[2];
                mirrored += usize::from(backwards);
                shifted += usize::from(view[0] == view[3]);
                let mut row = view[..3].to_vec();
                if backwards {
                    row.reverse();
                }
                let base = row[0] - row[0] % 3.0;
                assert!([[0.0, 0.0, 1.0], [0.0, 1.0, 2.0], [1.0, 2.0, 2.0]].contains(&[
                    row[0] - base,
                    row[1] - base,
                    row[2] - base
                ]));
            }
        }
        assert!((30..70).contains(&mirrored), "{mirrored}");
        assert!((40..95).contains(&shifted), "{shifted}");
    }

    #[test]
    fn mixed_images_lie_between_two_or_hold_a_rectangle() {
        let images = Tensor::new(vec![2, 1, 8, 8], [[0.0; 64], [1.0; 64]].concat());
        let (mut sums, mut cuts) = (0, 0);
        for seed in 0..40 {
            let batch = Batches::new(&images, Changes { mix: 1.0, cut: true, ..NONE }, 2, seed).next();
            for image in batch.chunks_exact(64) {
                let binary = image.iter().all(|&v| v == 0.0 || v == 1.0);
                let even = image.iter().all(|v| *v == image[0]);
                assert!(binary || (even && (0.0..=1.0).contains(&image[0])), "{image:?}");
                cuts += usize::from(binary && !even);
                sums += usize::from(!binary);
            }
        }
        assert!(sums > 20 && cuts > 20, "{sums} {cuts}");
        assert_eq!(Batches::new(&images, NONE, 2, 0).next().iter().sum::<f32>(), 64.0);
    }
}
