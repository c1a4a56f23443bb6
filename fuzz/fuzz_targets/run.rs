//! ONNX files that are small enough to run: an error, or as many outputs for two images as the graph names, and channels that can be
//! cut out without a change of kind.
#![no_main]

use libfuzzer_sys::fuzz_target;
use resprout::formats::onnx;
use resprout::forward::{Network, PlanOptions, layer_macs};
use resprout::model::{Dim, Model};
use resprout::structure::shrink::shrink;
use resprout::tensor::Tensor;

/// Larger graphs are valid, and only slow.
const MOST_MACS: u64 = 1 << 22;
const MOST_BYTES: usize = 64 << 20;

fn run(model: &Model) -> Option<()> {
    let [input] = &model.graph.inputs[..] else { return None };
    let side = |dim: &Dim| match dim {
        Dim::Fixed(side) => *side,
        Dim::Free(_) => 8,
    };
    let image: Vec<usize> = input.shape.get(1..)?.iter().map(side).collect();
    let values = image.iter().try_fold(1usize, |product, side| product.checked_mul(*side)).filter(|values| *values < 1 << 16)?;
    let macs = layer_macs(model, &image).ok()?.values().try_fold(0u64, |sum, macs| sum.checked_add(*macs))?;
    if macs > MOST_MACS {
        return None;
    }
    let network = Network::new(model, &image, &PlanOptions::default()).ok()?;
    if network.plan().peak_bytes() > MOST_BYTES {
        return None;
    }
    let images = Tensor::new([&[2], &image[..]].concat(), vec![0.5; 2 * values]);
    if let Ok(outputs) = network.run(&images) {
        assert_eq!(outputs.len(), model.graph.outputs.len());
    }
    Some(())
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(model) = onnx::parse(bytes.to_vec(), None) else { return };
    run(&model);
    if let Ok((small, _)) = shrink(&model) {
        run(&small);
    }
});
