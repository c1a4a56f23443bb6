//! ONNX into a model: everything is checked before anything is built.

use super::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, ValueInfoProto, data_type,
};
use crate::error::{Error, Result};
use crate::formats::Room;
use crate::model::{Dim, ElementType, Graph, GraphInput, Layer, MaskTable, Model, Param, ParamData, ParamTable};
use crate::ops::{Attribute, Attributes, Op};
use crate::tensor::{Array, Tensor, Value, element_count};
use prost::Message;
use prost::bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::path::{Component, Path};
use std::sync::Arc;

/// A weight that a constant node fills may not be larger than this: a few bytes of a hostile file
/// must not ask for all memory.
const LARGEST_FILLED: usize = 1 << 30;

/// The file as it was read, and where in it each parameter lies.
#[derive(Debug)]
pub struct OnnxSource {
    /// The whole file.
    pub(super) bytes: Bytes,
    /// Where each parameter lies.
    pub(super) places: HashMap<String, Place>,
    /// The parameters as they were read, to see which have changed.
    pub(super) original: ParamTable,
    /// Version of the format.
    pub(super) ir_version: i64,
    /// Indices of initializers whose data lie in other files.
    pub(super) external: HashMap<usize, Bytes>,
}

/// Where a parameter lies in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The n-th initializer.
    Initializer(usize),
    /// The tensor of the n-th node, a Constant.
    ConstantNode(usize),
    /// The n-th node, a ConstantOfShape of a constant shape: it becomes a Constant when changed.
    FilledNode(usize),
    /// A sparse initializer, or in no place of the file at all: the bytes come from elsewhere.
    Apart,
}

/// Reads an ONNX file.
pub fn read(path: &Path) -> Result<Model> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    parse(bytes, Some(folder)).map_err(|e| e.at(path.display()))
}

/// Reads an ONNX model from memory. External data are looked for in `folder`, or refused without one.
pub fn parse(bytes: Vec<u8>, folder: Option<&Path>) -> Result<Model> {
    parse_with(bytes, folder, Vec::new())
}

/// As [`parse`], with parameters that are kept apart from the graph.
pub(in crate::formats) fn parse_with(bytes: Vec<u8>, folder: Option<&Path>, apart: Vec<(String, Tensor)>) -> Result<Model> {
    if bytes.is_empty() {
        return Err(Error::format("the file is empty, not an ONNX model"));
    }
    let bytes = Bytes::from(bytes);
    let proto = ModelProto::decode(bytes.clone()).map_err(|e| Error::format(format!("not an ONNX model, or cut off: {e}")))?;
    let graph = proto.graph.as_ref().ok_or_else(|| Error::format("not an ONNX model: it has no graph"))?;
    if graph.node.is_empty() {
        return Err(Error::format("the graph has no nodes"));
    }
    let opset =
        proto.opset_import.iter().find(|set| set.domain.is_empty() || set.domain == "ai.onnx").map_or(1, |set| set.version);
    let mut reader = Reader { folder, opset, params: ParamTable::default(), places: HashMap::new(), external: HashMap::new() };
    for (name, tensor) in apart {
        reader.add(name, Param::from_tensor(tensor), Place::Apart)?;
    }
    reader.initializers(graph)?;
    reader.sparse_initializers(graph)?;
    let layers = reader.layers(graph)?;
    let inputs = reader.inputs(graph)?;
    let outputs: Vec<String> = graph.output.iter().map(|output| output.name.clone()).collect();
    check_order(&inputs, &layers, &outputs, &reader.params)?;
    let Reader { params, places, external, opset, .. } = reader;
    let source = OnnxSource { bytes, places, original: params.clone(), ir_version: proto.ir_version, external };
    Ok(Model {
        graph: Graph { inputs, outputs, layers },
        params,
        opset,
        masks: MaskTable::default(),
        source: Some(Arc::new(source)),
    })
}

