//! `resprout convert`: a model, or an architecture with weights, in another format.

use super::{check_writable, open_source, write_model};
use crate::args::ConvertArgs;
use resprout::architectures::Shape;

pub fn run(args: &ConvertArgs) -> anyhow::Result<()> {
    check_writable(&args.output, "--output")?;
    write_model(&open_source(&args.source, &Shape { classes: None, image: None }, false)?, &args.output, None)?;
    Ok(())
}
