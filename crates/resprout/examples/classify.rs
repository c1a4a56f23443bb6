//! A minimal program around a session: classifies images.
//!
//!     cargo run --release -p resprout --example classify MODEL IMAGES [PRESET]
//!
//! MODEL is an `.onnx` file or a sparse `.safetensors` file with its network. IMAGES is any path that [`ImageSet::open`]
//! reads. PRESET is the preprocessing, by default `imagenet`. It prints the class of each image.

use resprout::data::{ImageSet, LabelSource, Preprocess};
use resprout::formats::{onnx, sparse};
use resprout::session::{Session, SessionOptions};
use resprout::{Error, ErrorKind, Result};
use std::path::Path;

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let (model, images, preset) = match arguments {
        [model, images] => (Path::new(model), Path::new(images), "imagenet"),
        [model, images, preset] => (Path::new(model), Path::new(images), preset.as_str()),
        _ => return Err(Error::new(ErrorKind::Option, "classify MODEL IMAGES [PRESET]")),
    };
    let model = match model.extension().is_some_and(|extension| extension == "safetensors") {
        true => {
            let message = || format!("{}: holds weights alone", model.display());
            sparse::read(model)?.ok_or_else(|| Error::new(ErrorKind::Data, message()))?
        }
        false => onnx::read(model)?,
    };
    let set = ImageSet::open(images, &LabelSource::None)?;
    let preprocess = Preprocess::preset(preset)?;
    let first = set.load(0..1, preprocess.mean.len(), &preprocess)?;
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    let options = SessionOptions { threads, ..SessionOptions::default() };
    let mut session = Session::new(&model, &first.shape[1..], &options)?;
    for index in 0..set.len() {
        let image = set.load(index..index + 1, preprocess.mean.len(), &preprocess)?;
        let output = session.run(&image)?.swap_remove(0);
        let class = (0..output.len()).max_by(|&a, &b| output.data[a].total_cmp(&output.data[b])).unwrap_or(0);
        println!("{}: {class} ({:.3})", set.name(index), output.data[class]);
    }
    Ok(())
}