struct Reader<'a> {
    folder: Option<&'a Path>,
    opset: i64,
    params: ParamTable,
    places: HashMap<String, Place>,
    external: HashMap<usize, Bytes>,
}

impl Reader<'_> {
    fn initializers(&mut self, graph: &GraphProto) -> Result<()> {
        for (index, tensor) in graph.initializer.iter().enumerate() {
            let place = || format!("initializer {:?}", tensor.name);
            let outside = self.external_bytes(tensor).map_err(|e| e.at(place()))?;
            let param = read_tensor(tensor, outside.as_ref()).map_err(|e| e.at(place()))?;
            if let Some(bytes) = outside {
                self.external.insert(index, bytes);
            }
            self.add(tensor.name.clone(), param, Place::Initializer(index))?;
        }
        Ok(())
    }

    fn sparse_initializers(&mut self, graph: &GraphProto) -> Result<()> {
        let mut room = Room::default();
        for (index, sparse) in graph.sparse_initializer.iter().enumerate() {
            let values =
                sparse.values.as_ref().ok_or_else(|| Error::format(format!("sparse initializer {index} has no values")))?;
            let tensor = spread(sparse, values, &mut room).map_err(|e| e.at(format!("sparse initializer {:?}", values.name)))?;
            self.add(values.name.clone(), Param::from_tensor(tensor), Place::Apart)?;
        }
        Ok(())
    }

    fn add(&mut self, name: String, param: Param, place: Place) -> Result<()> {
        if name.is_empty() {
            return Err(Error::format("a constant tensor has no name"));
        }
        if !self.params.insert(name.clone(), param) {
            return Err(Error::format(format!("{name:?} is defined twice")));
        }
        self.places.insert(name, place);
        Ok(())
    }

    /// The bytes of a tensor that lies in another file inside the model's folder.
    fn external_bytes(&self, tensor: &TensorProto) -> Result<Option<Bytes>> {
        if tensor.data_location != 1 {
            return Ok(None);
        }
        let entry = |key: &str| tensor.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
        let number = |key: &str| -> Result<Option<usize>> {
            entry(key)
                .map(|v| v.parse().map_err(|_| Error::format(format!("external data: {key} {v:?} is not a number"))))
                .transpose()
        };
        let location = entry("location").ok_or_else(|| Error::format("external data without a location"))?;
        let folder = self.folder.ok_or_else(|| Error::unsupported("external data, but the model is not in a folder"))?;
        let inside = Path::new(location).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !inside {
            return Err(Error::format(format!("external data at {location:?} lies outside the model's folder; refused")));
        }
        let path = folder.join(location);
        let real = path.canonicalize().map_err(|e| Error::io(&path, e))?;
        let home = folder.join(".").canonicalize().map_err(|e| Error::io(folder, e))?;
        if !real.starts_with(&home) {
            return Err(Error::format(format!("external data at {location:?} leads outside the model's folder; refused")));
        }
        let bytes = Bytes::from(std::fs::read(&real).map_err(|e| Error::io(&real, e))?);
        let offset = number("offset")?.unwrap_or(0);
        let length = number("length")?.unwrap_or(bytes.len().saturating_sub(offset));
        match offset.checked_add(length) {
            Some(end) if end <= bytes.len() => Ok(Some(bytes.slice(offset..end))),
            _ => Err(Error::format(format!("external data at {location:?}: {length} bytes at {offset} of {}", bytes.len()))),
        }
    }

    fn layers(&mut self, graph: &GraphProto) -> Result<Vec<Layer>> {
        let mut names = HashSet::new();
        let mut layers = Vec::with_capacity(graph.node.len());
        for (index, node) in graph.node.iter().enumerate() {
            let name = unique_name(node, index, &mut names);
            if let Some((param, place)) = self.constant(node, index).map_err(|e| e.at(format!("node {name:?}")))? {
                self.add(node.output[0].clone(), param, place)?;
                continue;
            }
            let op = self.op(node).map_err(|e| e.at(format!("node {name:?} ({})", node.op_type)))?;
            layers.push(Layer { name, op, inputs: node.input.clone(), outputs: node.output.clone() });
        }
        Ok(layers)
    }

    /// A node that only holds numbers is a parameter, not a layer.
    fn constant(&self, node: &NodeProto, index: usize) -> Result<Option<(Param, Place)>> {
        if !is_standard(node) || node.output.len() != 1 {
            return Ok(None);
        }
        match node.op_type.as_str() {
            "Constant" => {
                let attribute = node.attribute.first().ok_or_else(|| Error::format("a Constant without a value"))?;
                Ok(constant_param(attribute)?.map(|param| (param, Place::ConstantNode(index))))
            }
            "ConstantOfShape" => {
                let shape = node.input.first().and_then(|name| self.params.i64(name));
                let Some(shape) = shape else { return Ok(None) };
                let fill = node.attribute.iter().find(|a| a.name == "value").and_then(|a| a.t.as_ref());
                let fill = fill.map(|t| read_tensor(t, None)).transpose()?;
                Ok(filled(&shape.data, fill)?.map(|param| (param, Place::FilledNode(index))))
            }
            _ => Ok(None),
        }
    }

    fn op(&self, node: &NodeProto) -> Result<Op> {
        if !is_standard(node) {
            return Ok(Op::Unknown(format!("{}.{}", node.domain, node.op_type)));
        }
        let mut attributes = Attributes::new(self.opset);
        for attribute in &node.attribute {
            if let Some(value) = read_attribute(attribute)? {
                attributes.insert(attribute.name.clone(), value);
            }
        }
        Op::parse(&node.op_type, &attributes)
    }

    fn inputs(&self, graph: &GraphProto) -> Result<Vec<GraphInput>> {
        let free = graph.input.iter().filter(|input| self.params.get(&input.name).is_none());
        free.map(read_input).collect()
    }
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

