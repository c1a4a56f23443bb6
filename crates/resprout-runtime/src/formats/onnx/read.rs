//! Reads an ONNX file into a model. Everything is checked before anything is built.

use super::external::{Content, External};
use super::links::{self, Link};
use super::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, data_type};
use super::skeleton::{self, Skeleton};
use super::source::{Detached, Location, OnnxSource};
use super::tensors::{constant_param, expand_sparse, filled, float_param, read_tensor};
use super::{functions, fused, order};
use crate::error::{Error, Result};
use crate::formats::ElementBudget;
use crate::model::{Dim, ElementType, Graph, GraphInput, InnerWeight, Layer, MaskTable, Model, Param, ParamData, ParamTable};
use crate::ops::{Attribute, Attributes, Op};
use crate::tensor::Tensor;
use prost::Message;
use prost::bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

/// How a file is read. By default nothing is folded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Whether weights that are computed from constants become constants themselves. Only constants can be pruned.
    pub fold_weights: bool,
}

/// Reads an ONNX file, and files of external data beside it.
///
/// # Errors
/// Of kind `Io`, `Format` or `Unsupported`, with the file's name. Operations that cannot be computed are no error.
pub fn read(path: &Path) -> Result<Model> {
    read_with(path, ReadOptions::default())
}

/// As [`read`], with options.
///
/// # Errors
/// As [`read`].
pub fn read_with(path: &Path, options: ReadOptions) -> Result<Model> {
    read_pending(path, None, None, options)
}

/// As [`read_with`], where a file of external data still has a temporary name. Parameters that are the same in `like` are
/// shared with it.
pub(super) fn read_pending(
    path: &Path,
    pending: Option<(&str, &Path)>,
    like: Option<&ParamTable>,
    options: ReadOptions,
) -> Result<Model> {
    let Skeleton { bytes, numbers } = skeleton::read(path)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let external = External::new(Some(folder), pending).with_own(path, numbers)?;
    parse_from(bytes, external, like, Vec::new(), options).map_err(|e| e.at(path.display()))
}

/// Reads an ONNX model from memory. External data are looked for in `folder`, or refused without one.
///
/// # Errors
/// As [`read`], without a file's name.
pub fn parse(bytes: Vec<u8>, folder: Option<&Path>) -> Result<Model> {
    parse_from(bytes, External::new(folder, None), None, Vec::new(), ReadOptions::default())
}

/// As [`parse`], with parameters that are not in the file.
pub(in crate::formats) fn parse_with(bytes: Vec<u8>, extra: Vec<(String, Tensor)>) -> Result<Model> {
    parse_from(bytes, External::new(None, None), None, extra, ReadOptions::default())
}

fn parse_from(
    bytes: Vec<u8>,
    data: External,
    like: Option<&ParamTable>,
    extra: Vec<(String, Tensor)>,
    options: ReadOptions,
) -> Result<Model> {
    if bytes.is_empty() {
        return Err(Error::format("the file is empty, not an ONNX model"));
    }
    let mut bytes = Bytes::from(bytes);
    let mut proto = decode(&bytes)?;
    if let Some(inlined) = functions::inline(&bytes, &proto)? {
        bytes = Bytes::from(inlined);
        proto = decode(&bytes)?;
    }
    let graph = proto.graph.as_ref().ok_or_else(|| Error::format("not an ONNX model: it has no graph"))?;
    if graph.node.is_empty() {
        return Err(Error::format("the graph has no nodes"));
    }
    let opset =
        proto.opset_import.iter().find(|set| set.domain.is_empty() || set.domain == "ai.onnx").map_or(1, |set| set.version);
    let mut reader = Reader::new(data, like, opset);
    for (name, tensor) in extra {
        reader.add(name, Param::from_tensor(tensor), Location::Separate)?;
    }
    reader.initializers(graph)?;
    reader.sparse_initializers(graph)?;
    let layers = reader.layers(graph)?;
    let inputs = reader.inputs(graph);
    let outputs: Vec<String> = graph.output.iter().map(|output| output.name.clone()).collect();
    let layers = reader.sorted(layers, &inputs, &outputs)?;
    let link = Link { graph, detached: &reader.detached, fold_weights: options.fold_weights };
    let linked = links::link(link, layers, &outputs, &mut reader.params, &mut reader.locations, &reader.nodes)?;
    let Reader { params, locations, detached, nodes, inner, data, .. } = reader;
    let mut original = params.clone();
    linked.computed.iter().for_each(|name| original.remove(name));
    let source = OnnxSource {
        bytes,
        locations,
        original,
        ir_version: proto.ir_version,
        detached,
        data_files: data.into_paths(),
        nodes,
        views: linked.views,
        dead_nodes: linked.dead_nodes,
        dead_initializers: linked.dead_initializers,
    };
    Ok(Model {
        graph: Graph { inputs, outputs, layers: linked.layers, inner, merged: Vec::new() },
        params,
        opset,
        masks: MaskTable::default(),
        origin: Some(Arc::new(source)),
    })
}

