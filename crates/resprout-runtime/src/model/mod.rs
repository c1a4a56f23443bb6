//! A model is one graph of named layers, a table of parameters and a table of masks.

#[doc(hidden)]
pub mod effective;
mod folded;
mod graph;
mod image;
mod input;
mod masks;
mod merge;
mod params;
#[doc(hidden)]
pub mod prunable;
pub(crate) mod view;
mod zeros;

pub(crate) use graph::Merged;
pub use graph::{Dim, ElementType, Graph, GraphInput, InnerWeight, Layer};
pub use image::{fixed_image, possible_images};
pub use input::Layout;
pub use masks::{Mask, MaskTable};
pub use merge::MergedNorms;
pub use params::{Param, ParamData, ParamTable};
pub use prunable::{LeftDense, Prunable, PrunableRule};
pub use view::{View, ViewStep};
pub use zeros::CameSparse;

use crate::error::{Error, Result};
use crate::tensor::{Array, Tensor};
use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;

/// A bias that a layer is given has the name of its weight and this suffix.
pub(crate) const BIAS_SUFFIX: &str = ".bias";

/// A network: what is computed (graph), with which numbers (params), and which of them are pruned (masks).
///
/// [`open`](Self::open) and [`formats`](crate::formats) read one, and [`GraphBuilder`](crate::formats::onnx::GraphBuilder)
/// builds one. A clone shares tensors and masks until they change. A file's zeros are no masks:
/// [`keep_zeros`](Self::keep_zeros) makes them masks, so that pruning and repair keep them.
#[derive(Clone, Debug)]
pub struct Model {
    /// Named layers, in an order in which they can be computed.
    pub graph: Graph,
    /// Every constant of the graph, by name.
    pub params: ParamTable,
    /// Version of the ONNX operator set that gives the layers their meaning.
    pub opset: i64,
    /// Which weights are kept, by parameter name. A parameter without a mask is dense.
    pub masks: MaskTable,
    /// The file it was read from: written back, all but its tensors stays.
    pub(crate) origin: Option<Arc<dyn Origin>>,
}

/// The file that a model was read from. Only its format knows more.
pub trait Origin: Any + std::fmt::Debug + Send + Sync {
    /// How the file stores a parameter, if not as its layer reads it.
    fn view(&self, param: &str) -> Option<&View>;
}

impl Model {
    /// The floating-point parameter of that name.
    ///
    /// # Errors
    /// Of kind `Data` if there is none.
    pub fn weight(&self, name: &str) -> Result<&Tensor> {
        self.params.f32(name).ok_or_else(|| Error::data(format!("parameter {name:?}: not a tensor of 32-bit floats")))
    }

    /// Fails on the first parameter that holds NaN or an infinity.
    ///
    /// # Errors
    /// Of kind `Data`, with the name of the parameter.
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

    fn view(&self, param: &str) -> Option<&View> {
        self.origin.as_ref().and_then(|origin| origin.view(param))
    }

    /// A parameter's elements in the layout of its file: a layer may read a weight transposed or reshaped.
    pub(crate) fn as_stored<T: Copy>(&self, name: &str, seen: Array<T>) -> Result<Array<T>> {
        match self.view(name) {
            Some(view) => view.stored(seen).map_err(|e| e.at(format!("parameter {name:?}"))),
            None => Ok(seen),
        }
    }

    /// The inverse of [`as_stored`](Self::as_stored).
    pub(crate) fn as_seen<T: Copy>(&self, name: &str, stored: Array<T>) -> Result<Array<T>> {
        match self.view(name) {
            Some(view) => view.seen(stored).map_err(|e| e.at(format!("parameter {name:?}"))),
            None => Ok(stored),
        }
    }

    /// A floating-point parameter in the layout of its file.
    pub(crate) fn stored_tensor<'t>(&self, name: &str, tensor: &'t Tensor) -> Result<Cow<'t, Tensor>> {
        match self.view(name) {
            Some(_) => self.as_stored(name, tensor.clone()).map(Cow::Owned),
            None => Ok(Cow::Borrowed(tensor)),
        }
    }

    /// The mask of a parameter in the layout of its file.
    pub(crate) fn stored_mask(&self, name: &str) -> Result<Option<Mask>> {
        let (Some(mask), Some(param)) = (self.masks.get(name), self.params.get(name)) else { return Ok(None) };
        Ok(Some(Mask(self.as_stored(name, Array::new(param.shape.clone(), mask.0.clone()))?.data)))
    }

    /// A mask in the layout of the file, in the layout of the layer.
    pub(crate) fn seen_mask(&self, name: &str, mask: Mask) -> Result<Mask> {
        let Some(shape) = self.stored_shape(name)?.filter(|shape| shape.iter().product::<usize>() == mask.0.len()) else {
            return Err(Error::data(format!("mask of {name:?}: {} flags are not as many as its weights", mask.0.len())));
        };
        Ok(Mask(self.as_seen(name, Array::new(shape, mask.0))?.data))
    }

    /// The shape that a parameter has in its file.
    pub(crate) fn stored_shape(&self, name: &str) -> Result<Option<Vec<usize>>> {
        let Some(param) = self.params.get(name) else { return Ok(None) };
        let count = param.shape.iter().product();
        Ok(Some(self.as_stored(name, Array::new(param.shape.clone(), vec![(); count]))?.shape))
    }

    /// Whether channels can be cut out of a parameter: not where the file reshapes it to a fixed shape.
    pub fn can_be_cut(&self, name: &str) -> bool {
        self.view(name).is_none_or(|view| view.can_be_cut())
    }

    /// Gives the layer with index `layer`, which has no bias, this one. Returns the name of the new parameter.
    ///
    /// # Errors
    /// Of kind `Unsupported` if that name is taken.
    ///
    /// # Panics
    /// If there is no such layer, or it reads fewer than two values.
    pub fn give_bias(&mut self, layer: usize, bias: Vec<f32>) -> Result<String> {
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
        // A tensor without pruned weights stays shared with clones of the model.
        for (name, mask) in self.masks.iter().filter(|(_, mask)| mask.0.contains(&false)) {
            if let Some(tensor) = self.params.f32_mut(name) {
                mask.apply(&mut tensor.data);
            }
        }
    }
}
