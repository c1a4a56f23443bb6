//! Compares every operation with ONNX Runtime: testdata/golden/ops.safetensors is made by testdata/gen/ops.py. Random graphs
//! of them are in testdata/golden/graphs.safetensors, made by bench/differential.py.

use resprout_kernels::Isa;
use resprout_runtime::ErrorKind;
use resprout_runtime::formats::onnx;
use resprout_runtime::forward::{Network, Plan, PlanOptions, Slots};
use resprout_runtime::model::Model;
use resprout_runtime::session::{Session, SessionOptions};
use resprout_runtime::tensor::Tensor;
use safetensors::SafeTensors;
use std::collections::BTreeSet;

/// Relative to the largest output. Sums of a few hundred products in f32, and exponentials, differ.
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

fn model(file: &SafeTensors, name: &str) -> Result<Model, String> {
    onnx::parse(file.tensor(&format!("{name}.model")).unwrap().data().to_vec(), None).map_err(|e| e.to_string())
}

fn check(file: &SafeTensors, name: &str) -> Result<(), String> {
    let model = model(file, name)?;
    let (input, expected) = (tensor(file, &format!("{name}.input")), tensor(file, &format!("{name}.output")));
    let options = PlanOptions::default();
    let network = Network::new(&model, &input.shape[1..], &options).map_err(|e| e.to_string())?;
    let output = network.run(&input).map_err(|e| e.to_string())?.swap_remove(0);
    compare(&output, &expected)
}

fn compare(output: &Tensor, expected: &Tensor) -> Result<(), String> {
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

#[test]
fn random_graphs_equal_onnxruntime() {
    let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/golden/graphs.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let names: BTreeSet<String> =
        file.names().iter().filter_map(|name| name.strip_suffix(".model").map(str::to_string)).collect();
    assert!(names.len() >= 50, "the golden file has lost graphs: {}", names.len());
    let mut compiled = 0;
    for name in &names {
        let (model, input) = (model(&file, name).unwrap(), tensor(&file, &format!("{name}.input")));
        let expected: Vec<Tensor> =
            (0..model.graph.outputs.len()).map(|index| tensor(&file, &format!("{name}.output.{index}"))).collect();
        let agree = |mode: &str, outputs: &[Tensor]| {
            for (output, expected) in outputs.iter().zip(&expected) {
                compare(output, expected).unwrap_or_else(|e| panic!("graph {name}, {mode}: {e}"));
            }
        };
        let plan = Plan::new(&model, &input.shape, &PlanOptions::default()).unwrap_or_else(|e| panic!("graph {name}: {e}"));
        agree("by steps", &plan.run(input.clone(), &mut Slots::default(), Isa::best(), false));
        let options = SessionOptions { threads: 2, batch: input.shape[0], ..SessionOptions::default() };
        match Session::new(&model, &input.shape[1..], &options) {
            Ok(mut session) => {
                agree("compiled", &session.run(&input).unwrap());
                compiled += 1;
            }
            Err(e) => assert_eq!(e.kind(), ErrorKind::Unsupported, "graph {name}: {e}"),
        }
    }
    assert!(compiled * 10 >= names.len() * 8, "only {compiled} graphs were compiled");
}