fn decode(bytes: &Bytes) -> Result<ModelProto> {
    ModelProto::decode(bytes.clone()).map_err(|e| Error::format(format!("not an ONNX model, or cut off: {e}")))
}

/// Collects the parts of a model from a graph.
struct Reader<'a> {
    opset: i64,
    params: ParamTable,
    locations: HashMap<String, Location>,
    detached: HashMap<usize, Detached>,
    data: External<'a>,
    like: Option<&'a ParamTable>,
    nodes: HashMap<String, usize>,
    inner: Vec<InnerWeight>,
    budget: ElementBudget,
}

impl<'a> Reader<'a> {
    fn new(data: External<'a>, like: Option<&'a ParamTable>, opset: i64) -> Reader<'a> {
        Reader {
            opset,
            params: ParamTable::default(),
            locations: HashMap::new(),
            detached: HashMap::new(),
            data,
            like,
            nodes: HashMap::new(),
            inner: Vec::new(),
            budget: ElementBudget::default(),
        }
    }
}

impl Reader<'_> {
    fn initializers(&mut self, graph: &GraphProto) -> Result<()> {
        for (index, tensor) in graph.initializer.iter().enumerate() {
            let place = || format!("initializer {:?}", tensor.name);
            let like = self.like.and_then(|like| like.get(&tensor.name)).filter(|like| has_dims(like, tensor));
            let numbers = like.and_then(Param::f32).map(|like| &like.data[..]);
            let param = match (self.data.content(index, tensor, numbers).map_err(|e| e.at(place()))?, like) {
                (Some((Content::Same, inside)), Some(like)) => {
                    self.detached.insert(index, Detached { bytes: None, inside });
                    Ok(like.clone())
                }
                (None | Some((Content::Same, _)), _) => read_tensor(tensor, None),
                (Some((Content::Floats(floats), inside)), _) => {
                    self.detached.insert(index, Detached { bytes: None, inside });
                    float_param(tensor, floats)
                }
                (Some((Content::Bytes(bytes), inside)), _) => {
                    let param = read_tensor(tensor, Some(&bytes));
                    self.detached.insert(index, Detached { bytes: Some(bytes), inside });
                    param
                }
            }
            .map_err(|e| e.at(place()))?;
            self.add(tensor.name.clone(), param, Location::Initializer(index))?;
        }
        Ok(())
    }

    fn sparse_initializers(&mut self, graph: &GraphProto) -> Result<()> {
        for (index, sparse) in graph.sparse_initializer.iter().enumerate() {
            let values =
                sparse.values.as_ref().ok_or_else(|| Error::format(format!("sparse initializer {index} has no values")))?;
            let place = || format!("sparse initializer {:?}", values.name);
            let tensor = expand_sparse(sparse, values, &mut self.budget).map_err(|e| e.at(place()))?;
            self.add(values.name.clone(), Param::from_tensor(tensor), Location::Separate)?;
        }
        Ok(())
    }

    fn add(&mut self, name: String, param: Param, location: Location) -> Result<()> {
        if name.is_empty() {
            return Err(Error::format("a constant tensor has no name"));
        }
        if !self.params.insert(name.clone(), param) {
            return Err(Error::format(format!("{name:?} is defined twice")));
        }
        self.locations.insert(name, location);
        Ok(())
    }

    fn layers(&mut self, graph: &GraphProto) -> Result<Vec<Layer>> {
        let mut names = HashSet::new();
        let inputs = graph.node.iter().flat_map(|node| node.input.iter().cloned().chain(order::captured(node)));
        let read: HashSet<String> = inputs.chain(graph.output.iter().map(|output| output.name.clone())).collect();
        let mut layers = Vec::with_capacity(graph.node.len());
        for (index, node) in graph.node.iter().enumerate() {
            let name = unique_name(node, index, &mut names);
            if let Some((param, location)) = self.constant(node, index).map_err(|e| e.at(format!("node {name:?}")))? {
                self.add(node.output[0].clone(), param, location)?;
                continue;
            }
            inner_weights(&name, node, &mut self.inner);
            for layer in self.layers_of(name, node, &read, &mut names)? {
                self.nodes.insert(layer.name.clone(), index);
                layers.push(layer);
            }
        }
        Ok(layers)
    }

    /// The layers of a node: one for each of its outputs that something reads, so that every layer computes one value. An
    /// operation that is not known stays one layer.
    fn layers_of(
        &self,
        name: String,
        node: &NodeProto,
        read: &HashSet<String>,
        names: &mut HashSet<String>,
    ) -> Result<Vec<Layer>> {
        let place = |e: Error| e.at(format!("node {name:?} ({})", node.op_type));
        let op = self.op(node, 0).map_err(place)?;
        let inputs: Vec<String> = node.input.iter().cloned().chain(order::captured(node)).collect();
        let outputs: Vec<usize> = (0..node.output.len()).filter(|&output| read.contains(node.output[output].as_str())).collect();
        if outputs.is_empty() || matches!(op, Op::Unknown(_)) || !is_standard(node) {
            let layer = Layer { name, op, inputs, outputs: node.output.clone() };
            return fused::unfused(layer, node);
        }
        let mut layers = Vec::with_capacity(outputs.len());
        for output in outputs {
            let mut own = if layers.is_empty() { name.clone() } else { format!("{name}/output{output}") };
            while !layers.is_empty() && !names.insert(own.clone()) {
                own.push('_');
            }
            let op = self.op(node, output).map_err(place)?;
            layers.push(Layer { name: own, op, inputs: inputs.clone(), outputs: vec![node.output[output].clone()] });
        }
        Ok(layers)
    }

    /// A node that only holds numbers is a parameter, not a layer.
    fn constant(&mut self, node: &NodeProto, index: usize) -> Result<Option<(Param, Location)>> {
        if !is_standard(node) || node.output.len() != 1 {
            return Ok(None);
        }
        match node.op_type.as_str() {
            "Constant" => {
                let attribute = node.attribute.first().ok_or_else(|| Error::format("a Constant without a value"))?;
                let location = match attribute.name.as_str() {
                    "sparse_value" => Location::OutputOf(index),
                    _ => Location::ConstantNode(index),
                };
                Ok(constant_param(attribute, &mut self.budget)?.map(|param| (param, location)))
            }
            "ConstantOfShape" => {
                let shape = node.input.first().and_then(|name| self.params.i64(name));
                let Some(shape) = shape else { return Ok(None) };
                let fill = node.attribute.iter().find(|a| a.name == "value").and_then(|a| a.t.as_ref());
                let fill = fill.map(|t| read_tensor(t, None)).transpose()?;
                Ok(filled(&shape.data, fill)?.map(|param| (param, Location::FilledNode(index))))
            }
            _ => Ok(None),
        }
    }

    /// The operation that computes one of a node's outputs.
    fn op(&self, node: &NodeProto, output: usize) -> Result<Op> {
        let mut attributes = attributes(node, self.opset)?;
        attributes.output = output;
        attributes.outputs = node.output.len();
        if node.op_type == "QuantizeLinear" {
            self.quantised_type(node, &mut attributes);
        }
        if !is_standard(node) {
            return fused::op(node, &attributes);
        }
        Op::parse(&node.op_type, &attributes)
    }

    /// Notes the type of the zero point, which is that of the result.
    fn quantised_type(&self, node: &NodeProto, attributes: &mut Attributes) {
        let zero = node.input.get(2).and_then(|name| self.params.get(name)).map(Param::type_name);
        let code = zero.and_then(|zero| (2..6).chain([12, 13]).find(|&code| data_type::name(code) == zero));
        code.into_iter().for_each(|code| attributes.insert("output_dtype".into(), Attribute::Int(i64::from(code))));
    }

    fn inputs(&self, graph: &GraphProto) -> Vec<GraphInput> {
        let free = graph.input.iter().filter(|input| self.params.get(&input.name).is_none());
        free.map(read_input).collect()
    }

    fn sorted(&self, layers: Vec<Layer>, inputs: &[GraphInput], outputs: &[String]) -> Result<Vec<Layer>> {
        let inputs = inputs.iter().map(|input| input.name.as_str());
        let known: HashSet<&str> = inputs.chain(self.params.iter().map(|(name, _)| name)).collect();
        order::sort(layers, &known, outputs)
    }
}

