//! Inlines the functions of a model: the nodes of a function replace every node that calls it.

use super::field;
use super::proto::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetId};
use super::splice::{Edit, rewrite};
use crate::error::{Error, Result};
use prost::Message;
use prost::bytes::Bytes;
use std::collections::{HashMap, HashSet};

/// The most nodes of an inlined graph. Functions that call others twice could make any number.
const MOST_NODES: usize = 1 << 20;

/// The deepest nesting of functions.
const DEEPEST: usize = 64;

/// Domain, name and overload.
type Key<'m> = (&'m str, &'m str, &'m str);

/// The model's bytes with all functions inlined; `None` if there are no calls. A call of a function with another version of
/// the standard operators than the model stays an unknown node.
pub(super) fn inline(bytes: &Bytes, model: &ModelProto) -> Result<Option<Vec<u8>>> {
    let Some(graph) = model.graph.as_ref() else { return Ok(None) };
    let own = standard_version(&model.opset_import);
    let suitable = model.functions.iter().filter(|f| standard_version(&f.opset_import).is_none_or(|v| Some(v) == own));
    let functions: HashMap<Key, &FunctionProto> =
        suitable.map(|f| ((f.domain.as_str(), f.name.as_str(), f.overload.as_str()), f)).collect();
    if !graph.node.iter().any(|node| functions.contains_key(&key(node))) {
        return Ok(None);
    }
    let mut inliner = Inliner { functions, taken: names(graph), calls: 0, stack: Vec::new(), nodes: 0 };
    let mut replaced: Vec<Option<Vec<NodeProto>>> = Vec::with_capacity(graph.node.len());
    for node in &graph.node {
        let called = inliner.functions.contains_key(&key(node));
        replaced.push(if called { Some(inliner.expand(node)?) } else { None });
    }
    rewrite(bytes, |number, _, content| match number {
        field::MODEL_GRAPH => rewrite(content, |number, index, _| {
            let nodes = if number == field::GRAPH_NODE { replaced.get_mut(index).and_then(Option::take) } else { None };
            Ok(nodes.map_or(Edit::Keep, |nodes| Edit::Several(nodes.iter().map(NodeProto::encode_to_vec).collect())))
        })
        .map(Edit::Replace),
        _ => Ok(Edit::Keep),
    })
    .map(|inlined| Some(inlined.into_vec()))
}

fn standard_version(sets: &[OperatorSetId]) -> Option<i64> {
    sets.iter().find(|set| set.domain.is_empty() || set.domain == "ai.onnx").map(|set| set.version)
}

fn key(node: &NodeProto) -> Key<'_> {
    (&node.domain, &node.op_type, &node.overload)
}

/// The names of all values of the graph.
fn names(graph: &GraphProto) -> HashSet<String> {
    let mut names: HashSet<String> = graph.initializer.iter().map(|tensor| tensor.name.clone()).collect();
    names.extend(graph.input.iter().map(|input| input.name.clone()));
    names.extend(graph.node.iter().flat_map(|node| node.output.iter().cloned()));
    names
}

struct Inliner<'m> {
    functions: HashMap<Key<'m>, &'m FunctionProto>,
    taken: HashSet<String>,
    calls: usize,
    /// The functions that are being inlined.
    stack: Vec<Key<'m>>,
    nodes: usize,
}

impl<'m> Inliner<'m> {
    /// The nodes that replace a call, with the caller's names of inputs and outputs.
    fn expand(&mut self, call: &NodeProto) -> Result<Vec<NodeProto>> {
        let Some(function) = self.function(call) else { return Ok(vec![call.clone()]) };
        let key = (function.domain.as_str(), function.name.as_str(), function.overload.as_str());
        if self.stack.contains(&key) {
            return Err(Error::format(format!("function {:?} calls itself", function.name)));
        }
        if self.stack.len() == DEEPEST {
            return Err(Error::format(format!("function {:?}: more than {DEEPEST} functions within each other", function.name)));
        }
        self.stack.push(key);
        self.calls += 1;
        let mut renamed = boundary(call, function);
        let attributes = attributes(call, function);
        let mut nodes = handed_on(call, function);
        for node in &function.node {
            let node = self.instance(node, call, &mut renamed, &attributes);
            nodes.extend(self.expand(&node)?);
            self.nodes += 1;
            if self.nodes > MOST_NODES {
                return Err(Error::format(format!("functions that stand for more than {MOST_NODES} nodes")));
            }
        }
        self.stack.pop();
        Ok(nodes)
    }