/// Every value is written once, before it is read.
fn check_order(inputs: &[GraphInput], layers: &[Layer], outputs: &[String], params: &ParamTable) -> Result<()> {
    let mut known: HashSet<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
    known.extend(params.iter().map(|(name, _)| name));
    let missing = |name: &str, known: &HashSet<&str>| !name.is_empty() && !known.contains(name);
    for layer in layers {
        // Nodes with inner graphs may read outer values in ways that are not seen here; they pass through.
        if let Some(name) = layer.inputs.iter().find(|name| missing(name, &known)) {
            return Err(Error::format(format!("node {:?} reads {name:?}, which nothing before it writes", layer.name)));
        }
        for output in layer.outputs.iter().filter(|name| !name.is_empty()) {
            if !known.insert(output) {
                return Err(Error::format(format!("node {:?} writes {output:?}, which exists already", layer.name)));
            }
        }
    }
    match outputs.iter().find(|name| missing(name, &known)) {
        Some(name) => Err(Error::format(format!("the graph's output {name:?} is written by no node"))),
        None if outputs.is_empty() => Err(Error::format("the graph has no outputs")),
        None => Ok(()),
    }
}

fn read_input(info: &ValueInfoProto) -> Result<GraphInput> {
    let tensor = info.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    let shape = tensor.and_then(|t| t.shape.as_ref());
    let axes = shape.map_or(&[][..], |shape| &shape.dim).iter().map(|dim| match (dim.dim_value, &dim.dim_param) {
        (Some(value), _) if value > 0 => Ok(Dim::Fixed(value as usize)),
        (Some(value), _) if value < 0 => Err(Error::format(format!("input {:?} has a dimension of {value}", info.name))),
        (_, name) => Ok(Dim::Free(name.clone().unwrap_or_default())),
    });
    let element = match tensor.map_or(0, |t| t.elem_type) {
        // A file that leaves the type out means floats, as all exporters write them.
        0 | data_type::FLOAT => ElementType::Float32,
        data_type::UINT8 => ElementType::Uint8,
        other => ElementType::Other(data_type::name(other)),
    };
    Ok(GraphInput { name: info.name.clone(), element, shape: axes.collect::<Result<_>>()? })
}

