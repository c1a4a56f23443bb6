//! The images that a network takes: their layout, their element type, and how the network normalises them.

use super::{Dim, ElementType, Graph, Layer, Model};
use crate::error::{Error, Result};
use crate::ops::Op;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Where the channels of an image lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// `[C, H, W]`: PyTorch's order.
    #[default]
    ChannelsFirst,
    /// `[H, W, C]`: TensorFlow's order.
    ChannelsLast,
}

impl Layout {
    /// Whether it is the default.
    pub fn is_default(&self) -> bool {
        *self == Layout::ChannelsFirst
    }

    /// The shape of an image in this layout.
    pub fn shape(self, [c, h, w]: [usize; 3]) -> [usize; 3] {
        match self {
            Layout::ChannelsFirst => [c, h, w],
            Layout::ChannelsLast => [h, w, c],
        }
    }

    /// Channels, height and width of a shape in this layout.
    pub fn channels_first(self, [a, b, c]: [usize; 3]) -> [usize; 3] {
        match self {
            Layout::ChannelsFirst => [a, b, c],
            Layout::ChannelsLast => [c, a, b],
        }
    }

    /// Converts `[C, H, W]` to this layout.
    pub fn arrange(self, data: Vec<f32>, channels: usize) -> Vec<f32> {
        let plane = data.len() / channels.max(1);
        match self {
            Layout::ChannelsFirst => data,
            Layout::ChannelsLast => {
                (0..plane).flat_map(|p| (0..channels).map(move |c| c * plane + p)).map(|at| data[at]).collect()
            }
        }
    }

    /// Converts an image in this layout to `[C, H, W]`.
    pub fn planes(self, data: &[f32], channels: usize) -> Vec<f32> {
        match self {
            Layout::ChannelsFirst => data.to_vec(),
            Layout::ChannelsLast => (0..channels).flat_map(|c| data.iter().skip(c).step_by(channels).copied()).collect(),
        }
    }
}

/// An axis with one of these lengths can be that of the channels.
const CHANNELS: [usize; 3] = [1, 3, 4];

impl Graph {
    /// The layout of the input's images. Channels are last if the first layer transposes them to the front, or if only the
    /// last of four axes has a length of 1, 3 or 4.
    pub fn image_layout(&self) -> Layout {
        let [input] = &self.inputs[..] else { return Layout::ChannelsFirst };
        match self.first_transpose(&input.name) {
            Some([0, 3, 1, 2]) => return Layout::ChannelsLast,
            Some([0, 2, 3, 1]) => return Layout::ChannelsFirst,
            _ => {}
        }
        let few = |dim: &Dim| matches!(dim, Dim::Fixed(dim) if CHANNELS.contains(dim));
        match &input.shape[..] {
            [_, first, _, last] if few(last) && !few(first) => Layout::ChannelsLast,
            _ => Layout::ChannelsFirst,
        }
    }

    /// The number of channels of the input's images, if the file fixes it.
    pub fn image_channels(&self) -> Option<usize> {
        let shape = &self.inputs.first()?.shape;
        let axis = match self.image_layout() {
            Layout::ChannelsFirst => shape.get(1)?,
            Layout::ChannelsLast => shape.last()?,
        };
        match axis {
            Dim::Fixed(channels) => Some(*channels),
            Dim::Free(_) => None,
        }
    }

    /// The axes of a Transpose that is the only reader of the images, directly or behind arithmetic on pixels.
    fn first_transpose(&self, input: &str) -> Option<[i64; 4]> {
        let mut value = input;
        loop {
            let reads = |layer: &&Layer| !matches!(layer.op, Op::Shape { .. }) && layer.inputs.iter().any(|name| name == value);
            let mut readers = self.layers.iter().filter(reads);
            let (reader, None) = (readers.next()?, readers.next()) else { return None };
            match &reader.op {
                Op::Transpose { perm: Some(perm) } => return perm[..].try_into().ok(),
                op if is_arithmetic(op) || matches!(op, Op::Cast { .. } | Op::Identity) => value = reader.outputs.first()?,
                _ => return None,
            }
        }
    }

    /// The layers with which the network normalises its images: arithmetic and Casts before the first layer with weights.
    /// Empty if there is no arithmetic.
    pub fn normalising_layers(&self) -> Vec<&Layer> {
        let mut pixels: HashSet<&str> = self.inputs.iter().map(|input| input.name.as_str()).collect();
        let mut found = Vec::new();
        for layer in &self.layers {
            if !layer.inputs.iter().any(|name| pixels.contains(name.as_str())) {
                continue;
            }
            match &layer.op {
                op if is_arithmetic(op) || matches!(op, Op::Cast { .. }) => found.push(layer),
                op if moves(op) || matches!(op, Op::Resize(_)) => {}
                Op::Shape { .. } => continue,
                _ => break,
            }
            pixels.extend(layer.outputs.iter().map(String::as_str));
        }
        if found.iter().any(|layer| is_arithmetic(&layer.op)) { found } else { Vec::new() }
    }
}

impl Model {
    /// Fails if images cannot be fed to the network's input, and says what it needs.
    ///
    /// # Errors
    /// Of kind `Unsupported`.
    pub fn check_input_type(&self) -> Result<()> {
        let [input] = &self.graph.inputs[..] else { return Ok(()) };
        match input.element {
            ElementType::Float32 => Ok(()),
            ElementType::Uint8 => self.check_bytes(&input.name),
            ElementType::Other(name) => Err(Error::unsupported(format!(
                "input {:?} takes {name} numbers; images are fed as float32 or uint8. Export the network with such an input \
                 (a Cast behind it keeps the rest); pruning without images (repair none) works",
                input.name
            ))),
        }
    }

    /// Fails if something is computed before bytes are cast: the forward computes with floats.
    fn check_bytes(&self, input: &str) -> Result<()> {
        let mut bytes = HashSet::from([input]);
        for layer in &self.graph.layers {
            if !layer.inputs.iter().any(|name| bytes.contains(name.as_str())) {
                continue;
            }
            match &layer.op {
                op if moves(op) => bytes.extend(layer.outputs.iter().map(String::as_str)),
                Op::Cast { .. } | Op::Shape { .. } | Op::Unknown(_) => {}
                op => {
                    return Err(Error::unsupported(format!(
                        "layer {:?} ({}): computes with the bytes (uint8) of input {input:?}; put a Cast to float32 before it, \
                         or prune without images (repair none)",
                        layer.name,
                        op.name()
                    )));
                }
            }
        }
        Ok(())
    }
}

fn is_arithmetic(op: &Op) -> bool {
    matches!(op, Op::Binary(_) | Op::BatchNorm { .. })
}

/// Whether an operation only moves elements.
fn moves(op: &Op) -> bool {
    matches!(
        op,
        Op::Transpose { .. }
            | Op::Reshape { .. }
            | Op::Flatten { .. }
            | Op::Squeeze { .. }
            | Op::Unsqueeze { .. }
            | Op::Identity
            | Op::Slice { .. }
            | Op::Gather { .. }
            | Op::Concat { .. }
            | Op::Pad { .. }
    )
}
