//! Decodes image files.

use super::raw::{Pixels, RawImage};
use crate::error::{Error, Result};
use std::path::Path;

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
