//! Opens images of any kind, with their labels.

use super::image_set::{ImageSet, Open};
use super::{cifar, folder, idx, labels, npy};
use crate::error::{Error, Result};
use crate::table::Entry;
use std::path::{Path, PathBuf};

/// Where labels come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LabelSource {
    /// Any labels with the images: class folders, `labels.csv`, fields of the file.
    #[default]
    Auto,
    /// No labels, even if there are some.
    None,
    /// A CSV file of `file,class` or one class per line, or an IDX or .npy file of classes.
    File(PathBuf),
}

/// All kinds of data. The first that recognises a path reads it.
pub static DATASETS: &[Entry<Open>] = &[cifar::ENTRY, idx::ENTRY, npy::ENTRY, folder::ENTRY];

impl ImageSet {
    /// Opens the images at `path`: a folder of JPEG, PNG or WebP files, `.npy` or `.npz`, CIFAR's binary or MNIST's IDX files.
    ///
    /// # Errors
    /// * `Data` for a path that does not exist, holds no images, or is of no known kind, and for labels of another number.
    /// * `Io`, `Format` or `Unsupported` for files that cannot be read.
    pub fn open(path: &Path, labels: &LabelSource) -> Result<ImageSet> {
        if !path.exists() {
            return Err(Error::data(format!("{}: there is no such file or folder", path.display())));
        }
        for entry in DATASETS {
            if let Some(mut set) = (entry.build)(path)? {
                if set.is_empty() {
                    return Err(Error::data(format!("{}: holds no images", path.display())));
                }
                set.set_labels(labels)?;
                return Ok(set);
            }
        }
        let kinds: Vec<&str> = DATASETS.iter().map(|entry| entry.name).collect();
        Err(Error::data(format!("{}: none of the known kinds of images ({})", path.display(), kinds.join(", "))))
    }

    /// Images and labels of IDX files, as MNIST has them, in memory and gzip or not. `name` is for messages.
    ///
    /// # Errors
    /// Of kind `Format` for other files, and `Data` for images and labels that do not fit each other.
    pub fn from_idx(name: &str, images: &[u8], labels: &[u8]) -> Result<ImageSet> {
        let (pixels, shape) = idx::images(images).map_err(|e| e.at(name))?;
        let labels = idx::labels(labels).map_err(|e| e.at(name))?;
        ImageSet::from_bytes(name, pixels, shape, Some(labels))
    }

    fn set_labels(&mut self, labels: &LabelSource) -> Result<()> {
        match labels {
            LabelSource::Auto => {
                if let Some(file) = self.label_file.take() {
                    self.labels = Some(labels::read(&file, self)?);
                }
            }
            LabelSource::None => self.labels = None,
            LabelSource::File(path) => self.labels = Some(labels::read(path, self)?),
        }
        match &self.labels {
            Some(labels) if labels.len() != self.len() => {
                Err(Error::data(format!("{}: {} labels for {} images", self.path.display(), labels.len(), self.len())))
            }
            _ => Ok(()),
        }
    }
}
