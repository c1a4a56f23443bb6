//! A folder of JPEG, PNG or WebP files, or a single file. Labels come from class folders or a `labels.csv`.

use super::image_set::{ImageSet, Open, Source};
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
            class_names: None,
            label_file: None,
            left_out: Vec::new(),
        }));
    }
    if !path.is_dir() {
        return Ok(None);
    }
    let entries = sorted(path)?;
    let (files, others): (Vec<PathBuf>, Vec<PathBuf>) = entries.into_iter().partition(|p| p.is_file() && is_image(p));
    if !files.is_empty() {
        let label_file = Some(path.join("labels.csv")).filter(|file| file.is_file());
        let others = others.into_iter().filter(|p| Some(p) != label_file.as_ref());
        return Ok(Some(ImageSet {
            path: path.into(),
            left_out: left_out(others.collect()),
            source: Source::Files(files),
            labels: None,
            class_names: None,
            label_file,
        }));
    }
    if let Some(set) = annotated(path)? {
        return Ok(Some(set));
    }
    let (mut files, mut classes, mut names, mut empty) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (folders, mut others): (Vec<PathBuf>, Vec<PathBuf>) = others.into_iter().partition(|p| p.is_dir());
    for (class, folder) in folders.iter().enumerate() {
        names.push(file_name(folder));
        let before = files.len();
        // Tiny ImageNet has one more folder inside.
        let inner = Some(folder.join("images")).filter(|inner| inner.is_dir());
        for file in sorted(inner.as_ref().unwrap_or(folder))? {
            if !(file.is_file() && is_image(&file)) {
                others.push(file);
                continue;
            }
            files.push(file);
            classes.push(class);
        }
        if files.len() == before {
            empty.push(folder.clone());
        }
    }
    if files.is_empty() {
        return Err(Error::data(format!("{}: holds no .jpg, .jpeg, .png or .webp files", path.display())));
    }
    Ok(Some(ImageSet {
        path: path.into(),
        left_out: left_out(others).into_iter().chain(sentence(&empty, "folders hold no images, but count as classes")).collect(),
        source: Source::Files(files),
        labels: Some(classes),
        class_names: Some(names),
        label_file: None,
    }))
}

/// Tiny ImageNet's validation images: one folder, and a file of lines `image<TAB>class<TAB>...`.
fn annotated(path: &Path) -> Result<Option<ImageSet>> {
    let annotations = path.join("val_annotations.txt");
    if !annotations.is_file() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&annotations).map_err(|e| Error::io(&annotations, e))?;
    let mut rows = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let mut fields = line.split('\t');
        let (Some(file), Some(class)) = (fields.next(), fields.next()) else {
            return Err(Error::format(format!("{}: line {}: no class", annotations.display(), number + 1)));
        };
        rows.push((path.join("images").join(file), class.to_string()));
    }
    rows.sort();
    let names: std::collections::BTreeSet<&String> = rows.iter().map(|(_, class)| class).collect();
    let names: Vec<String> = names.into_iter().cloned().collect();
    let labels = rows.iter().map(|(_, class)| names.binary_search(class).unwrap_or(0)).collect();
    Ok(Some(ImageSet {
        path: path.into(),
        source: Source::Files(rows.into_iter().map(|(file, _)| file).collect()),
        labels: Some(labels),
        class_names: Some(names),
        label_file: None,
        left_out: Vec::new(),
    }))
}

/// The number of names in a sentence on left-out paths.
const NAMED: usize = 3;

/// What of a folder is not read: one sentence per reason.
fn left_out(others: Vec<PathBuf>) -> Vec<String> {
    let (folders, files): (Vec<PathBuf>, Vec<PathBuf>) = others.into_iter().partition(|path| path.is_dir());
    // A broken link may have the name of an image.
    let (unreadable, suffix): (Vec<PathBuf>, Vec<PathBuf>) = files.into_iter().partition(|path| is_image(path));
    [
        sentence(&suffix, "files were left out (another suffix than .jpg, .jpeg, .png or .webp)"),
        sentence(&folders, "folders were left out (beside image files)"),
        sentence(&unreadable, "files were left out (they cannot be opened)"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The number of paths, `what` is said of them, and the first names; `None` if there are none.
fn sentence(paths: &[PathBuf], what: &str) -> Option<String> {
    let names: Vec<String> = paths.iter().take(NAMED).map(|path| file_name(path)).collect();
    let more = if paths.len() > NAMED { format!(" and {} more", paths.len() - NAMED) } else { String::new() };
    (!paths.is_empty()).then(|| format!("{} {what}: {}{more}", paths.len(), names.join(", ")))
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
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
