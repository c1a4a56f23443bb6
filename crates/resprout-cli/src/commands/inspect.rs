//! `resprout inspect`: a model's layers, what can be pruned, what the forward cannot compute.

use super::{check_json_target, file_info, read_model, write_json};
use crate::args::InspectArgs;
use crate::render::text;
use crate::reports::inspect::Inspection;
use resprout::Result;
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
    let guessed = known.is_none();
    let image = known.or_else(|| default_image(model));
    let (macs, forward_error) = match image.as_ref().map(|image| resprout::forward::layer_macs(model, image)).transpose() {
        Ok(macs) => (macs, None),
        Err(error) if guessed => (None, Some(format!("{error}; the file leaves the image's size open: give --input-shape"))),
        Err(error) => (None, Some(error.to_string())),
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

/// The image that operations are counted for where the file leaves its size open: the first common one that it can compute.
fn default_image(model: &Model) -> Option<Vec<usize>> {
    let rank = model.graph.inputs.first()?.shape.len();
    let possible = resprout::model::possible_images(model);
    let fits = |image: &&Vec<usize>| resprout::forward::layer_macs(model, image).is_ok();
    possible.iter().find(fits).or(possible.first()).filter(|_| rank == 4).cloned()
}
