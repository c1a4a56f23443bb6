//! A model is one graph of named layers, a table of parameters and a table of masks.

pub mod effective;
pub mod graph;
pub mod masks;
pub mod params;
pub mod prunable;
pub mod zeros;

pub use graph::{Dim, Graph, GraphInput, Layer};
pub use masks::{Mask, MaskTable};
pub use params::{Param, ParamData, ParamTable};
pub use prunable::{LeftDense, Prunable, PrunableRule};
pub use zeros::CameSparse;

use crate::error::{Error, Result};
use crate::formats::onnx::OnnxSource;
use crate::tensor::Tensor;
use std::sync::Arc;

/// What is appended to a weight's name to name the bias that its layer was given.
pub(crate) const BIAS_SUFFIX: &str = ".bias";

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
    pub fn weight(&self, name: &str) -> Result<&Tensor> {
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

    /// Gives a layer that has none a bias, as a new parameter whose name is returned.
    pub(crate) fn give_bias(&mut self, layer: usize, bias: Vec<f32>) -> Result<String> {
        let weight = self.graph.layers[layer].inputs[1].clone();
        let name = format!("{weight}{BIAS_SUFFIX}");
        let mut values = self.graph.layers.iter().flat_map(|layer| layer.outputs.iter().chain(&layer.inputs));
        if self.params.get(&name).is_some() || values.any(|value| *value == name) {
            return Err(Error::unsupported(format!(
                "layer {:?}: needs a bias, but {name:?} is the name of something else",
                self.graph.layers[layer].name
            )));
        }
        self.params.insert(name.clone(), Param::from_tensor(Tensor::vector(bias)));
        let inputs = &mut self.graph.layers[layer].inputs;
        inputs.truncate(2);
        inputs.push(name.clone());
        Ok(name)
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
