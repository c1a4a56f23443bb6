//! NumPy arrays: .npy, and .npz with one array of images and at most one of labels.
//!
//! The header is parsed here, because the known reader overflows on the shapes of hostile files.

use super::image_set::{ImageSet, Open, Source};
use crate::error::{Error, Result};
use crate::formats::archive::Archive;
use crate::table::Entry;
use crate::tensor::element_count;
use regex::Regex;
use std::path::Path;

pub(super) const ENTRY: Entry<Open> = Entry {
    name: "npy",
    about: ".npy or .npz: [N, C, H, W], [N, H, W, C] with 1 or 3 channels, or [N, H, W]; labels in an array y or labels",
    paper: "NumPy enhancement proposal 1",
    options: &[],
    build: open,
};

fn open(path: &Path) -> Result<Option<ImageSet>> {
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    if !path.is_file() || !["npy", "npz"].contains(&extension.as_str()) {
        return Ok(None);
    }
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let set = if extension == "npy" { from_npy(&bytes) } else { from_npz(&bytes) };
    let (source, labels) = set.map_err(|e| e.at(path.display()))?;
    Ok(Some(ImageSet { path: path.into(), source, labels, class_names: None, label_file: None, left_out: Vec::new() }))
}

fn from_npy(bytes: &[u8]) -> Result<(Source, Option<Vec<usize>>)> {
    let array = Array::read(bytes)?;
    Ok((array.into_images()?, None))
}

fn from_npz(bytes: &[u8]) -> Result<(Source, Option<Vec<usize>>)> {
    let archive = Archive::open(bytes).map_err(|e| e.at("not an .npz file"))?;
    let mut names: Vec<&str> = archive.names().map(|name| name.trim_end_matches(".npy")).collect();
    names.sort_unstable();
    let label_name = names.iter().copied().find(|name| ["y", "labels", "label"].contains(name));
    let images: Vec<&str> = names.iter().copied().filter(|name| Some(*name) != label_name).collect();
    let [name] = images[..] else {
        return Err(Error::format(format!("one array of images is needed (and perhaps y or labels), the file holds {names:?}")));
    };
    let read = |name: &str| -> Result<Array> {
        let data = archive.read(&format!("{name}.npy"))?;
        let data = data.ok_or_else(|| Error::format(format!("{name:?} is no array of NumPy")))?;
        Array::read(&data).map_err(|e| e.at(format!("array {name:?}")))
    };
    let images = read(name)?.into_images()?;
    let labels = label_name.map(|name| read(name)?.into_labels()).transpose()?;
    Ok((images, labels))
}

pub(super) fn labels(bytes: &[u8]) -> Result<Vec<usize>> {
    Array::read(bytes)?.into_labels()
}

enum Numbers {
    Bytes(Vec<u8>),
    Floats(Vec<f32>),
    Ints(Vec<i64>),
}

struct Array {
    shape: Vec<usize>,
    numbers: Numbers,
}

impl Array {
    fn read(bytes: &[u8]) -> Result<Array> {
        let (header, data) = split_header(bytes).ok_or_else(|| Error::format("not a NumPy array, or cut off"))?;
        let field = |pattern: &str| {
            let found = Regex::new(pattern).ok().and_then(|regex| regex.captures(header)?.get(1).map(|m| m.as_str()));
            found.ok_or_else(|| Error::format(format!("not a NumPy array: the header is {header:?}")))
        };
        let descr = field(r"'descr': *'([^']*)'")?;
        if field("'fortran_order': *(True|False)")? == "True" {
            return Err(Error::unsupported("a Fortran-ordered array; save numpy.ascontiguousarray of it"));
        }
        let shape = parse_shape(field(r"'shape': *\(([0-9, ]*)\)")?)?;
        // The length is checked before any allocation, because the header may claim any size.
        let count = element_count(&shape)?;
        let numbers = match descr {
            "|u1" => Numbers::Bytes(elements(data, count, |[b]: [u8; 1]| b)?),
            "<f4" => Numbers::Floats(elements(data, count, f32::from_le_bytes)?),
            "<f8" => Numbers::Floats(elements(data, count, |b| f64::from_le_bytes(b) as f32)?),
            "<i4" => Numbers::Ints(elements(data, count, |b| i64::from(i32::from_le_bytes(b)))?),
            "<i8" => Numbers::Ints(elements(data, count, i64::from_le_bytes)?),
            other => {
                return Err(Error::unsupported(format!(
                    "element type {other:?}; uint8, int32, int64, float32 or float64 are read"
                )));
            }
        };
        Ok(Array { shape, numbers })
    }

