//! IDX files (MNIST), plain or gzip.

use super::image_set::{ImageSet, Open, Source};
use crate::error::{Error, Result};
use crate::table::Entry;
use std::io::Read;
use std::path::{Path, PathBuf};

pub(super) const ENTRY: Entry<Open> = Entry {
    name: "idx",
    about: "MNIST's files: *-images-idx3-ubyte, plain or .gz; the labels file beside it is found by name",
    paper: "LeCun, Cortes, Burges, The MNIST database of handwritten digits",
    options: &[],
    build: open,
};

/// The most bytes of a file, unpacked: a small hostile file can claim any size.
const LARGEST: u64 = 4 << 30;

fn open(path: &Path) -> Result<Option<ImageSet>> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    if !path.is_file() || !name.contains("idx3") {
        return Ok(None);
    }
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let (pixels, shape) = images(&bytes).map_err(|e| e.at(path.display()))?;
    let beside: PathBuf = path.with_file_name(name.replace("images", "labels").replace("idx3", "idx1"));
    let label_file = Some(beside).filter(|file| file.is_file());
    Ok(Some(ImageSet {
        path: path.into(),
        source: Source::Bytes(pixels, shape),
        labels: None,
        class_names: None,
        label_file,
        left_out: Vec::new(),
    }))
}

/// `[N, 1, H, W]`.
pub(super) fn images(bytes: &[u8]) -> Result<(Vec<u8>, [usize; 4])> {
    let (data, dims) = parse(bytes, 3)?;
    Ok((data, [dims[0], 1, dims[1], dims[2]]))
}

pub(super) fn labels(bytes: &[u8]) -> Result<Vec<usize>> {
    Ok(parse(bytes, 1)?.0.into_iter().map(usize::from).collect())
}

/// Magic number 0x0000 08 rank, big-endian dimensions, unsigned bytes.
fn parse(bytes: &[u8], rank: usize) -> Result<(Vec<u8>, Vec<usize>)> {
    let mut reader: Box<dyn Read> = match bytes.starts_with(&[0x1f, 0x8b]) {
        true => Box::new(flate2::read::GzDecoder::new(bytes)),
        false => Box::new(bytes),
    };
    let mut header = vec![0; 4 + 4 * rank];
    let truncated = |e: std::io::Error| Error::format(format!("not an IDX file, or cut off: {e}"));
    reader.read_exact(&mut header).map_err(truncated)?;
    if header[..4] != [0, 0, 8, rank as u8] {
        return Err(Error::format(format!("not an IDX file of bytes with {rank} dimensions")));
    }
    let (dims, _) = header[4..].as_chunks::<4>();
    let dims: Vec<usize> = dims.iter().map(|&dim| u32::from_be_bytes(dim) as usize).collect();
    let count = dims.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim as u64)).filter(|&count| count <= LARGEST);
    let count = count.ok_or_else(|| Error::format(format!("dimensions {dims:?} are larger than 4 GiB")))?;
    let mut data = Vec::new();
    reader.take(count + 1).read_to_end(&mut data).map_err(truncated)?;
    if data.len() as u64 != count {
        return Err(Error::format(format!(
            "dimensions {dims:?} need {count} bytes, the file holds {}",
            if data.len() as u64 > count { "more".into() } else { data.len().to_string() }
        )));
    }
    Ok((data, dims))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_plain_and_refuses_wrong_sizes() {
        let file = |dims: [u8; 3], data: &[u8]| [&[0, 0, 8, 3][..], &dims.map(|d| [0, 0, 0, d]).concat(), data].concat();
        let (data, shape) = images(&file([1, 2, 2], &[1, 2, 3, 4])).unwrap();
        assert_eq!((data, shape), (vec![1, 2, 3, 4], [1, 1, 2, 2]));
        for bad in [file([1, 2, 2], &[1, 2, 3]), file([1, 2, 2], &[1; 5]), vec![], vec![0x1f, 0x8b, 1], vec![0; 16]] {
            assert!(images(&bad).is_err());
        }
        assert!(images(&[&[0, 0, 8, 3][..], &[0xff; 12]].concat()).is_err(), "2^96 bytes");
    }
}
