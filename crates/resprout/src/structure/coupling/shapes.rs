//! The shape of every value of a network.

use crate::model::possible_images;
use crate::model::{Dim, Model};
use crate::ops::{Fact, Op, fold, output_shape};
use crate::tensor::element_count;
use resprout_kernels::Isa;
use std::collections::HashMap;
use std::sync::Arc;

/// The most elements of a constant that is folded.
const FOLDED: usize = 4096;

/// The shape of every value, for the fixed input shape or one that fits most layers. Values after a layer that does not fit
/// have no shape.
pub(super) fn infer(model: &Model) -> HashMap<&str, Vec<usize>> {
    // Two images, so that the batch is not taken for an axis of length 1.
    let batches = match model.graph.inputs.first().and_then(|input| input.shape.first()) {
        Some(Dim::Fixed(batch)) => vec![*batch],
        _ => vec![2, 1],
    };
    let mut best: Option<(usize, HashMap<&str, Vec<usize>>)> = None;
    for image in possible_images(model) {
        for batch in &batches {
            let (misfits, shapes) = attempt(model, &[&[*batch], &image[..]].concat());
            if best.as_ref().is_none_or(|(fewest, _)| misfits < *fewest) {
                best = Some((misfits, shapes));
            }
            if misfits == 0 {
                return best.map_or_else(HashMap::new, |(_, shapes)| shapes);
            }
        }
    }
    best.map_or_else(HashMap::new, |(_, shapes)| shapes)
}

/// The number of layers that do not fit, and all known shapes.
fn attempt<'m>(model: &'m Model, input: &[usize]) -> (usize, HashMap<&'m str, Vec<usize>>) {
    let mut facts: HashMap<&str, Fact> = HashMap::new();
    facts.extend(model.params.iter().filter_map(|(name, param)| Some((name, Fact::constant(param.numbers()?.clone())))));
    facts.extend(model.graph.inputs.iter().map(|one| (one.name.as_str(), Fact::of_shape(input.to_vec()))));
    let mut misfits = 0;
    for layer in &model.graph.layers {
        let Some(output) = layer.outputs.first() else { continue };
        let known = layer.inputs.iter().map(|name| match name.as_str() {
            "" => Some(None),
            name => facts.get(name).cloned().map(Some),
        });
        let Some(inputs) = known.collect::<Option<Vec<Option<Fact>>>>() else { continue };
        match fact(&layer.op, &inputs) {
            Some(fact) => drop(facts.insert(output, fact)),
            None => misfits += 1,
        }
    }
    (misfits, facts.into_iter().map(|(name, fact)| (name, fact.shape)).collect())
}

fn fact(op: &Op, inputs: &[Option<Fact>]) -> Option<Fact> {
    let small = |fact: &Fact| element_count(&fact.shape).is_ok_and(|count| count <= FOLDED);
    if (matches!(op, Op::Shape { .. }) || inputs.iter().flatten().all(small))
        && let Some(value) = fold(op, inputs, Isa::best()).ok()?
    {
        return Some(Fact::constant(Arc::new(value)));
    }
    match op {
        // Most unknown functions keep the shape. Where one does not, later layers do not fit.
        Op::Unknown(_) => Some(Fact::of_shape(inputs.first()?.as_ref()?.shape.clone())),
        _ => output_shape(op, inputs).ok().map(Fact::of_shape),
    }
}
