//! Every layout of a dataset: its training and test part, and their labels.

use resprout::data::layouts::{self, LAYOUTS, Splits};
use std::path::Path;

fn put(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn png(folder: &Path, name: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::RgbImage::new(4, 4).save(path).unwrap();
}

/// IDX files of images of 2x2 pixels.
fn idx(folder: &Path, part: &str, labels: &[u8]) {
    let count = (labels.len() as u32).to_be_bytes();
    let two = 2u32.to_be_bytes();
    let pixels = vec![7; labels.len() * 4];
    put(folder, &format!("{part}-images-idx3-ubyte"), &[&[0, 0, 8, 3], &count[..], &two, &two, &pixels].concat());
    put(folder, &format!("{part}-labels-idx1-ubyte"), &[&[0, 0, 8, 1], &count[..], labels].concat());
}

/// Records of `prefix` bytes before 32x32 pixels in three colours.
fn cifar(folder: &Path, name: &str, prefixes: &[&[u8]]) {
    let records = prefixes.iter().flat_map(|prefix| prefix.iter().copied().chain(std::iter::repeat_n(9, 3072)));
    put(folder, name, &records.collect::<Vec<u8>>());
}

/// Layout, training labels and test labels.
fn opened(folder: &Path) -> (&'static str, Vec<usize>, Vec<usize>) {
    let Splits { layout, train, test } = layouts::open(folder).unwrap();
    (layout, train.labels().unwrap().to_vec(), test.map_or(Vec::new(), |test| test.labels().unwrap().to_vec()))
}

#[test]
fn every_layout_is_recognised_and_its_parts_are_kept_apart() {
    let root = tempfile::tempdir().unwrap();
    let folder = |name: &str| root.path().join(name);

    idx(&folder("mnist"), "train", &[3, 1, 4]);
    idx(&folder("mnist"), "t10k", &[5, 9]);

    for i in 1..=5 {
        cifar(&folder("cifar-10"), &format!("data_batch_{i}.bin"), &[&[i]]);
    }
    cifar(&folder("cifar-10"), "test_batch.bin", &[&[8], &[6]]);

    // Coarse class, then fine class.
    cifar(&folder("cifar-100"), "train.bin", &[&[1, 70], &[2, 80]]);
    cifar(&folder("cifar-100"), "test.bin", &[&[3, 90]]);

    let tiny = folder("tiny-imagenet");
    for (class, image) in [("n01", "n01_0.png"), ("n02", "n02_0.png"), ("n02", "n02_1.png")] {
        png(&tiny, &format!("train/{class}/images/{image}"));
    }
    for image in ["val_0.png", "val_1.png"] {
        png(&tiny, &format!("val/images/{image}"));
    }
    put(&tiny, "val/val_annotations.txt", b"val_0.png\tn02\t0\t0\t4\t4\nval_1.png\tn01\t0\t0\t4\t4\n");

    for image in ["train/cat/1.png", "train/dog/1.png", "train/dog/2.png", "val/cat/3.png", "val/dog/3.png"] {
        png(&folder("folders"), image);
    }

    let expected = [
        ("mnist", vec![3, 1, 4], vec![5, 9]),
        ("cifar-10", vec![1, 2, 3, 4, 5], vec![8, 6]),
        ("cifar-100", vec![70, 80], vec![90]),
        ("tiny-imagenet", vec![0, 1, 1], vec![1, 0]),
        ("folders", vec![0, 1, 1], vec![0, 1]),
    ];
    assert_eq!(expected.iter().map(|row| row.0).collect::<Vec<_>>(), LAYOUTS.iter().map(|row| row.name).collect::<Vec<_>>());
    for row in expected {
        assert_eq!(opened(&folder(row.0)), row);
    }
}

#[test]
fn parts_with_different_classes_are_refused() {
    let root = tempfile::tempdir().unwrap();
    for image in ["train/cat/1.png", "train/dog/1.png", "val/cat/2.png", "val/cow/2.png"] {
        png(root.path(), image);
    }
    let message = layouts::open(root.path()).err().unwrap().to_string();
    assert!(message.contains("dog") && message.contains("cow"), "{message}");
}
