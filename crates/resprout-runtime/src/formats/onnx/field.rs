//! Fields of protobuf messages: the numbers of those that are rewritten (see `onnx.proto`), and how a field begins.

use prost::encoding::{WireType, encode_key, encode_varint};

pub const MODEL_IR_VERSION: u32 = 1;
pub const MODEL_GRAPH: u32 = 7;
pub const GRAPH_NODE: u32 = 1;
pub const GRAPH_INITIALIZER: u32 = 5;
pub const GRAPH_INPUT: u32 = 11;
pub const GRAPH_VALUE_INFO: u32 = 13;
pub const GRAPH_SPARSE_INITIALIZER: u32 = 15;
pub const NODE_INPUT: u32 = 1;
pub const NODE_OUTPUT: u32 = 2;
pub const NODE_ATTRIBUTE: u32 = 5;
pub const ATTRIBUTE_TENSOR: u32 = 5;
pub const TENSOR_DIMS: u32 = 1;
pub const TENSOR_DATA_TYPE: u32 = 2;
pub const TENSOR_FLOAT_DATA: u32 = 4;
pub const TENSOR_INT32_DATA: u32 = 5;
pub const TENSOR_RAW_DATA: u32 = 9;
pub const TENSOR_DOUBLE_DATA: u32 = 10;
pub const TENSOR_EXTERNAL_DATA: u32 = 13;
pub const TENSOR_DATA_LOCATION: u32 = 14;

/// Appends a field with its content.
pub fn append(out: &mut Vec<u8>, number: u32, content: &[u8]) {
    head(out, number, content.len());
    out.extend_from_slice(content);
}

/// Appends the head of a field: its number and the length of its content.
pub fn head(out: &mut Vec<u8>, number: u32, len: usize) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
}
