//! A model is one graph of named layers, a table of parameters and a table of masks.

pub mod effective;
pub mod graph;
pub mod masks;
pub mod params;
pub mod prunable;

pub use graph::{Dim, Graph, GraphInput, Layer};
pub use masks::{Mask, MaskTable};
pub use params::{Param, ParamData, ParamTable};
pub use prunable::{LeftDense, Prunable, PrunableRule};

use crate::error::{Error, Result};
use crate::formats::onnx::OnnxSource;
use std::sync::Arc;

/// A network: what is computed (graph), with which numbers (params), and which of them are pruned (masks).
#[derive(Clone, Debug)]
pub struct Model {
    /// Layers in an order in which they can be computed.
    pub graph: Graph,
    /// Every constant of the graph, by name.
    pub params: ParamTable,
    /// Version of the standard operator set that gives the layers their meaning.
    pub opset: i64,
    /// The masks of pruned weights, by parameter name.
    pub masks: MaskTable,
    /// Where the model came from, for writing it back unchanged but for its tensors.
    pub(crate) source: Option<Arc<OnnxSource>>,
}

impl Model {
    /// The floating-point parameter of that name.
    pub fn weight(&self, name: &str) -> Result<&crate::tensor::Tensor> {
        self.params.f32(name).ok_or_else(|| Error::data(format!("parameter {name:?}: not a tensor of 32-bit floats")))
    }

    /// Fails on the first parameter that holds NaN or an infinity.
    pub fn check_finite(&self) -> Result<()> {
        for (name, param) in self.params.iter() {
            let Some(tensor) = param.f32() else { continue };
            if let Some(at) = tensor.data.iter().position(|v| !v.is_finite()) {
                return Err(Error::data(format!(
                    "parameter {name:?}: element {at} of {} is {}; a network with such weights cannot be pruned",
                    tensor.len(),
                    tensor.data[at]
                )));
            }
        }
        Ok(())
    }

    /// Sets every masked weight to exactly 0.0.
    pub fn apply_masks(&mut self) {
        for (name, mask) in self.masks.iter() {
            if let Some(tensor) = self.params.f32_mut(name) {
                mask.apply(&mut tensor.data);
            }
        }
    }
}