    fn into_labels(self) -> Result<Vec<usize>> {
        let class = |v: i64| usize::try_from(v).map_err(|_| Error::data(format!("label {v} is negative")));
        match self.numbers {
            _ if self.shape.len() != 1 => Err(Error::data(format!("labels of shape {:?}, one axis is needed", self.shape))),
            Numbers::Bytes(values) => Ok(values.into_iter().map(usize::from).collect()),
            Numbers::Ints(values) => values.into_iter().map(class).collect(),
            Numbers::Floats(_) => Err(Error::data("labels are floating-point numbers")),
        }
    }

    fn into_images(self) -> Result<Source> {
        let Array { shape, numbers } = self;
        let (shape, channels_last) = match shape[..] {
            [n, h, w] => ([n, 1, h, w], false),
            [n, h, w, c @ (1 | 3)] if !matches!(h, 1 | 3) => ([n, c, h, w], true),
            [n, c, h, w] => ([n, c, h, w], false),
            _ => return Err(Error::data(format!("images of shape {shape:?}, three or four axes are needed"))),
        };
        Ok(match numbers {
            Numbers::Bytes(data) => Source::Bytes(channels_first(data, shape, channels_last), shape),
            Numbers::Floats(data) => Source::Floats(channels_first(data, shape, channels_last), shape),
            Numbers::Ints(data) => {
                let data = data.into_iter().map(|v| v as f32).collect();
                Source::Floats(channels_first(data, shape, channels_last), shape)
            }
        })
    }
}

/// Magic number, version, length of the header (two bytes in version 1, else four), header, data.
fn split_header(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let rest = bytes.strip_prefix(b"\x93NUMPY")?;
    let (version, rest) = rest.split_at_checked(2)?;
    let (length, rest) = rest.split_at_checked(if version[0] == 1 { 2 } else { 4 })?;
    let length = length.iter().rev().fold(0usize, |sum, &byte| sum << 8 | usize::from(byte));
    let (header, data) = rest.split_at_checked(length)?;
    Some((std::str::from_utf8(header).ok()?, data))
}

fn parse_shape(text: &str) -> Result<Vec<usize>> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| part.parse().map_err(|_| Error::format(format!("a dimension of {part}")))).collect()
}

fn elements<T, const BYTES: usize>(data: &[u8], count: usize, decode: fn([u8; BYTES]) -> T) -> Result<Vec<T>> {
    let (chunks, rest) = data.as_chunks::<BYTES>();
    if chunks.len() != count || !rest.is_empty() {
        return Err(Error::format(format!(
            "the shape needs {count} elements of {BYTES} bytes, the file holds {} bytes",
            data.len()
        )));
    }
    Ok(chunks.iter().map(|&chunk| decode(chunk)).collect())
}

fn channels_first<T: Copy>(data: Vec<T>, [n, c, h, w]: [usize; 4], channels_last: bool) -> Vec<T> {
    if !channels_last || c == 1 {
        return data;
    }
    let pixels = h * w;
    (0..n).flat_map(|i| (0..c).flat_map(move |k| (0..pixels).map(move |p| (i * pixels + p) * c + k))).map(|at| data[at]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
        [b"\x93NUMPY\x01\x00\x76\x00", format!("{header:<117}\n").as_bytes(), data].concat()
    }

    fn npz(arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (name, bytes) in arrays {
            writer.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    #[test]
    fn reads_an_archive_with_labels() {
        let images = npy("<f4", "(2, 1, 1, 2)", &[1.0f32, 2.0, 3.0, 4.0].map(f32::to_le_bytes).concat());
        let labels = npy("<i8", "(2,)", &[3i64, 1].map(i64::to_le_bytes).concat());
        let (source, labels) = from_npz(&npz(&[("x", images.clone()), ("y", labels)])).unwrap();
        assert!(matches!(source, Source::Floats(data, [2, 1, 1, 2]) if data == [1.0, 2.0, 3.0, 4.0]));
        assert_eq!(labels, Some(vec![3, 1]));
        assert!(from_npz(&npz(&[("a", images.clone()), ("b", images)])).is_err(), "which of the two?");
        assert!(from_npz(b"PK nothing").is_err());
    }

    #[test]
    fn channels_come_first() {
        let (source, _) = from_npy(&npy("|u1", "(1, 2, 1, 3)", &[1, 2, 3, 4, 5, 6])).unwrap();
        assert!(matches!(source, Source::Bytes(data, [1, 3, 2, 1]) if data == [1, 4, 2, 5, 3, 6]));
    }

    #[test]
    fn wrong_headers_are_refused() {
        for bad in [
            npy("|u1", "(9, 9, 9)", &[0; 3]),
            npy("|u1", "(99999999999, 99999999999, 99999999999)", &[]),
            npy("<c8", "(1, 1, 1)", &[0; 8]),
            npy("|u1", "(4,)", &[0; 4]),
        ] {
            assert!(from_npy(&bad).is_err());
        }
    }
}
