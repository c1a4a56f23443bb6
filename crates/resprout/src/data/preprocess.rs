//! From pixels to the input of a network: resize, centre crop, scale, mean, standard deviation.

use super::raw::{Pixels, RawImage};
use crate::error::{Error, Result};
use crate::model::Layout;
use crate::table;
use image::imageops::FilterType;
use image::{ImageBuffer, Luma};

/// How pixels become a network's input: `(pixel * scale - mean[c]) / std[c]`, after resize and crop.
///
/// Pixels of bytes are 0 to 255. The default changes nothing.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Preprocess {
    /// Length of the shorter side to resize to first, in pixels; `None` for no resize.
    pub resize: Option<usize>,
    /// Height and width of the centre crop, in pixels; `None` for no crop.
    pub crop: Option<[usize; 2]>,
    /// Factor of every pixel, other than 0; 1/255 brings bytes to the range from 0 to 1.
    pub scale: f32,
    /// Subtracted from scaled pixels: one value, or one per channel.
    pub mean: Vec<f32>,
    /// Divisor after that: one value, or one per channel; positive.
    pub std: Vec<f32>,
    /// The axis of the channels in the network's input.
    #[serde(default, skip_serializing_if = "Layout::is_default")]
    pub layout: Layout,
    /// Whether the network takes bytes: every result must be an integer from 0 to 255.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bytes: bool,
}

/// The most by which a value may differ from a byte. Bytes that are divided and multiplied by 255 stay well within it.
const BYTE_TOLERANCE: f32 = 0.01;

/// A named preprocessing.
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// One sentence.
    pub about: &'static str,
    build: fn() -> Preprocess,
}

/// All presets.
pub static PRESETS: &[Preset] = &[
    Preset {
        name: "imagenet",
        about: "shorter side to 256, centre crop 224, pixels / 255, ImageNet mean and deviation (torchvision)",
        build: imagenet,
    },
    Preset {
        name: "cifar10",
        about: "pixels / 255, CIFAR-10 mean and deviation (0.4914 0.4822 0.4465; 0.2470 0.2435 0.2616)",
        build: cifar10,
    },
    Preset { name: "mnist", about: "pixels / 255, mean 0.1307, deviation 0.3081", build: mnist },
    Preset { name: "raw", about: "pixels as they are", build: raw },
];

fn normalise(mean: &[f32], std: &[f32]) -> Preprocess {
    Preprocess {
        resize: None,
        crop: None,
        scale: 1.0 / 255.0,
        mean: mean.to_vec(),
        std: std.to_vec(),
        layout: Layout::ChannelsFirst,
        bytes: false,
    }
}

fn imagenet() -> Preprocess {
    Preprocess { resize: Some(256), crop: Some([224, 224]), ..normalise(&[0.485, 0.456, 0.406], &[0.229, 0.224, 0.225]) }
}

fn cifar10() -> Preprocess {
    normalise(&[0.4914, 0.4822, 0.4465], &[0.2470, 0.2435, 0.2616])
}

fn mnist() -> Preprocess {
    normalise(&[0.1307], &[0.3081])
}

fn raw() -> Preprocess {
    Preprocess { scale: 1.0, ..normalise(&[0.0], &[1.0]) }
}

impl Default for Preprocess {
    /// Pixels as they are.
    fn default() -> Preprocess {
        raw()
    }
}

impl Preprocess {
    /// A preset by its name, a row of [`PRESETS`]: `imagenet`, `cifar10`, `mnist` or `raw`.
    ///
    /// # Errors
    /// Of kind `Option` for an unknown name.
    pub fn preset(name: &str) -> Result<Preprocess> {
        let preset = PRESETS.iter().find(|preset| preset.name == name);
        preset.map(|preset| (preset.build)()).ok_or_else(|| {
            let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
            table::unknown("preset", name, &names)
        })
    }

    /// Fails on values that are invalid for images of `channels` channels.
    ///
    /// # Errors
    /// Of kind `Option`.
    pub fn check(&self, channels: usize) -> Result<()> {
        let fits = |values: &[f32]| (values.len() == 1 || values.len() == channels) && values.iter().all(|v| v.is_finite());
        if !fits(&self.mean) {
            return Err(Error::option(format!("mean {:?}: one number or {channels} are needed", self.mean)));
        }
        if !fits(&self.std) || self.std.iter().any(|&v| v <= 0.0) {
            return Err(Error::option(format!("std {:?}: one positive number or {channels} are needed", self.std)));
        }
        if !self.scale.is_finite() || self.scale == 0.0 {
            return Err(Error::option(format!("scale {}: a number other than 0 is needed", self.scale)));
        }
        if self.resize == Some(0) || self.crop.is_some_and(|crop| crop.contains(&0)) {
            return Err(Error::option("resize and crop: positive numbers of pixels are needed"));
        }
        Ok(())
    }