fn has_dims(param: &Param, tensor: &TensorProto) -> bool {
    param.shape.len() == tensor.dims.len() && param.shape.iter().zip(&tensor.dims).all(|(&a, &b)| a as i64 == b)
}

/// A node's attributes.
fn attributes(node: &NodeProto, opset: i64) -> Result<Attributes> {
    let mut attributes = Attributes::new(opset);
    for attribute in &node.attribute {
        if let Some(value) = read_attribute(attribute)? {
            attributes.insert(attribute.name.clone(), value);
        }
    }
    Ok(attributes)
}

fn is_standard(node: &NodeProto) -> bool {
    node.domain.is_empty() || node.domain == "ai.onnx"
}

fn unique_name(node: &NodeProto, index: usize, taken: &mut HashSet<String>) -> String {
    let mut name = match (&node.name, node.output.first()) {
        (name, _) if !name.is_empty() => name.clone(),
        (_, Some(output)) if !output.is_empty() => output.clone(),
        _ => format!("{}_{index}", node.op_type),
    };
    while !taken.insert(name.clone()) {
        name = format!("{name}_{index}");
    }
    name
}

/// Lists the weights in graphs within a node, which are not pruned.
fn inner_weights(layer: &str, node: &NodeProto, found: &mut Vec<InnerWeight>) {
    for graph in order::inner_graphs(node) {
        let constants = graph.node.iter().flat_map(|node| &node.attribute).filter_map(|attribute| attribute.t.as_ref());
        for tensor in graph.initializer.iter().chain(constants).filter(|tensor| is_weight(tensor)) {
            let name = if tensor.name.is_empty() { "a constant" } else { &tensor.name };
            let weights = tensor.dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(0)).product();
            found.push(InnerWeight { layer: layer.to_string(), op: node.op_type.clone(), param: name.into(), weights });
        }
        graph.node.iter().for_each(|node| inner_weights(layer, node, found));
    }
}

