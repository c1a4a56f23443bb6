//! Times forwards on request, so that a script can alternate them with another engine's.
//!
//! `timed_forward MODEL BATCH C H W THREADS`: for every line read, one forward of pseudo-random
//! images; prints the seconds it took.

use resprout::forward::{Network, PlanOptions};
use resprout::random::SplitMix64;
use resprout::tensor::Tensor;
use std::io::BufRead;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, batch, c, h, w, threads] = &args[..] else { return Err("MODEL BATCH C H W THREADS".into()) };
    let image: Vec<usize> = [c, h, w].iter().map(|dim| dim.parse()).collect::<Result<_, _>>()?;
    let shape = [&[batch.parse()?], &image[..]].concat();
    let mut random = SplitMix64::new(0, 0);
    let data = (0..shape.iter().product()).map(|_| random.next_f64() as f32 * 4.0 - 2.0).collect();
    let images = Tensor::new(shape, data);
    let model = resprout::formats::onnx::read(model.as_ref())?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.parse()?).build()?;
    // Errors cross threads, which a boxed error without Send may not.
    pool.install(|| -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let network = Network::new(&model, &image, &PlanOptions::default()).map_err(|e| text(&e))?;
        for line in std::io::stdin().lock().lines() {
            line.map_err(|e| text(&e))?;
            let start = Instant::now();
            std::hint::black_box(network.run(&images).map_err(|e| text(&e))?);
            println!("{}", start.elapsed().as_secs_f64());
        }
        Ok(())
    })?;
    Ok(())
}
