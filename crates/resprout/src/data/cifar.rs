//! The binary files of CIFAR-10 and CIFAR-100: records of one or two label bytes and 3072 bytes of RGB planes.

use super::image_set::{ImageSet, Open, Source};
use crate::error::{Error, Result};
use crate::table::Entry;
use std::path::{Path, PathBuf};

pub(super) const ENTRY: Entry<Open> = Entry {
    name: "cifar",
    about: "CIFAR-10 or CIFAR-100 binary: a .bin file, or a folder of data_batch_*.bin (training images)",
    paper: "Krizhevsky, Learning multiple layers of features from tiny images, 2009",
    options: &[],
    build: open,
};

const PIXELS: usize = 3 * 32 * 32;

fn open(path: &Path) -> Result<Option<ImageSet>> {
    let files: Vec<PathBuf> = if path.is_dir() {
        (1..=5).map(|i| path.join(format!("data_batch_{i}.bin"))).filter(|file| file.is_file()).collect()
    } else if path.extension().is_some_and(|e| e == "bin") {
        vec![path.to_path_buf()]
    } else {
        vec![]
    };
    if files.is_empty() {
        return Ok(None);
    }
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for file in &files {
        let bytes = std::fs::read(file).map_err(|e| Error::io(file, e))?;
        // CIFAR-100 has a coarse label before the fine one.
        let label_bytes = [1, 2].into_iter().find(|extra| !bytes.is_empty() && bytes.len() % (PIXELS + extra) == 0);
        let label_bytes = label_bytes.ok_or_else(|| {
            Error::format(format!(
                "{}: {} bytes, not a multiple of a CIFAR record (3073 or 3074 bytes)",
                file.display(),
                bytes.len()
            ))
        })?;
        for record in bytes.chunks_exact(PIXELS + label_bytes) {
            labels.push(usize::from(record[label_bytes - 1]));
            pixels.extend_from_slice(&record[label_bytes..]);
        }
    }
    let shape = [labels.len(), 3, 32, 32];
    Ok(Some(ImageSet {
        path: path.into(),
        source: Source::Bytes(pixels, shape),
        labels: Some(labels),
        class_names: None,
        label_file: None,
        left_out: Vec::new(),
    }))
}