fn is_weight(tensor: &TensorProto) -> bool {
    let floating = [data_type::FLOAT, data_type::FLOAT16, data_type::BFLOAT16, data_type::DOUBLE];
    floating.contains(&tensor.data_type) && tensor.dims.iter().filter(|&&dim| dim > 1).count() > 1
}

fn read_input(info: &ValueInfoProto) -> GraphInput {
    let tensor = info.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    let shape = tensor.and_then(|t| t.shape.as_ref());
    let axes = shape.map_or(&[][..], |shape| &shape.dim).iter().map(|dim| match (dim.dim_value, &dim.dim_param) {
        (Some(value), _) if value > 0 => Dim::Fixed(value as usize),
        // Paddle's exporter writes -1 for an axis that is free, others 0.
        (_, name) => Dim::Free(name.clone().unwrap_or_default()),
    });
    let element = match tensor.map_or(0, |t| t.elem_type) {
        // A missing type means floats, as all exporters write them.
        0 | data_type::FLOAT => ElementType::Float32,
        data_type::UINT8 => ElementType::Uint8,
        other => ElementType::Other(data_type::name(other)),
    };
    GraphInput { name: info.name.clone(), element, shape: axes.collect() }
}

fn read_attribute(attribute: &AttributeProto) -> Result<Option<Attribute>> {
    Ok(Some(match attribute.r#type {
        1 => Attribute::Float(attribute.f),
        2 => Attribute::Int(attribute.i),
        3 => Attribute::Text(String::from_utf8_lossy(&attribute.s).into_owned()),
        4 => match attribute.t.as_ref().map(|t| read_tensor(t, None)).transpose()? {
            Some(Param { data: ParamData::Value(value) | ParamData::Narrow(_, value), .. }) => Attribute::Tensor(value),
            _ => return Ok(None),
        },
        6 => Attribute::Floats(attribute.floats.clone()),
        7 => Attribute::Ints(attribute.ints.clone()),
        8 => Attribute::Texts(attribute.strings.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect()),
        _ => return Ok(None),
    }))
}
