//! The shapes of images that a network can take.

use super::{Dim, Layout, Model};
use crate::ops::Op;

/// The image shape that the model itself fixes, without the axis of images; `None` if an axis is free.
#[doc(hidden)]
pub fn fixed_image(model: &Model) -> Option<Vec<usize>> {
    let [input] = &model.graph.inputs[..] else { return None };
    let fixed = |dim: &Dim| match dim {
        Dim::Fixed(dim) => Some(*dim),
        Dim::Free(_) => None,
    };
    let axes: Option<Vec<usize>> = input.shape.get(1..)?.iter().map(fixed).collect();
    axes.filter(|axes| !axes.is_empty())
}

/// Heights and widths to try where a model leaves them free.
const SIDES: [usize; 10] = [224, 64, 32, 28, 96, 128, 256, 299, 384, 512];

/// Possible image shapes of a model with one input, without the axis of images: the one that it fixes, or common ones.
///
/// Free heights and widths are tried at ten sides from 28 to 512 pixels, 224 first.
#[doc(hidden)]
pub fn possible_images(model: &Model) -> Vec<Vec<usize>> {
    let Some(input) = model.graph.inputs.first() else { return Vec::new() };
    let reader = model.graph.layers.iter().find(|layer| layer.input(0) == Some(&input.name));
    let weight = reader.and_then(|layer| match &layer.op {
        Op::Conv(a) => Some((&shape_of(model, layer.input(1)?)?[..], a.groups)),
        _ => None,
    });
    let channels = weight.and_then(|(shape, groups)| Some(shape.get(1)? * groups)).unwrap_or(3);
    let last = model.graph.image_layout() == Layout::ChannelsLast;
    let rank = if input.shape.is_empty() { weight.map_or(4, |(shape, _)| shape.len()) } else { input.shape.len() };
    let image = |side: usize| {
        let dim = |axis: usize| match input.shape.get(axis) {
            Some(Dim::Fixed(dim)) => *dim,
            _ if axis == if last { rank - 1 } else { 1 } => channels,
            _ => side,
        };
        (1..rank).map(dim).collect::<Vec<usize>>()
    };
    let mut images: Vec<Vec<usize>> = SIDES.into_iter().map(image).collect();
    images.dedup();
    images
}

fn shape_of<'m>(model: &'m Model, param: &str) -> Option<&'m Vec<usize>> {
    model.params.get(param).map(|param| &param.shape)
}
