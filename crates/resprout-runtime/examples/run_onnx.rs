//! Runs a model on raw images, for comparisons with other engines.
//!
//! `run_onnx MODEL INPUT OUTPUT N C H W` reads and writes little-endian f32. It writes the first output only.

use resprout_runtime::forward::{Network, PlanOptions};
use resprout_runtime::tensor::Tensor;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, input, output, dims @ ..] = &args[..] else { return Err("MODEL INPUT OUTPUT N C H W".into()) };
    let shape: Vec<usize> = dims.iter().map(|dim| dim.parse()).collect::<Result<_, _>>()?;
    let bytes = std::fs::read(input)?;
    let images = Tensor::new(shape, bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect());
    let model = resprout_runtime::formats::onnx::read(model.as_ref())?;
    let results = Network::new(&model, &images.shape[1..], &PlanOptions::default())?.run(&images)?;
    std::fs::write(output, results[0].to_le_bytes())?;
    Ok(())
}
