//! A folder of JPEG, PNG or WebP files, or a single one; class folders or a `labels.csv` give labels.

use super::{ImageSet, Open, Pixels, RawImage, Source};
use crate::error::{Error, Result};
use crate::table::Entry;
use std::path::{Path, PathBuf};

pub(super) const ENTRY: Entry<Open> = Entry {
    name: "folder",
    about: "a folder of .jpg, .jpeg, .png or .webp files, sorted by name; sub-folders are classes",
    paper: "layout of torchvision's ImageFolder",
    options: &[],
    build: open,
};

fn open(path: &Path) -> Result<Option<ImageSet>> {
    if path.is_file() && is_image(path) {
        return Ok(Some(ImageSet {
            path: path.into(),
            source: Source::Files(vec![path.into()]),
            labels: None,
            label_file: None,
        }));
    }
    if !path.is_dir() {
        return Ok(None);
    }
    let entries = sorted(path)?;
    let files: Vec<PathBuf> = entries.iter().filter(|p| p.is_file() && is_image(p)).cloned().collect();
    if !files.is_empty() {
        let label_file = Some(path.join("labels.csv")).filter(|file| file.is_file());
        return Ok(Some(ImageSet { path: path.into(), source: Source::Files(files), labels: None, label_file }));
    }
    let (mut files, mut classes) = (Vec::new(), Vec::new());
    for (class, folder) in entries.iter().filter(|p| p.is_dir()).enumerate() {
        for file in sorted(folder)?.into_iter().filter(|p| p.is_file() && is_image(p)) {
            files.push(file);
            classes.push(class);
        }
    }
    if files.is_empty() {
        return Err(Error::data(format!("{}: holds no .jpg, .jpeg, .png or .webp files", path.display())));
    }
    Ok(Some(ImageSet { path: path.into(), source: Source::Files(files), labels: Some(classes), label_file: None }))
}

fn sorted(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    let mut entries: Vec<PathBuf> = entries.map_err(|e| Error::io(folder, e))?;
    entries.sort();
    Ok(entries)
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    extension.is_some_and(|e| ["jpg", "jpeg", "png", "webp"].contains(&e.as_str()))
}

/// Decodes one file to one or three channels.
pub(super) fn decode(path: &Path, channels: usize) -> Result<RawImage> {
    let reader =
        image::ImageReader::open(path).and_then(|reader| reader.with_guessed_format()).map_err(|e| Error::io(path, e))?;
    let decoded = reader.decode().map_err(|e| Error::data(format!("cannot be read as an image: {e}")))?;
    let (width, height) = (decoded.width() as usize, decoded.height() as usize);
    let bytes = match channels {
        1 => decoded.into_luma8().into_raw(),
        3 => planes(&decoded.into_rgb8().into_raw()),
        _ => return Err(Error::unsupported(format!("the model takes {channels} channels; image files have 1 or 3"))),
    };
    Ok(RawImage { channels, height, width, pixels: Pixels::Bytes(bytes) })
}

/// `[H, W, 3]` to `[3, H, W]`.
fn planes(rgb: &[u8]) -> Vec<u8> {
    (0..3).flat_map(|c| rgb.iter().skip(c).step_by(3).copied()).collect()
}