    fn function(&self, call: &NodeProto) -> Option<&'m FunctionProto> {
        self.functions.get(&key(call)).copied()
    }

    /// A node of the function in the caller's graph.
    fn instance(
        &mut self,
        node: &NodeProto,
        call: &NodeProto,
        renamed: &mut HashMap<String, String>,
        attributes: &HashMap<&str, &AttributeProto>,
    ) -> NodeProto {
        let prefix =
            format!("{}/", if call.name.is_empty() { format!("{}_{}", call.op_type, self.calls) } else { call.name.clone() });
        let outputs: Vec<String> = node.output.iter().map(|name| self.rename(name, &prefix, renamed)).collect();
        let mut attribute = Vec::with_capacity(node.attribute.len());
        for old in &node.attribute {
            if old.ref_attr_name.is_empty() {
                attribute.push(old.clone());
            } else if let Some(value) = attributes.get(old.ref_attr_name.as_str()) {
                // Without a value, the attribute has its default.
                attribute.push(AttributeProto { name: old.name.clone(), ref_attr_name: String::new(), ..(*value).clone() });
            }
        }
        let mut instance = NodeProto {
            input: node.input.iter().map(|name| self.rename(name, &prefix, renamed)).collect(),
            output: outputs,
            name: format!("{prefix}{}", if node.name.is_empty() { &node.op_type } else { &node.name }),
            attribute,
            ..node.clone()
        };
        instance.attribute.iter_mut().flat_map(|a| a.g.iter_mut().chain(&mut a.graphs)).for_each(|g| rename_graph(g, renamed));
        instance
    }

    /// The name of a value of the function in the caller's graph.
    fn rename(&mut self, name: &str, prefix: &str, renamed: &mut HashMap<String, String>) -> String {
        if name.is_empty() {
            return String::new();
        }
        if let Some(known) = renamed.get(name) {
            return known.clone();
        }
        let mut fresh = format!("{prefix}{name}");
        while !self.taken.insert(fresh.clone()) {
            fresh.push('_');
        }
        renamed.insert(name.to_string(), fresh.clone());
        fresh
    }
}

/// The caller's names of inputs and outputs. An output that the caller does not use is an inner value.
fn boundary(call: &NodeProto, function: &FunctionProto) -> HashMap<String, String> {
    let given = |names: &[String], index: usize| names.get(index).cloned().unwrap_or_default();
    let outputs = function.output.iter().enumerate().map(|(i, name)| (name.clone(), given(&call.output, i)));
    let inputs = function.input.iter().enumerate().map(|(i, name)| (name.clone(), given(&call.input, i)));
    // A value that is both has the name of the input.
    outputs.filter(|(_, outer)| !outer.is_empty()).chain(inputs).collect()
}

/// Identity nodes for inputs that the function returns as outputs.
fn handed_on(call: &NodeProto, function: &FunctionProto) -> Vec<NodeProto> {
    let input = |name: &String| call.input.get(function.input.iter().position(|input| input == name)?);
    let pairs = function.output.iter().zip(&call.output).filter(|(_, outer)| !outer.is_empty());
    let identity = |from: &String, to: &String| NodeProto {
        op_type: "Identity".into(),
        name: to.clone(),
        input: vec![from.clone()],
        output: vec![to.clone()],
        ..Default::default()
    };
    pairs.filter_map(|(name, outer)| Some(identity(input(name)?, outer))).collect()
}

/// The caller's attributes, and defaults for those it does not set.
fn attributes<'a>(call: &'a NodeProto, function: &'a FunctionProto) -> HashMap<&'a str, &'a AttributeProto> {
    function.attribute_proto.iter().chain(&call.attribute).map(|attribute| (attribute.name.as_str(), attribute)).collect()
}

/// Renames values of the function that a graph within one of its nodes reads.
fn rename_graph(graph: &mut GraphProto, renamed: &HashMap<String, String>) {
    let own: HashSet<String> = names(graph);
    let outer = |name: &mut String| {
        if let Some(new) = renamed.get(name.as_str()).filter(|_| !own.contains(name.as_str())) {
            name.clone_from(new);
        }
    };
    for node in &mut graph.node {
        node.input.iter_mut().for_each(outer);
        node.attribute
            .iter_mut()
            .flat_map(|a| a.g.iter_mut().chain(&mut a.graphs))
            .for_each(|graph| rename_graph(graph, renamed));
    }
    graph.output.iter_mut().for_each(|output| outer(&mut output.name));
}
