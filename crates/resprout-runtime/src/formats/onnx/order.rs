//! Sorts layers topologically, including what graphs within nodes read.

use super::proto::{AttributeProto, GraphProto, NodeProto};
use crate::error::{Error, Result};
use crate::model::Layer;
use std::collections::{BTreeSet, HashMap, HashSet};

/// The graphs within a node: branches and bodies.
pub(super) fn inner_graphs(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|attribute: &AttributeProto| attribute.g.iter().chain(&attribute.graphs))
}

/// The outer values that graphs within a node read, in order, each once.
pub(super) fn captured(node: &NodeProto) -> Vec<String> {
    let mut found = Vec::new();
    inner_graphs(node).for_each(|graph| collect(graph, &mut found));
    let mut seen: HashSet<String> = node.input.iter().cloned().collect();
    found.retain(|name| seen.insert(name.clone()));
    found
}

fn collect(graph: &GraphProto, found: &mut Vec<String>) {
    let sparse = graph.sparse_initializer.iter().filter_map(|sparse| Some(&sparse.values.as_ref()?.name));
    let own =
        graph.input.iter().map(|input| &input.name).chain(graph.initializer.iter().map(|tensor| &tensor.name)).chain(sparse);
    let made = graph.node.iter().flat_map(|node| &node.output);
    let known: HashSet<&String> = own.chain(made).collect();
    let mut read = Vec::new();
    for node in &graph.node {
        read.extend(node.input.iter().cloned());
        inner_graphs(node).for_each(|graph| collect(graph, &mut read));
    }
    read.extend(graph.output.iter().map(|output| output.name.clone()));
    found.extend(read.into_iter().filter(|name| !name.is_empty() && !known.contains(name)));
}

/// Sorts layers so that each comes behind those that it reads. A valid order is kept. `known` are inputs and constants.
pub(super) fn sort(layers: Vec<Layer>, known: &HashSet<&str>, outputs: &[String]) -> Result<Vec<Layer>> {
    let writers = writers(&layers, known)?;
    check_written(&layers, &writers, known, outputs)?;
    let order = order(&layers, &writers)?;
    if order.is_sorted() {
        return Ok(layers);
    }
    let mut slots: Vec<Option<Layer>> = layers.into_iter().map(Some).collect();
    Ok(order.into_iter().filter_map(|index| slots[index].take()).collect())
}

/// The layer that writes each value.
fn writers<'l>(layers: &'l [Layer], known: &HashSet<&str>) -> Result<HashMap<&'l str, usize>> {
    let mut writers = HashMap::new();
    for (index, layer) in layers.iter().enumerate() {
        for output in layer.outputs.iter().filter(|name| !name.is_empty()) {
            if known.contains(output.as_str()) || writers.insert(output.as_str(), index).is_some() {
                return Err(Error::format(format!("node {:?} writes {output:?}, which exists already", layer.name)));
            }
        }
    }
    Ok(writers)
}

fn check_written(layers: &[Layer], writers: &HashMap<&str, usize>, known: &HashSet<&str>, outputs: &[String]) -> Result<()> {
    let missing = |name: &String| !name.is_empty() && !known.contains(name.as_str()) && !writers.contains_key(name.as_str());
    for layer in layers {
        if let Some(name) = layer.inputs.iter().find(|name| missing(name)) {
            return Err(Error::format(format!("node {:?} reads {name:?}, which nothing writes", layer.name)));
        }
    }
    match outputs.iter().find(|name| missing(name)) {
        Some(name) => Err(Error::format(format!("the graph's output {name:?} is written by no node"))),
        None if outputs.is_empty() => Err(Error::format("the graph has no outputs")),
        None => Ok(()),
    }
}

/// Always takes the first of the layers that can be computed next, so that a valid order is kept.
fn order(layers: &[Layer], writers: &HashMap<&str, usize>) -> Result<Vec<usize>> {
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); layers.len()];
    let mut waits: Vec<usize> = vec![0; layers.len()];
    for (index, layer) in layers.iter().enumerate() {
        for &writer in layer.inputs.iter().filter_map(|name| writers.get(name.as_str())) {
            readers[writer].push(index);
            waits[index] += 1;
        }
    }
    let mut ready: BTreeSet<usize> = (0..layers.len()).filter(|&index| waits[index] == 0).collect();
    let mut order = Vec::with_capacity(layers.len());
    while let Some(index) = ready.pop_first() {
        order.push(index);
        for &reader in &readers[index] {
            waits[reader] -= 1;
            if waits[reader] == 0 {
                ready.insert(reader);
            }
        }
    }
    match waits.iter().position(|&waiting| waiting > 0) {
        Some(index) => Err(Error::format(format!(
            "node {:?} is part of a cycle: it reads what follows from its own output",
            layers[index].name
        ))),
        None => Ok(order),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Op;

    fn layer(name: &str, inputs: &[&str]) -> Layer {
        let inputs = inputs.iter().map(|input| input.to_string()).collect();
        Layer { name: name.into(), op: Op::Identity, inputs, outputs: vec![name.to_string()] }
    }

    fn sorted(layers: Vec<Layer>) -> Result<Vec<String>> {
        let sorted = sort(layers, &HashSet::from(["x"]), &["c".to_string()])?;
        Ok(sorted.into_iter().map(|layer| layer.name).collect())
    }

    #[test]
    fn layers_come_behind_those_they_read_and_a_valid_order_is_kept() {
        let mixed = vec![layer("c", &["b", "a"]), layer("b", &["a"]), layer("a", &["x"])];
        assert_eq!(sorted(mixed).unwrap(), ["a", "b", "c"]);
        let fine = vec![layer("a", &["x"]), layer("d", &["x"]), layer("b", &["d"]), layer("c", &["a"])];
        assert_eq!(sorted(fine).unwrap(), ["a", "d", "b", "c"]);
    }

    #[test]
    fn cycles_and_unwritten_values_are_named() {
        let cycle = vec![layer("a", &["b"]), layer("b", &["a"]), layer("c", &["x"])];
        assert!(sorted(cycle).unwrap_err().to_string().contains("\"a\" is part of a cycle"));
        let nobody = vec![layer("c", &["y"])];
        assert!(sorted(nobody).unwrap_err().to_string().contains("reads \"y\", which nothing writes"));
        let twice = vec![layer("c", &["x"]), layer("c", &["x"])];
        assert!(sorted(twice).unwrap_err().to_string().contains("exists already"));
    }
}
