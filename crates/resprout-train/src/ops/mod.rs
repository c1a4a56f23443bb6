//! What the engine is given for the CPU: convolution and batch normalisation by our own kernels.
//! On other devices, and where a kernel does not fit, the engine's own are used.

mod batch_norm;
mod conv;
mod planes;

pub(crate) use batch_norm::batch_norm;
pub(crate) use conv::conv2d;

use burn_core::backend::Flex;
use burn_core::backend::tensor::FloatTensor;
use burn_core::tensor::{Device, Tensor, TensorData};

type CpuTensor = FloatTensor<Flex>;

/// Whether our own kernels can work on the tensor.
fn on_cpu<const D: usize>(tensor: &Tensor<D>) -> bool {
    tensor.device().inner() == Device::flex()
}

/// The elements of a CPU tensor in order, copied only where they do not lie so.
fn contiguous(tensor: CpuTensor) -> CpuTensor {
    if tensor.as_slice::<f32>().is_some() { tensor } else { tensor.to_contiguous() }
}

fn elements(tensor: &CpuTensor) -> &[f32] {
    tensor.as_slice().expect("made contiguous, and all tensors here are of f32")
}

fn cpu_tensor(data: Vec<f32>, shape: impl Into<Vec<usize>>) -> CpuTensor {
    CpuTensor::from_data(TensorData::new(data, shape.into()))
}
