//! Datasets as their authors distribute them: the folders of the training and the test images.

use super::image_set::ImageSet;
use super::open::LabelSource;
use crate::error::{Error, Result};
use crate::table::Entry;
use std::path::{Path, PathBuf};

/// The two parts of a dataset. A training takes its validation images from the training part.
pub struct Splits {
    /// The name of the row of [`LAYOUTS`] that recognised it.
    pub layout: &'static str,
    /// Training images.
    pub train: ImageSet,
    /// Test images, if there are any.
    pub test: Option<ImageSet>,
}

/// The paths of the training and the test part; `None` for a folder of another layout.
pub type Find = fn(&Path) -> Option<(PathBuf, Option<PathBuf>)>;

/// All layouts. The first that recognises a folder reads it.
pub static LAYOUTS: &[Entry<Find>] = &[
    Entry {
        name: "mnist",
        about: "MNIST or Fashion-MNIST: train-images-idx3-ubyte and t10k-images-idx3-ubyte with their labels, plain or .gz",
        paper: "LeCun, Cortes, Burges, The MNIST database; Xiao, Rasul, Vollgraf, Fashion-MNIST, 2017",
        options: &[],
        build: mnist,
    },
    Entry {
        name: "cifar-10",
        about: "CIFAR-10 binary: data_batch_1.bin to data_batch_5.bin and test_batch.bin",
        paper: "Krizhevsky, Learning multiple layers of features from tiny images, 2009",
        options: &[],
        build: |folder| {
            let batches = (1..=5).all(|i| folder.join(format!("data_batch_{i}.bin")).is_file());
            batches.then(|| (folder.to_path_buf(), file(folder, "test_batch.bin")))
        },
    },
    Entry {
        name: "cifar-100",
        about: "CIFAR-100 binary: train.bin and test.bin, fine labels",
        paper: "Krizhevsky, Learning multiple layers of features from tiny images, 2009",
        options: &[],
        build: |folder| Some((file(folder, "train.bin")?, file(folder, "test.bin"))),
    },
    Entry {
        name: "tiny-imagenet",
        about: "train/CLASS/images and val/images with val_annotations.txt; val is the test part, because test has no labels",
        paper: "Le, Yang, Tiny ImageNet visual recognition challenge, 2015",
        options: &[],
        build: |folder| {
            let annotated = folder.join("val/val_annotations.txt").is_file();
            annotated.then(|| (folder.join("train"), Some(folder.join("val"))))
        },
    },
    Entry {
        name: "folders",
        about: "train/CLASS and val/CLASS or test/CLASS with image files (Imagenette, ImageNet-100, ImageNet)",
        paper: "layout of torchvision's ImageFolder",
        options: &[],
        build: |folder| {
            let train = Some(folder.join("train")).filter(|path| path.is_dir())?;
            let test = ["val", "test"].map(|name| folder.join(name)).into_iter().find(|path| path.is_dir());
            Some((train, test))
        },
    },
];

/// Opens the dataset in a folder. A path of no known layout holds training images only, and its layout is `plain`.
///
/// # Errors
/// As [`ImageSet::open`], and of kind `Data` if both parts name different classes.
pub fn open(path: &Path) -> Result<Splits> {
    let found = LAYOUTS.iter().find_map(|entry| Some((entry.name, (entry.build)(path)?)));
    let (layout, (train, test)) = found.unwrap_or(("plain", (path.to_path_buf(), None)));
    let train = ImageSet::open(&train, &LabelSource::Auto)?;
    let test = test.map(|path| ImageSet::open(&path, &LabelSource::Auto)).transpose()?;
    check_classes(&train, test.as_ref())?;
    Ok(Splits { layout, train, test })
}

/// Fails unless both parts have the same classes: folders number their classes by order.
fn check_classes(train: &ImageSet, test: Option<&ImageSet>) -> Result<()> {
    let (Some(ours), Some(theirs)) = (train.class_names(), test.and_then(ImageSet::class_names)) else { return Ok(()) };
    match theirs.iter().zip(ours).find(|(a, b)| a != b) {
        None if theirs.len() == ours.len() => Ok(()),
        different => {
            let (a, b) = different.map_or(("fewer or more classes", ""), |(a, b)| (a.as_str(), b.as_str()));
            Err(Error::data(format!("training and test folders name different classes: {a:?} and {b:?}")))
        }
    }
}

fn mnist(folder: &Path) -> Option<(PathBuf, Option<PathBuf>)> {
    let images = |part: &str| {
        let name = format!("{part}-images-idx3-ubyte");
        file(folder, &name).or_else(|| file(folder, &format!("{name}.gz")))
    };
    Some((images("train")?, images("t10k")))
}

fn file(folder: &Path, name: &str) -> Option<PathBuf> {
    Some(folder.join(name)).filter(|path| path.is_file())
}
