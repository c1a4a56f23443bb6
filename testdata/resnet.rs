//! The network of several tests.

use super::noise;
use resprout::architectures::{Shape, build};
use resprout::model::Model;

/// ResNet-20 with the numbers that the scripts in gen/ give it.
pub fn resnet() -> Model {
    let mut model = build("resnet-20", &Shape { classes: None, image: None }, "kaiming-in", 0).unwrap();
    let names: Vec<String> = model.params.iter().filter(|(_, p)| p.f32().is_some()).map(|(name, _)| name.to_string()).collect();
    for name in names {
        let tensor = model.params.f32_mut(&name).unwrap();
        tensor.data = noise::parameter(&name, &tensor.shape);
    }
    model
}
