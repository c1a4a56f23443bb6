//! From what was typed to images and their preprocessing.

use crate::args::ImageArgs;
use resprout::data::{ImageSet, LabelSource, Preprocess};
use resprout::model::{Dim, Model};
use resprout::{Error, ErrorKind, Result};
use std::path::Path;

/// Opens the images to measure on.
pub fn open(path: &Path, args: &ImageArgs) -> Result<ImageSet> {
    let labels = match args.labels.as_str() {
        "auto" => LabelSource::Auto,
        "none" => LabelSource::None,
        file => LabelSource::File(file.into()),
    };
    let mut set = ImageSet::open(path, &labels)?;
    if let Some(limit) = args.limit {
        set.truncate(limit.get());
    }
    Ok(set)
}

/// The preprocessing that was typed, or the one that suits the model's input; with a note where it was chosen.
pub fn preprocess(args: &ImageArgs, model: &Model) -> Result<(Preprocess, Option<String>)> {
    let explicit = args.mean.is_some() || args.std.is_some() || args.scale.is_some();
    let (mut preprocess, note) = match &args.preset {
        Some(name) => (Preprocess::preset(name)?, None),
        // Numbers without a preset: pixels / 255 unless --scale says otherwise, as these numbers are usually given.
        None if explicit => (Preprocess { scale: 1.0 / 255.0, ..Preprocess::preset("raw")? }, None),
        None => suitable(model)?,
    };
    if let Some(mean) = &args.mean {
        preprocess.mean.clone_from(mean);
    }
    if let Some(std) = &args.std {
        preprocess.std.clone_from(std);
    }
    if let Some(scale) = args.scale {
        preprocess.scale = scale;
    }
    if let Some(resize) = args.resize {
        preprocess.resize = (resize > 0).then_some(resize);
    }
    if let Some(crop) = &args.crop {
        preprocess.crop = parse_crop(crop)?;
    }
    preprocess.check(channels(model))?;
    Ok((preprocess, note))
}

/// Colour channels of the model's images.
pub fn channels(model: &Model) -> usize {
    match model.graph.inputs.first().and_then(|input| input.shape.get(1)) {
        Some(Dim::Fixed(channels)) => *channels,
        _ => 3,
    }
}

/// Shape `[C, H, W]` of the set's images after preprocessing, by the first one.
pub fn shape(set: &ImageSet, model: &Model, preprocess: &Preprocess) -> Result<Vec<usize>> {
    Ok(set.load(0..1, channels(model), preprocess)?.shape[1..].to_vec())
}

fn suitable(model: &Model) -> Result<(Preprocess, Option<String>)> {
    let size = resprout::report::fixed_image(model);
    let name = match (channels(model), size.as_deref()) {
        (3, Some([_, 32, 32])) => "cifar10",
        (3, _) => "imagenet",
        (1, Some([_, 28, 28])) => "mnist",
        _ => "raw",
    };
    let mut preprocess = Preprocess::preset(name)?;
    if let (Some([_, h, w]), true) = (size.as_deref(), preprocess.crop.is_some()) {
        preprocess.crop = Some([*h, *w]);
        // The usual margin of 256 around 224.
        preprocess.resize = Some((h.max(w) * 256).div_ceil(224));
    }
    Ok((preprocess, Some(format!("no --preset was given: {name:?} was chosen by the model's input"))))
}

fn parse_crop(text: &str) -> Result<Option<[usize; 2]>> {
    let wrong = || Error::new(ErrorKind::Option, format!("--crop {text:?}: SIZE or HEIGHTxWIDTH in pixels is needed"));
    let (height, width) = text.split_once('x').unwrap_or((text, text));
    match (height.parse(), width.parse()) {
        (Ok(0), Ok(0)) => Ok(None),
        (Ok(height), Ok(width)) if height > 0 && width > 0 => Ok(Some([height, width])),
        _ => Err(wrong()),
    }
}
