//! Labels from a separate file.

use super::image_set::{ImageSet, Source};
use super::{idx, npy};
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::path::Path;

/// Labels from CSV (`file,class`, or one class per line; a header line is skipped), .npy or IDX.
pub(super) fn read(path: &Path, set: &ImageSet) -> Result<Vec<usize>> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let name = path.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
    let labels = if name.ends_with(".npy") {
        npy::labels(&bytes)
    } else if name.contains("idx") {
        idx::labels(&bytes)
    } else {
        csv(&String::from_utf8_lossy(&bytes), set)
    };
    let labels = labels.map_err(|e| e.at(path.display()))?;
    if labels.len() != set.len() {
        return Err(Error::data(format!("{}: {} labels for {} images", path.display(), labels.len(), set.len())));
    }
    Ok(labels)
}

fn csv(text: &str, set: &ImageSet) -> Result<Vec<usize>> {
    let lines: Vec<Vec<&str>> =
        text.lines().map(|line| line.split(',').map(str::trim).collect()).filter(|f: &Vec<&str>| f != &[""]).collect();
    let has_header = lines.first().is_some_and(|fields| class(fields).is_err());
    let rows = &lines[usize::from(has_header)..];
    if rows.iter().all(|fields| fields.len() == 1) {
        return rows.iter().map(|fields| class(fields)).collect();
    }
    let Source::Files(files) = &set.source else { return Err(Error::data("names files, but the images are not files")) };
    let mut by_name: HashMap<&str, usize> = HashMap::new();
    for fields in rows {
        by_name.insert(fields[0], class(fields)?);
    }
    files
        .iter()
        .map(|file| {
            let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            by_name.get(name.as_str()).copied().ok_or_else(|| Error::data(format!("no line for {name:?}")))
        })
        .collect()
}

/// The class: the second field, or the only one.
fn class(fields: &[&str]) -> Result<usize> {
    let text = fields.get(1).or(fields.first()).copied().unwrap_or_default();
    text.parse().map_err(|_| Error::data(format!("{text:?} is not a class number")))
}
