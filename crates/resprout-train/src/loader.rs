//! Batches of training images: shuffled, augmented, and loaded by worker threads during the training steps.

use crate::error::data;
use resprout::data::{ImageSet, Preprocess};
use resprout::random::SplitMix64;
use resprout::{Error, Result};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Batches that each worker prepares in advance.
const AHEAD: usize = 2;

/// Random changes to training images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Pixels of black padding on every side. An image of the old size is cropped from it at random. 0 for none.
    pub crop: usize,
    /// Whether each image is mirrored left to right with probability 1/2.
    pub flip: bool,
}

/// Labelled images of a split, and their preprocessing. Clones share the images.
#[derive(Clone)]
pub struct Examples {
    /// The images.
    pub set: Arc<ImageSet>,
    /// The indices of this split's images in `set`.
    pub indices: Arc<Vec<usize>>,
    /// The preprocessing.
    pub preprocess: Preprocess,
    /// The number of channels that the model takes.
    pub channels: usize,
}

/// A batch of images and labels.
pub struct Batch {
    /// Preprocessed images, `[N, C, H, W]`.
    pub images: Vec<f32>,
    /// Channels, height and width of an image.
    pub shape: [usize; 3],
    /// One class per image.
    pub labels: Vec<usize>,
}

impl Examples {
    /// Channels, height and width of the first image. The others must have the same.
    ///
    /// # Errors
    /// Of kind `Data` for no images, and as [`ImageSet::load`].
    pub fn image(&self) -> Result<[usize; 3]> {
        let first = *self.indices.first().ok_or_else(|| data(format!("{}: no images", self.set.path().display())))?;
        Ok(self.set.load_one(first, self.channels, &self.preprocess)?.1)
    }

    /// The label of each image of the split.
    ///
    /// # Errors
    /// Of kind `Data` if the images have none.
    pub fn labels(&self) -> Result<Vec<usize>> {
        let labels =
            self.set.labels().ok_or_else(|| data(format!("{}: the images have no labels", self.set.path().display())))?;
        Ok(self.indices.iter().map(|&index| labels[index]).collect())
    }

    /// Fails on a label that a model of so many classes has no class for.
    ///
    /// # Errors
    /// Of kind `Data`, also if the images have no labels.
    pub fn check_labels(&self, classes: usize) -> Result<()> {
        let Some(label) = self.labels()?.into_iter().find(|&label| label >= classes) else { return Ok(()) };
        let (path, last) = (self.set.path().display(), classes - 1);
        Err(data(format!("{path}: label {label}, but the model has {classes} classes (0 to {last})")))
    }

    /// The batches of an epoch, of `batch` images each, loaded by `workers` threads. `seed` and `epoch` determine order and
    /// augmentation.
    ///
    /// # Errors
    /// Of kind `Data` if the images have no labels. Images that cannot be loaded are errors of the iterator.
    pub fn epoch(&self, batch: usize, augment: Augment, seed: u64, epoch: u64, workers: usize) -> Result<Batches> {
        let labels = self.labels()?;
        let mut order: Vec<usize> = (0..self.indices.len()).collect();
        SplitMix64::new(seed, epoch).shuffle(&mut order);
        let order: Arc<Vec<(usize, usize)>> = Arc::new(order.into_iter().map(|i| (self.indices[i], labels[i])).collect());
        let count = batch_count(order.len(), batch);
        let mut channels = Vec::new();
        for worker in 0..workers.clamp(1, count.max(1)) {
            let (sender, receiver) = sync_channel(AHEAD);
            let job = Worker { examples: self.clone(), order: order.clone(), batch, augment, seed, epoch };
            let workers = workers.clamp(1, count.max(1));
            std::thread::spawn(move || job.run((worker..count).step_by(workers), &sender));
            channels.push(receiver);
        }
        Ok(Batches { channels, next: 0, count })
    }
}

/// The number of batches of an epoch. A last batch of one image is left out, because it has no variance.
pub fn batch_count(images: usize, batch: usize) -> usize {
    images / batch + usize::from(images % batch > 1)
}

/// The batches of one epoch, in order.
pub struct Batches {
    channels: Vec<Receiver<Result<Batch>>>,
    next: usize,
    count: usize,
}

impl Iterator for Batches {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        if self.next == self.count {
            return None;
        }
        let batch = self.channels[self.next % self.channels.len()].recv();
        self.next += 1;
        Some(batch.unwrap_or_else(|_| Err(Error::new(resprout::ErrorKind::Io, "a thread that loads images has died"))))
    }
}

struct Worker {
    examples: Examples,
    order: Arc<Vec<(usize, usize)>>,
    batch: usize,
    augment: Augment,
    seed: u64,
    epoch: u64,
}

impl Worker {
    fn run(&self, batches: impl Iterator<Item = usize>, sender: &SyncSender<Result<Batch>>) {
        for index in batches {
            // The receiver is gone: training has stopped.
            if sender.send(self.batch(index)).is_err() {
                return;
            }
        }
    }

