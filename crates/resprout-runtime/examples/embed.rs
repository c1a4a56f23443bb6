//! The least that an application needs to run a network: open it, compile it for a shape, run images.
//!
//! ```console
//! cargo run --release -p resprout-runtime --example embed -- sparse.onnx 3,224,224
//! ```
//!
//! Without arguments it runs the digit network of this repository. It prints the shape of each output for a grey image.

use resprout_runtime::model::Model;
use resprout_runtime::session::Session;
use resprout_runtime::tensor::Tensor;
use resprout_runtime::{Error, Result};
use std::path::{Path, PathBuf};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("../resprout-cli/assets/digits.onnx");
    let model = Model::open(arguments.next().map_or(digits, PathBuf::from))?;
    let shape = arguments.next().unwrap_or_else(|| "1,8,8".into());
    let number = |text: &str| text.parse().map_err(|_| Error::option(format!("shape: {text:?} is no number")));
    let image: Vec<usize> = shape.split(',').map(number).collect::<Result<_>>()?;

    let mut session = Session::builder(&model).threads(2).build(&image)?;
    let pixels = vec![0.5; image.iter().product()];
    for output in session.run(&Tensor::new([&[1], &image[..]].concat(), pixels))? {
        println!("{:?}", output.shape);
    }
    Ok(())
}
