//! Every operation against ONNX Runtime: testdata/golden/ops.safetensors, made by testdata/gen/ops.py.

use resprout::formats::onnx;
use resprout::forward::{Network, PlanOptions};
use resprout::tensor::Tensor;
use safetensors::SafeTensors;
use std::collections::BTreeSet;

/// Relative to the largest output: f32 sums of a few hundred products, and different exponentials.
const TOLERANCE: f32 = 3e-6;

fn tensor(file: &SafeTensors, name: &str) -> Tensor {
    let view = file.tensor(name).unwrap();
    let data = view.data().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    Tensor::new(view.shape().to_vec(), data)
}

#[test]
fn every_operation_equals_onnxruntime() {
    let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/golden/ops.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let names: BTreeSet<String> =
        file.names().iter().filter_map(|name| name.strip_suffix(".model").map(str::to_string)).collect();
    assert!(names.len() > 90, "the golden file has lost cases: {}", names.len());
    let failures: Vec<String> =
        names.iter().filter_map(|name| check(&file, name).err().map(|e| format!("{name}: {e}"))).collect();
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), names.len(), failures.join("\n"));
}

fn check(file: &SafeTensors, name: &str) -> Result<(), String> {
    let model = onnx::parse(file.tensor(&format!("{name}.model")).unwrap().data().to_vec(), None).map_err(|e| e.to_string())?;
    let (input, expected) = (tensor(file, &format!("{name}.input")), tensor(file, &format!("{name}.output")));
    let options = PlanOptions::default();
    let network = Network::new(&model, &input.shape[1..], &options).map_err(|e| e.to_string())?;
    let output = network.run(&input).map_err(|e| e.to_string())?.swap_remove(0);
    if output.shape != expected.shape {
        return Err(format!("shape {:?}, expected {:?}", output.shape, expected.shape));
    }
    let largest = expected.data.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
    let worst = output.data.iter().zip(&expected.data).map(|(a, b)| (a - b).abs() / largest).fold(0.0, f32::max);
    if worst > TOLERANCE || output.data.iter().any(|v| v.is_nan()) {
        Err(format!("relative difference {worst:e}"))
    } else {
        Ok(())
    }
}
