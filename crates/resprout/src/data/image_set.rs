//! A set of images: where they are, and how they are loaded.

use super::decode::decode;
use super::preprocess::Preprocess;
use super::raw::{Pixels, RawImage};
use crate::error::{Error, Result};
use crate::hash::{files_sha256, sha256};
use crate::tensor::Tensor;
use rayon::prelude::*;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Where images are.
pub(super) enum Source {
    /// One file each, decoded on loading.
    Files(Vec<PathBuf>),
    /// All in memory: `[N, C, H, W]`.
    Bytes(Vec<u8>, [usize; 4]),
    /// All in memory: `[N, C, H, W]`.
    Floats(Vec<f32>, [usize; 4]),
}

/// A set of images, and their labels if there are any. Image files are decoded when they are [loaded](Self::load).
pub struct ImageSet {
    pub(super) path: PathBuf,
    pub(super) source: Source,
    /// One class per image.
    pub(super) labels: Option<Vec<usize>>,
    /// The names of the classes, if the data have them.
    pub(super) class_names: Option<Vec<String>>,
    /// A file of labels beside the images, read only if labels are needed.
    pub(super) label_file: Option<PathBuf>,
    /// What of the path is not read: one sentence each.
    pub(super) left_out: Vec<String>,
}

/// Recognises a kind of data at a path, a row of [`DATASETS`](super::DATASETS); `None` if it is another kind.
#[doc(hidden)]
pub type Open = fn(&Path) -> Result<Option<ImageSet>>;

