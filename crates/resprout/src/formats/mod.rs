//! Ways in and out: files become a [`Model`](crate::model::Model) and back.

pub mod atomic;
pub mod onnx;
pub mod pth;
pub mod safetensors;
pub mod sparse;
