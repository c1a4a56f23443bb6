//! Times sessions on request, so that a script can alternate them with another engine's.
//!
//! `timed_session MODEL BATCH C H W THREADS TUNE_SECONDS [IMAGES OUTPUT]`: for every line read, one batch; prints the
//! seconds it took. With IMAGES (little-endian f32) the first outputs are written to OUTPUT first.

use resprout::random::SplitMix64;
use resprout::session::{Session, SessionOptions};
use resprout::tensor::Tensor;
use std::io::BufRead;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, batch, c, h, w, threads, tune, files @ ..] = &args[..] else {
        return Err("MODEL BATCH C H W THREADS TUNE_SECONDS [IMAGES OUTPUT]".into());
    };
    let image: Vec<usize> = [c, h, w].iter().map(|dim| dim.parse()).collect::<Result<_, _>>()?;
    let shape = [&[batch.parse()?], &image[..]].concat();
    let mut random = SplitMix64::new(0, 0);
    let data = (0..shape.iter().product()).map(|_| random.next_f64() as f32 * 4.0 - 2.0).collect();
    let mut images = Tensor::new(shape.clone(), data);
    let model = resprout::formats::onnx::read(model.as_ref())?;
    let options = SessionOptions { threads: threads.parse()?, batch: shape[0], tune: tune.parse()?, kernel: None };
    let mut session = Session::new(&model, &image, &options)?;
    if let [input, output] = files {
        let bytes = std::fs::read(input)?;
        images = Tensor::new(shape, bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect());
        std::fs::write(output, session.run(&images)?[0].to_le_bytes())?;
    }
    if std::env::var_os("LAYERS").is_some() {
        let rows = session.layers(20);
        let total: f64 = rows.iter().map(|row| row.seconds).sum();
        for row in &rows {
            let rate = row.macs.map_or(String::new(), |macs| format!("{:8.1} GMAC/s", macs as f64 / row.seconds / 1e9));
            eprintln!("{:40} {:9.1} us {rate} {:?}", row.name, row.seconds * 1e6, row.density);
        }
        eprintln!("sum {:.3} ms, {} together", total * 1e3, session.together());
    }
    for line in std::io::stdin().lock().lines() {
        line?;
        let start = Instant::now();
        std::hint::black_box(session.run(&images)?);
        println!("{}", start.elapsed().as_secs_f64());
    }
    Ok(())
}
