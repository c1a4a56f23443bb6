//! Images before preprocessing.

/// One image before preprocessing, channels first.
pub(super) struct RawImage {
    pub channels: usize,
    pub height: usize,
    pub width: usize,
    pub pixels: Pixels,
}

/// The pixels of an image, plane by plane.
pub(super) enum Pixels {
    Bytes(Vec<u8>),
    Floats(Vec<f32>),
}
