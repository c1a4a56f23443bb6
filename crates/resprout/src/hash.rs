//! SHA-256 of files, images and bytes.

use crate::error::{Error, Result};
use crate::tensor::Tensor;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

/// SHA-256 of the concatenated contents of files, in hexadecimal, and their number of bytes.
///
/// # Errors
/// Of kind `Io`, with the file's name.
#[doc(hidden)]
pub fn files_sha256(paths: &[PathBuf]) -> Result<(String, u64)> {
    let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 16]);
    for path in paths {
        let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
        loop {
            let read = file.read(&mut buffer).map_err(|e| Error::io(path, e))?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
            bytes += read as u64;
        }
    }
    Ok((hex(&hash.finalize()), bytes))
}

/// SHA-256 of an image tensor, of its elements as little-endian f32, in hexadecimal.
#[doc(hidden)]
pub fn images_sha256(images: &Tensor) -> String {
    sha256(&images.to_le_bytes())
}

/// SHA-256 of bytes, in hexadecimal.
#[doc(hidden)]
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
