//! From what was typed to images and their preprocessing.

use crate::args::ImageArgs;
use resprout::data::{ImageSet, LabelSource, Preprocess};
use resprout::model::{ElementType, Model};
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

/// The preprocessing that was typed, or the one that suits the model's input; with notes on what was chosen and on what
/// does not go together.
pub fn preprocess(args: &ImageArgs, model: &Model) -> Result<(Preprocess, Vec<String>)> {
    let explicit = args.preset.is_some() || args.mean.is_some() || args.std.is_some() || args.scale.is_some();
    let mut notes = Vec::new();
    let mut preprocess = match &args.preset {
        Some(name) => Preprocess::preset(name)?,
        // Numbers without a preset: pixels / 255 unless --scale says otherwise, as these numbers are usually given.
        None if explicit => Preprocess { scale: 1.0 / 255.0, ..Preprocess::default() },
        None => {
            let (preprocess, note) = suitable(model)?;
            notes.push(note);
            preprocess
        }
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
    preprocess.layout = model.graph.image_layout();
    notes.extend(input_notes(&mut preprocess, model));
    preprocess.check(channels(model))?;
    Ok((preprocess, notes))
}

/// Settles whether pixels stay bytes, and says what the numbers that are fed may have against them.
fn input_notes(preprocess: &mut Preprocess, model: &Model) -> Option<String> {
    let input = model.graph.inputs.first()?;
    let plain = |values: &[f32], value: f32| values.iter().all(|&v| v == value);
    let normalised = !(plain(&preprocess.mean, 0.0) && plain(&preprocess.std, 1.0) && preprocess.scale >= 1.0);
    let bytes = input.element == ElementType::Uint8;
    preprocess.bytes = bytes && !normalised;
    let layers = model.graph.normalising_layers();
    let names: Vec<String> = layers.iter().take(NAMED).map(|layer| format!("{:?} ({})", layer.name, layer.op.name())).collect();
    let more = if layers.len() > NAMED { format!(" and {} more", layers.len() - NAMED) } else { String::new() };
    let does = format!("{}{more} act on the pixels before the first layer with weights", names.join(", "));
    match (layers.is_empty(), bytes) {
        (_, true) if normalised => Some(format!(
            "input {:?} takes bytes (uint8), 0 to 255, but the given preprocessing normalises the images: they are fed so as given",
            input.name
        )),
        (false, false) if normalised => Some(format!(
            "the network may normalise its images itself: {does}; if it was trained on other numbers than the preprocessing \
             gives, say so with --preset raw, or --scale, --mean and --std"
        )),
        (false, _) => Some(format!("the network normalises its images itself: {does}")),
        _ => None,
    }
}

/// Layers that a note names.
const NAMED: usize = 4;

/// Colour channels of the model's images.
pub fn channels(model: &Model) -> usize {
    model.graph.image_channels().unwrap_or(3)
}

/// Shape of the set's images as the model takes them after preprocessing, by the first one.
pub fn shape(set: &ImageSet, model: &Model, preprocess: &Preprocess) -> Result<Vec<usize>> {
    Ok(set.load(0..1, channels(model), preprocess)?.shape[1..].to_vec())
}

/// Channels, height and width of the images, where the model fixes them.
pub fn fixed_size(model: &Model) -> Option<[usize; 3]> {
    let shape: [usize; 3] = resprout::model::fixed_image(model)?.try_into().ok()?;
    Some(model.graph.image_layout().channels_first(shape))
}

/// The preprocessing that suits the model's input, and why.
fn suitable(model: &Model) -> Result<(Preprocess, String)> {
    let size = fixed_size(model);
    let name = match (channels(model), size) {
        (3, Some([_, 32, 32])) => "cifar10",
        (3, _) => "imagenet",
        (1, Some([_, 28, 28])) => "mnist",
        _ => "raw",
    };
    let mut preprocess = Preprocess::preset(name)?;
    if let (Some([_, h, w]), true) = (size, preprocess.crop.is_some()) {
        preprocess.crop = Some([h, w]);
        // The usual margin of 256 around 224.
        preprocess.resize = Some((h.max(w) * 256).div_ceil(224));
    }
    match model.graph.inputs.first() {
        Some(input) if input.element == ElementType::Uint8 => {
            let Preprocess { resize, crop, .. } = preprocess;
            let note = format!("no --preset was given: raw pixels, because input {:?} takes bytes (uint8), 0 to 255", input.name);
            Ok((Preprocess { resize, crop, ..Preprocess::default() }, note))
        }
        _ => Ok((preprocess, format!("no --preset was given: {name:?} was chosen by the model's input"))),
    }
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