fn read_attribute(attribute: &AttributeProto) -> Result<Option<Attribute>> {
    Ok(Some(match attribute.r#type {
        1 => Attribute::Float(attribute.f),
        2 => Attribute::Int(attribute.i),
        3 => Attribute::Text(String::from_utf8_lossy(&attribute.s).into_owned()),
        4 => match attribute.t.as_ref().map(|t| read_tensor(t, None)).transpose()? {
            Some(Param { data: ParamData::Value(value), .. }) => Attribute::Tensor(value),
            _ => return Ok(None),
        },
        6 => Attribute::Floats(attribute.floats.clone()),
        7 => Attribute::Ints(attribute.ints.clone()),
        _ => return Ok(None),
    }))
}

/// The number(s) of a Constant node, in any of its spellings; `None` for text and sparse tensors.
fn constant_param(attribute: &AttributeProto) -> Result<Option<Param>> {
    let value = match attribute.name.as_str() {
        "value" => {
            let tensor = attribute.t.as_ref().ok_or_else(|| Error::format("a Constant without a tensor"))?;
            return read_tensor(tensor, None).map(Some);
        }
        "value_float" => Value::F32(Array::new(vec![], vec![attribute.f])),
        "value_int" => Value::I64(Array::new(vec![], vec![attribute.i])),
        "value_floats" => Value::F32(Array::vector(attribute.floats.clone())),
        "value_ints" => Value::I64(Array::vector(attribute.ints.clone())),
        _ => return Ok(None),
    };
    Ok(Some(Param { shape: value.shape().to_vec(), data: ParamData::Value(Arc::new(value)) }))
}

/// The tensor of a ConstantOfShape; `None` where its type is opaque or it is too large to spell out.
fn filled(shape: &[i64], fill: Option<Param>) -> Result<Option<Param>> {
    let shape = read_dims(shape)?;
    if element_count(&shape)? > LARGEST_FILLED {
        return Err(Error::format(format!("a ConstantOfShape of shape {shape:?} is larger than a gigabyte of numbers")));
    }
    let fill = match &fill {
        Some(Param { data: ParamData::Opaque(_), .. }) => return Ok(None),
        other => other.as_ref().and_then(Param::value),
    };
    let value = Value::filled(shape.clone(), fill.map(|value| &**value))?;
    Ok(Some(Param { shape, data: ParamData::Value(Arc::new(value)) }))
}

/// The whole of a sparse tensor; takes its elements off `room`.
fn spread(sparse: &SparseTensorProto, values: &TensorProto, room: &mut Room) -> Result<Tensor> {
    let shape = read_dims(&sparse.dims)?;
    let count = element_count(&shape)?;
    room.take(count)?;
    let numbers = |tensor: &TensorProto| read_tensor(tensor, None);
    let (values, indices) = (numbers(values)?, numbers(sparse.indices.as_ref().ok_or_else(|| Error::format("no indices"))?)?);
    let values = values.f32().ok_or_else(|| Error::unsupported("values that are no 32-bit floats"))?;
    let Some(Value::I64(indices)) = indices.value().map(|value| &**value) else {
        return Err(Error::unsupported("indices that are no integers"));
    };
    let places: Vec<usize> = match indices.shape[..] {
        [_] => indices.data.iter().map(|&at| usize::try_from(at).unwrap_or(usize::MAX)).collect(),
        [_, rank] if rank > 0 && rank == shape.len() => indices.data.chunks_exact(rank).map(|at| flat(at, &shape)).collect(),
        _ => return Err(Error::format(format!("indices of shape {:?} for a tensor of shape {shape:?}", indices.shape))),
    };
    if places.len() != values.len() {
        return Err(Error::format(format!("{} values and {} indices", values.len(), places.len())));
    }
    if places.last().is_some_and(|&last| last >= count) || !places.is_sorted_by(|a, b| a < b) {
        return Err(Error::format(format!("indices that do not ascend within the {count} elements of shape {shape:?}")));
    }
    let mut data = vec![0.0; count];
    places.iter().zip(&values.data).for_each(|(&at, &value)| data[at] = value);
    Ok(Tensor::new(shape, data))
}