impl ImageSet {
    /// Images in memory: `pixels: [N, C, H, W]`, one byte each, and one class per image. `name` is for messages.
    ///
    /// # Errors
    /// Of kind `Data` unless pixels and labels fit `shape`.
    pub fn from_bytes(name: &str, pixels: Vec<u8>, shape: [usize; 4], labels: Option<Vec<usize>>) -> Result<ImageSet> {
        let set = ImageSet {
            path: PathBuf::from(name),
            source: Source::Bytes(pixels, shape),
            labels,
            class_names: None,
            label_file: None,
            left_out: Vec::new(),
        };
        let fits = matches!(&set.source, Source::Bytes(data, shape) if data.len() == shape.iter().product::<usize>());
        if !fits || set.labels.as_ref().is_some_and(|labels| labels.len() != shape[0]) {
            return Err(Error::data(format!("{name}: pixels and labels do not fit the shape {shape:?}")));
        }
        Ok(set)
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        match &self.source {
            Source::Files(files) => files.len(),
            Source::Bytes(_, shape) | Source::Floats(_, shape) => shape[0],
        }
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps the first `count` images.
    pub fn truncate(&mut self, count: usize) {
        match &mut self.source {
            Source::Files(files) => files.truncate(count),
            Source::Bytes(_, shape) | Source::Floats(_, shape) => shape[0] = shape[0].min(count),
        }
        if let Some(labels) = &mut self.labels {
            labels.truncate(count);
        }
    }

    /// Keeps the images from `start` on.
    pub fn skip(&mut self, start: usize) {
        let start = start.min(self.len());
        match &mut self.source {
            Source::Files(files) => drop(files.drain(..start)),
            Source::Bytes(data, shape) => drop(data.drain(..take_from_front(shape, start))),
            Source::Floats(data, shape) => drop(data.drain(..take_from_front(shape, start))),
        }
        if let Some(labels) = &mut self.labels {
            labels.drain(..start);
        }
    }

    /// One class per image, from 0 on, if known.
    pub fn labels(&self) -> Option<&[usize]> {
        self.labels.as_deref()
    }

    /// The names of the classes in the order of their numbers, if the data have them.
    pub fn class_names(&self) -> Option<&[String]> {
        self.class_names.as_deref()
    }

    /// What of the path is not read, and why: one sentence each.
    pub fn left_out(&self) -> impl Iterator<Item = String> {
        self.left_out.iter().map(|what| format!("{}: {what}", self.path.display()))
    }

    /// SHA-256 of the images in order, their labels and the names of their classes, wherever they lie.
    ///
    /// # Errors
    /// Of kind `Io` for files that cannot be read.
    #[doc(hidden)]
    pub fn sha256(&self) -> Result<String> {
        let used = |shape: &[usize; 4]| shape.iter().product::<usize>();
        let (images, shape) = match &self.source {
            Source::Files(files) => (files_sha256(files)?.0, None),
            Source::Bytes(data, shape) => (sha256(&data[..used(shape)]), Some(shape)),
            Source::Floats(data, shape) => {
                (sha256(&data[..used(shape)].iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()), Some(shape))
            }
        };
        Ok(sha256(format!("{images} {shape:?} {:?} {:?}", self.labels, self.class_names).as_bytes()))
    }

    /// The path that the images came from, or their name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Preprocessed images `[len, C, H, W]` (or in the preprocessing's layout), decoded on all threads. `channels` is the
    /// number that the model takes: see [`Graph::image_channels`](crate::model::Graph::image_channels).
    ///
    /// # Errors
    /// * `Data` for an empty range, for files that cannot be decoded, and for images of different sizes or other channels.
    /// * `Option` for a preprocessing that is invalid for these channels.
    /// * `Io` for files that cannot be read; `Unsupported` for image files and another number of channels than 1 or 3, and for
    ///   arrays of floats that are to be resized.
    ///
    /// # Panics
    /// If the range goes beyond the number of images.
    pub fn load(&self, range: Range<usize>, channels: usize, preprocess: &Preprocess) -> Result<Tensor> {
        self.load_picked(&range.collect::<Vec<_>>(), channels, preprocess)
    }

    /// As [`load`](Self::load), for images by their indices, in any order.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    ///
    /// # Panics
    /// If an index is not below the number of images.
    pub fn load_picked(&self, indices: &[usize], channels: usize, preprocess: &Preprocess) -> Result<Tensor> {
        let one = |&index: &usize| self.load_one(index, channels, preprocess);
        let images: Result<Vec<(Vec<f32>, [usize; 3])>> = indices.par_iter().map(one).collect();
        let images = images?;
        let Some(&(_, shape)) = images.first() else { return Err(Error::data(format!("{}: no images", self.path.display()))) };
        if let Some(i) = images.iter().position(|(_, other)| *other != shape) {
            let [first, other] = [shape, images[i].1].map(|shape| preprocess.layout.channels_first(shape));
            return Err(self.different_sizes(indices[0], first, indices[i], other));
        }
        let data: Vec<f32> = images.into_iter().flat_map(|(data, _)| data).collect();
        Ok(Tensor::new([&[indices.len()], &shape[..]].concat(), data))
    }

    /// One preprocessed image and its shape `[C, H, W]` (or in the preprocessing's layout), on the calling thread.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    ///
    /// # Panics
    /// If the index is not below the number of images.
    pub fn load_one(&self, index: usize, channels: usize, preprocess: &Preprocess) -> Result<(Vec<f32>, [usize; 3])> {
        self.raw(index, channels).and_then(|raw| preprocess.apply(raw)).map_err(|e| e.at(self.name(index)))
    }

    /// The error for two images whose shapes `[C, H, W]` differ.
    pub fn different_sizes(&self, first: usize, [_, h, w]: [usize; 3], second: usize, [_, h2, w2]: [usize; 3]) -> Error {
        Error::data(format!(
            "images of different sizes: {} is {w}x{h}, {} is {w2}x{h2}; resize or crop them",
            self.name(first),
            self.name(second)
        ))
    }

    /// The name of an image: its file, or its number in one.
    pub fn name(&self, index: usize) -> String {
        match &self.source {
            Source::Files(files) => files[index].display().to_string(),
            _ => format!("{}, image {index}", self.path.display()),
        }
    }

    fn raw(&self, index: usize, channels: usize) -> Result<RawImage> {
        let part = |&[_, c, h, w]: &[usize; 4]| (c, h, w, index * c * h * w..(index + 1) * c * h * w);
        let image = match &self.source {
            Source::Files(files) => decode(&files[index], channels)?,
            Source::Bytes(data, shape) => {
                let (channels, height, width, range) = part(shape);
                RawImage { channels, height, width, pixels: Pixels::Bytes(data[range].to_vec()) }
            }
            Source::Floats(data, shape) => {
                let (channels, height, width, range) = part(shape);
                RawImage { channels, height, width, pixels: Pixels::Floats(data[range].to_vec()) }
            }
        };
        if image.channels != channels {
            return Err(Error::data(format!("{} colour channels, the model takes {channels}", image.channels)));
        }
        Ok(image)
    }
}

fn take_from_front(shape: &mut [usize; 4], count: usize) -> usize {
    shape[0] -= count;
    count * shape[1..].iter().product::<usize>()
}