    fn batch(&self, index: usize) -> Result<Batch> {
        let Examples { set, preprocess, channels, .. } = &self.examples;
        let first = index * self.batch;
        let part = &self.order[first..self.order.len().min(first + self.batch)];
        let mut batch = Batch { images: Vec::new(), shape: [0; 3], labels: Vec::with_capacity(part.len()) };
        for (i, &(image, label)) in part.iter().enumerate() {
            let (data, shape) = set.load_one(image, *channels, preprocess)?;
            if i == 0 {
                batch.shape = shape;
                batch.images.reserve_exact(part.len() * data.len());
            } else if shape != batch.shape {
                return Err(set.different_sizes(part[0].0, batch.shape, image, shape));
            }
            let mut random = SplitMix64::new(self.seed.wrapping_add(1), (self.epoch << 32) + (first + i) as u64);
            self.augment.apply(&data, shape, preprocess, &mut random, &mut batch.images);
            batch.labels.push(label);
        }
        Ok(batch)
    }
}

impl Augment {
    /// Appends the augmented image to `out`.
    fn apply(
        &self,
        image: &[f32],
        [_, height, width]: [usize; 3],
        preprocess: &Preprocess,
        random: &mut SplitMix64,
        out: &mut Vec<f32>,
    ) {
        let flip = self.flip && random.next_u64() & 1 == 1;
        let (top, left) = match self.crop {
            0 => (0, 0),
            padding => (random.below(2 * padding + 1), random.below(2 * padding + 1)),
        };
        let each = |values: &[f32], c: usize| values[c.min(values.len() - 1)];
        for (c, plane) in image.chunks_exact(height * width).enumerate() {
            let black = -each(&preprocess.mean, c) / each(&preprocess.std, c);
            for y in 0..height {
                let start = out.len();
                let row = (y + top).checked_sub(self.crop).filter(|&row| row < height);
                out.extend((0..width).map(|x| {
                    let column = (x + left).checked_sub(self.crop).filter(|&column| column < width);
                    row.zip(column).map_or(black, |(row, column)| plane[row * width + column])
                }));
                if flip {
                    out[start..].reverse();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples(count: usize) -> Examples {
        let pixels: Vec<u8> = (0..count * 12).map(|i| (i % 251) as u8).collect();
        let set = ImageSet::from_bytes("test", pixels, [count, 1, 3, 4], Some((0..count).map(|i| i % 3).collect())).unwrap();
        let preprocess = Preprocess::preset("raw").unwrap();
        Examples { set: Arc::new(set), indices: Arc::new((0..count).collect()), preprocess, channels: 1 }
    }

    fn all(examples: &Examples, augment: Augment, epoch: u64, workers: usize) -> Vec<(Vec<f32>, Vec<usize>)> {
        let batches = examples.epoch(4, augment, 7, epoch, workers).unwrap();
        batches.map(|batch| batch.map(|b| (b.images, b.labels)).unwrap()).collect()
    }

    #[test]
    fn every_image_comes_once_with_its_label_for_any_number_of_workers() {
        let examples = examples(11);
        let batches = all(&examples, Augment::default(), 3, 1);
        assert_eq!(batches.iter().map(|(_, labels)| labels.len()).collect::<Vec<_>>(), [4, 4, 3]);
        let mut seen: Vec<usize> = Vec::new();
        for (images, labels) in &batches {
            for (image, label) in images.chunks(12).zip(labels) {
                let index = (0..11).find(|i| image[0] == (i * 12 % 251) as f32).unwrap();
                assert_eq!(index % 3, *label);
                seen.push(index);
            }
        }
        seen.sort();
        assert_eq!(seen, (0..11).collect::<Vec<_>>());
        for workers in [2, 3, 50] {
            assert_eq!(
                all(&examples, Augment { crop: 1, flip: true }, 3, workers),
                all(&examples, Augment { crop: 1, flip: true }, 3, 1)
            );
        }
        assert_ne!(all(&examples, Augment::default(), 4, 1), batches);
        // A last batch of one image has no variance.
        assert_eq!((batch_count(9, 4), batch_count(8, 4), batch_count(1, 4)), (2, 2, 0));
    }

    #[test]
    fn crops_are_shifted_windows_with_black_padding_and_flips_are_mirrored() {
        let preprocess = Preprocess { mean: vec![2.0], std: vec![4.0], ..Preprocess::preset("raw").unwrap() };
        let image: Vec<f32> = (1..=12).map(|i| i as f32).collect();
        let (mut flipped, mut corners) = (0, std::collections::HashSet::new());
        for stream in 0..200 {
            let mut out = Vec::new();
            let augment = Augment { crop: 1, flip: true };
            augment.apply(&image, [1, 3, 4], &preprocess, &mut SplitMix64::new(1, stream), &mut out);
            // The middle of the window is never padding.
            let middle = &out[4..8];
            let inner: Vec<f32> = middle.iter().copied().filter(|&v| v != -0.5).collect();
            let mirrored = inner[1] < inner[0];
            flipped += usize::from(mirrored);
            assert!(inner.windows(2).all(|pair| pair[1] - pair[0] == if mirrored { -1.0 } else { 1.0 }), "{out:?}");
            corners.insert(out.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
        }
        assert!((70..130).contains(&flipped), "{flipped} of 200");
        assert_eq!(corners.len(), 18, "nine windows, each mirrored or not");
    }
}
