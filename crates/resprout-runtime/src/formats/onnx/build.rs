//! Builds a model from nodes and initializers, as ONNX calls operations and constant tensors. They are read as if from a file,
//! so that a built model is like one that was read.

use super::proto::{
    AttributeProto, Dimension, GraphProto, ModelProto, NodeProto, OperatorSetId, TensorProto, TensorShape, TensorType, TypeProto,
    ValueInfoProto, data_type,
};
use crate::error::Result;
use crate::model::Model;
use crate::tensor::Tensor;
use prost::Message;
use prost::bytes::Bytes;

/// Opset of built models.
const OPSET: i64 = 13;
/// The format version that introduced the opset.
const IR_VERSION: i64 = 7;

/// An attribute of a node.
#[doc(hidden)]
pub enum Attribute {
    /// One integer.
    Int(i64),
    /// Several integers.
    Ints(Vec<i64>),
    /// One float.
    Float(f32),
}

/// Collects nodes and initializers, and makes a [`Model`] of them. The network's input has the name `input`.
///
/// ```
/// use resprout_runtime::{formats::onnx::GraphBuilder, tensor::Tensor};
///
/// # fn main() -> resprout_runtime::Result<()> {
/// let mut graph = GraphBuilder::default();
/// graph.tensor("weight", &Tensor::new(vec![4, 2], vec![0.5; 8]));
/// let flat = graph.node("Flatten", "flat", &["input"], &[]);
/// let scores = graph.node("MatMul", "scores", &[&flat, "weight"], &[]);
/// let model = graph.finish("example", [1, 2, 2], &scores, 2)?;
/// assert_eq!(model.params.float_count(), 8);
/// # Ok(())
/// # }
/// ```
#[doc(hidden)]
#[derive(Default)]
pub struct GraphBuilder {
    graph: GraphProto,
}

impl GraphBuilder {
    /// Adds a node of the ONNX operation `op` with one output, which has the node's name. Returns the name.
    pub fn node(&mut self, op: &str, name: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> String {
        self.nodes(op, &[name], inputs, attributes);
        name.to_string()
    }

    /// Adds a node with several outputs. Its name is that of the first.
    pub fn nodes(&mut self, op: &str, outputs: &[&str], inputs: &[&str], attributes: &[(&str, Attribute)]) {
        self.graph.node.push(NodeProto {
            input: inputs.iter().map(|input| input.to_string()).collect(),
            output: outputs.iter().map(|output| output.to_string()).collect(),
            name: outputs.first().map_or_else(String::new, |name| name.to_string()),
            op_type: op.to_string(),
            attribute: attributes.iter().map(|(name, value)| attribute(name, value)).collect(),
            ..Default::default()
        });
    }

    /// Adds a tensor of floats under a name.
    pub fn tensor(&mut self, name: &str, tensor: &Tensor) {
        self.initializer(name, &tensor.shape, data_type::FLOAT, tensor.to_le_bytes());
    }

    /// Whether a tensor of that name was added.
    pub fn has_tensor(&self, name: &str) -> bool {
        self.graph.initializer.iter().any(|tensor| tensor.name == name)
    }

    /// Adds a list of integers under a name. Returns the name.
    pub fn integers(&mut self, name: &str, values: &[i64]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.initializer(name, &[values.len()], data_type::INT64, bytes);
        name.to_string()
    }

    fn initializer(&mut self, name: &str, shape: &[usize], data_type: i32, bytes: Vec<u8>) {
        self.graph.initializer.push(TensorProto {
            name: name.to_string(),
            dims: shape.iter().map(|&dim| dim as i64).collect(),
            data_type,
            raw_data: Bytes::from(bytes),
            ..Default::default()
        });
    }

    /// The model. It has the input `input`, any number of images of shape `image: [C, H, W]`, and the value `output`,
    /// `[N, classes]`, as its output. `name` is that of the graph.
    ///
    /// # Errors
    /// Of kind `Format` or `Unsupported` for nodes that cannot be read.
    pub fn finish(mut self, name: &str, image: [usize; 3], output: &str, classes: usize) -> Result<Model> {
        self.graph.name = name.to_string();
        self.graph.input = vec![value_info("input", &image)];
        self.graph.output = vec![value_info(output, &[classes])];
        let model = ModelProto {
            ir_version: IR_VERSION,
            producer_name: "resprout".into(),
            graph: Some(self.graph),
            opset_import: vec![OperatorSetId { domain: String::new(), version: OPSET }],
            functions: Vec::new(),
        };
        super::parse(model.encode_to_vec(), None)
    }
}

fn attribute(name: &str, value: &Attribute) -> AttributeProto {
    let empty = AttributeProto { name: name.to_string(), ..Default::default() };
    match value {
        Attribute::Int(i) => AttributeProto { i: *i, r#type: 2, ..empty },
        Attribute::Float(f) => AttributeProto { f: *f, r#type: 1, ..empty },
        Attribute::Ints(ints) => AttributeProto { ints: ints.clone(), r#type: 7, ..empty },
    }
}

/// A value of floats with shape `[batch, dims]`.
fn value_info(name: &str, dims: &[usize]) -> ValueInfoProto {
    let batch = Dimension { dim_value: None, dim_param: Some("batch".into()) };
    let fixed = dims.iter().map(|&dim| Dimension { dim_value: Some(dim as i64), dim_param: None });
    let shape = TensorShape { dim: std::iter::once(batch).chain(fixed).collect() };
    let tensor_type = TensorType { elem_type: data_type::FLOAT, shape: Some(shape) };
    ValueInfoProto { name: name.to_string(), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}
