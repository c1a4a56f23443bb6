//! `resprout convert`: a model, or an architecture with weights, in another format.

use super::{check_writable, read_model, read_weights, write_model};
use crate::args::ConvertArgs;
use resprout::architectures::{self, Shape};
use resprout::{Error, ErrorKind};
use std::num::NonZeroUsize;

pub fn run(args: &ConvertArgs) -> anyhow::Result<()> {
    check_writable(&args.output, "--output")?;
    let model = match (&args.model, &args.network.arch) {
        (Some(path), _) => read_model(path, &args.network)?,
        (None, Some(name)) => {
            let shape = Shape { classes: args.network.classes.map(NonZeroUsize::get), image: None };
            let mut model = architectures::build(name, &shape, &args.init, args.seed)?;
            if let Some(weights) = &args.network.weights {
                read_weights(&mut model, weights)?;
            }
            model
        }
        (None, None) => return Err(Error::new(ErrorKind::Option, "a model or --arch is needed").into()),
    };
    write_model(&model, &args.output, None)?;
    Ok(())
}
