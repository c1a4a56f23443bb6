//! `resprout inspect`: a model's layers, what can be pruned, what the forward cannot compute.

use super::{check_json_target, file_info, read_model, write_json};
use crate::args::InspectArgs;
use crate::render::text;
use crate::reports::inspect::Inspection;
use resprout::Result;
use resprout::forward::LayerMacs;
use resprout::model::{Dim, Model, PrunableRule};
use resprout::report::{self, SCHEMA_VERSION};
use std::collections::BTreeMap;

pub fn run(args: &InspectArgs) -> anyhow::Result<()> {
    check_json_target(args.json.as_deref())?;
    let model = read_model(&args.model, &args.network)?;
    let inspection = inspect(args, &model)?;
    if write_json(&inspection, args.json.as_deref())? {
        text::inspection(&inspection);
    }
    Ok(())
}

fn inspect(args: &InspectArgs, model: &Model) -> Result<Inspection> {
    let rule = PrunableRule { ignore: vec![], include_grouped: args.include_grouped };
    let (prunable, left_dense) = model.prunable(&rule)?;
    let layout = model.graph.image_layout();
    let given = args.input_shape.as_ref().map(|shape| match shape[..] {
        [c, h, w] => layout.shape([c, h, w]).to_vec(),
        _ => shape.clone(),
    });
    let known = given.or_else(|| resprout::model::fixed_image(model));
    let (image, macs, forward_error) = match known {
        Some(image) => {
            let (macs, error) = counted(model, &image);
            (Some(image), macs, error)
        }
        None => counted_on_a_common_image(model),
    };
    let layers = report::layer_rows(model, &prunable, macs.as_ref())?;
    let mut operations = BTreeMap::new();
    model.graph.layers.iter().for_each(|layer| *operations.entry(layer.op.name().to_string()).or_insert(0) += 1);
    let dim = |dim: &Dim| match dim {
        Dim::Fixed(dim) => dim.to_string(),
        Dim::Free(name) if name.is_empty() => "?".into(),
        Dim::Free(name) => name.clone(),
    };
    Ok(Inspection {
        schema_version: SCHEMA_VERSION,
        model: file_info(&args.model)?,
        inputs: model.graph.inputs.iter().map(|input| (input.name.clone(), input.shape.iter().map(dim).collect())).collect(),
        input_types: model.graph.inputs.iter().map(|input| input.element.to_string()).collect(),
        outputs: model.graph.outputs.clone(),
        operations,
        sparsity: report::sparsity_info(model, &layers, None, macs.as_ref()),
        layers,
        left_dense,
        forward_error,
        image,
    })
}

/// The operations of an image, or why they cannot be counted.
fn counted(model: &Model, image: &[usize]) -> (Option<LayerMacs>, Option<String>) {
    match resprout::forward::layer_macs(model, image) {
        Ok(macs) => (Some(macs), None),
        Err(error) => (None, Some(error.to_string())),
    }
}

/// The same where the file leaves the image's size open: of the first common one that it can compute, or of the first one.
fn counted_on_a_common_image(model: &Model) -> (Option<Vec<usize>>, Option<LayerMacs>, Option<String>) {
    let mut first = (None, None, None);
    if model.graph.inputs.first().is_none_or(|input| input.shape.len() != 4) {
        return first;
    }
    for image in resprout::model::possible_images(model) {
        match counted(model, &image) {
            (Some(macs), _) => return (Some(image), Some(macs), None),
            (None, error) if first.0.is_none() => {
                let hint = "the file leaves the image's size open: give --input-shape";
                first = (Some(image), None, error.map(|error| format!("{error}; {hint}")));
            }
            _ => {}
        }
    }
    first
}