    /// Pixels to `[C, H, W]`, or to the network's layout.
    pub(super) fn apply(&self, image: RawImage) -> Result<(Vec<f32>, [usize; 3])> {
        let image = self.crop(self.resize(image)?)?;
        let RawImage { channels, height, width, pixels } = image;
        self.check(channels)?;
        let mut data = match pixels {
            Pixels::Bytes(bytes) => bytes.into_iter().map(f32::from).collect(),
            Pixels::Floats(values) => values,
        };
        for (c, plane) in data.chunks_exact_mut((height * width).max(1)).enumerate() {
            let (mean, std) = (self.mean[c.min(self.mean.len() - 1)], self.std[c.min(self.std.len() - 1)]);
            plane.iter_mut().for_each(|v| *v = (*v * self.scale - mean) / std);
        }
        match data.iter().position(|v| !v.is_finite()) {
            Some(at) => return Err(Error::data(format!("pixel {at} is {}", data[at]))),
            None if self.bytes => round_to_bytes(&mut data)?,
            None => {}
        }
        Ok((self.layout.arrange(data, channels), self.layout.shape([channels, height, width])))
    }

    /// Bilinear with antialiasing.
    fn resize(&self, image: RawImage) -> Result<RawImage> {
        let (Some(side), shorter) = (self.resize, image.height.min(image.width)) else { return Ok(image) };
        if side == shorter || shorter == 0 {
            return Ok(image);
        }
        let Pixels::Bytes(bytes) = &image.pixels else {
            return Err(Error::unsupported("floating-point arrays cannot be resized; resize them before saving"));
        };
        let scaled = |length: usize| (length * side / shorter).max(1);
        let (height, width) = (scaled(image.height), scaled(image.width));
        let mut out = Vec::with_capacity(image.channels * height * width);
        for plane in bytes.chunks_exact(image.height * image.width) {
            let plane = ImageBuffer::<Luma<u8>, _>::from_raw(image.width as u32, image.height as u32, plane.to_vec());
            let plane = plane.ok_or_else(|| Error::data("too large to resize"))?;
            out.extend(image::imageops::resize(&plane, width as u32, height as u32, FilterType::Triangle).into_raw());
        }
        Ok(RawImage { height, width, pixels: Pixels::Bytes(out), ..image })
    }

    fn crop(&self, image: RawImage) -> Result<RawImage> {
        let Some([height, width]) = self.crop else { return Ok(image) };
        if height > image.height || width > image.width {
            return Err(Error::data(format!(
                "{}x{} pixels are smaller than the crop of {width}x{height}",
                image.width, image.height
            )));
        }
        let (top, left) = ((image.height - height) / 2, (image.width - width) / 2);
        let pixels = match &image.pixels {
            Pixels::Bytes(data) => Pixels::Bytes(window(data, &image, top, left, height, width)),
            Pixels::Floats(data) => Pixels::Floats(window(data, &image, top, left, height, width)),
        };
        Ok(RawImage { channels: image.channels, height, width, pixels })
    }
}

/// Rounds values to bytes; fails on a value that is no byte.
fn round_to_bytes(data: &mut [f32]) -> Result<()> {
    let no_byte = |v: &f32| (v - v.round()).abs() > BYTE_TOLERANCE || !(0.0..=255.0).contains(&v.round());
    if let Some(at) = data.iter().position(no_byte) {
        return Err(Error::data(format!(
            "pixel {at} is {}, and the model takes bytes (uint8): integers from 0 to 255; save the images so, or set \
             scale 255 for numbers from 0 to 1",
            data[at]
        )));
    }
    // Adding zero turns -0 into 0.
    data.iter_mut().for_each(|v| *v = v.round() + 0.0);
    Ok(())
}

fn window<T: Copy>(data: &[T], image: &RawImage, top: usize, left: usize, height: usize, width: usize) -> Vec<T> {
    let row = |c: usize, y: usize| &data[(c * image.height + top + y) * image.width + left..][..width];
    (0..image.channels).flat_map(|c| (0..height).flat_map(move |y| row(c, y))).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(height: usize, width: usize) -> RawImage {
        let bytes = (0..height * width).map(|i| i as u8).collect();
        RawImage { channels: 1, height, width, pixels: Pixels::Bytes(bytes) }
    }

    #[test]
    fn crops_the_centre_and_normalises() {
        let preprocess = Preprocess { crop: Some([2, 2]), scale: 0.5, mean: vec![1.0], std: vec![2.0], resize: None, ..raw() };
        // 4x4 image: the centre is 5 6 / 9 10.
        let (data, shape) = preprocess.apply(image(4, 4)).unwrap();
        assert_eq!(shape, [1, 2, 2]);
        assert_eq!(data, [0.75, 1.0, 1.75, 2.0]);
        assert!(preprocess.apply(image(1, 4)).is_err());
    }

    #[test]
    fn resize_keeps_the_aspect_ratio() {
        let preprocess = Preprocess { resize: Some(4), ..raw() };
        assert_eq!(preprocess.apply(image(8, 12)).unwrap().1, [1, 4, 6]);
    }

    #[test]
    fn invalid_values_are_refused() {
        for bad in [
            Preprocess { std: vec![0.0], ..raw() },
            Preprocess { mean: vec![0.0, 1.0], ..raw() },
            Preprocess { scale: f32::NAN, ..raw() },
        ] {
            assert!(bad.apply(image(2, 2)).is_err(), "{bad:?}");
        }
    }
}