/// The place in the flattened tensor; beyond its end where an index is beyond its dimension's.
fn flat(at: &[i64], shape: &[usize]) -> usize {
    at.iter().zip(shape).fold(0, |flat: usize, (&at, &side)| match usize::try_from(at) {
        Ok(at) if at < side => flat.saturating_mul(side).saturating_add(at),
        _ => usize::MAX,
    })
}

fn read_dims(dims: &[i64]) -> Result<Vec<usize>> {
    let positive = |&dim: &i64| usize::try_from(dim).map_err(|_| Error::format(format!("dimensions {dims:?} are negative")));
    dims.iter().map(positive).collect()
}

/// Numbers from raw or typed data, or from `outside` where the data lie in another file.
fn read_tensor(tensor: &TensorProto, outside: Option<&Bytes>) -> Result<Param> {
    let shape = read_dims(&tensor.dims)?;
    let count = element_count(&shape)?;
    let raw = match outside {
        Some(bytes) => Some(bytes),
        None if tensor.data_location == 1 => return Err(Error::unsupported("external data inside a node")),
        None => (!tensor.raw_data.is_empty()).then_some(&tensor.raw_data),
    };
    let data = match tensor.data_type {
        data_type::FLOAT => floats(&shape, numbers(raw, f32::from_le_bytes, &tensor.float_data, |&v| v)?, count)?,
        data_type::DOUBLE => {
            // Kept as f64 in the file; only shapes and scales are ever stored this way in vision models.
            numbers(raw, f64::from_le_bytes, &tensor.double_data, |&v| v)?;
            return Ok(Param { shape, data: ParamData::Opaque("float64") });
        }
        data_type::INT64 => ints(&shape, numbers(raw, i64::from_le_bytes, &tensor.int64_data, |&v| v)?, count)?,
        data_type::INT32 => {
            let values = numbers(raw, i32::from_le_bytes, &tensor.int32_data, |&v| v)?;
            ints(&shape, values.into_iter().map(i64::from).collect(), count)?
        }
        data_type::BOOL => {
            let values = numbers(raw, u8::from_le_bytes, &tensor.int32_data, |&v| v as u8)?;
            ints(&shape, values.into_iter().map(i64::from).collect(), count)?
        }
        other => return Ok(Param { shape, data: ParamData::Opaque(data_type::name(other)) }),
    };
    Ok(Param { shape, data: ParamData::Value(Arc::new(data)) })
}

fn numbers<T, S, const BYTES: usize>(
    raw: Option<&Bytes>,
    decode: impl Fn([u8; BYTES]) -> T,
    typed: &[S],
    convert: impl Fn(&S) -> T,
) -> Result<Vec<T>> {
    let Some(raw) = raw else { return Ok(typed.iter().map(convert).collect()) };
    let (chunks, rest) = raw.as_chunks::<BYTES>();
    if !rest.is_empty() {
        return Err(Error::format(format!("{} bytes of data are no whole number of {BYTES}-byte elements", raw.len())));
    }
    Ok(chunks.iter().map(|&chunk| decode(chunk)).collect())
}

fn floats(shape: &[usize], data: Vec<f32>, count: usize) -> Result<Value> {
    check_count(shape, data.len(), count)?;
    Ok(Value::F32(Tensor::new(shape.to_vec(), data)))
}

fn ints(shape: &[usize], data: Vec<i64>, count: usize) -> Result<Value> {
    check_count(shape, data.len(), count)?;
    Ok(Value::I64(Array::new(shape.to_vec(), data)))
}

fn check_count(shape: &[usize], found: usize, count: usize) -> Result<()> {
    if found != count {
        return Err(Error::format(format!("shape {shape:?} needs {count} elements, the file holds {found}")));
    }
    Ok(())
}
