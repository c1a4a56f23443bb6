//! Convolution and batch normalisation on the CPU by `resprout-kernels`. Other devices, and shapes without a kernel, use the
//! engine's own.

mod batch_norm;
mod conv;
mod planes;

pub(crate) use batch_norm::batch_norm;
pub(crate) use conv::conv2d;

use burn_core::backend::Flex;
use burn_core::backend::tensor::FloatTensor;
use burn_core::tensor::{Device, Tensor, TensorData};

type CpuTensor = FloatTensor<Flex>;

/// Whether the kernels can use the tensor.
fn on_cpu<const D: usize>(tensor: &Tensor<D>) -> bool {
    tensor.device().inner() == Device::flex()
}

/// The tensor with its elements in order. It is copied only if they are not.
fn contiguous(tensor: CpuTensor) -> CpuTensor {
    if tensor.as_slice::<f32>().is_some() { tensor } else { tensor.to_contiguous() }
}

fn elements(tensor: &CpuTensor) -> &[f32] {
    tensor.as_slice().expect("made contiguous, and all tensors here are of f32")
}

fn cpu_tensor(data: Vec<f32>, shape: impl Into<Vec<usize>>) -> CpuTensor {
    CpuTensor::from_data(TensorData::new(data, shape.into()))
}
