//! `resprout convert`: a model, or an architecture with weights, in another format.

use super::{ONNX_SPARSE, check_writable, format_of, open_source, write_model};
use crate::args::{ConvertArgs, Format};
use crate::render::text;
use resprout::architectures::Shape;

pub fn run(args: &ConvertArgs) -> anyhow::Result<()> {
    check_writable(&args.output, "--output")?;
    let format = format_of(&args.output, args.format)?;
    let model = open_source(&args.source, &Shape { classes: None, image: None }, false)?;
    write_model(&model, &args.output, format, None)?;
    if format == Format::OnnxSparse {
        text::warnings(&[ONNX_SPARSE.to_string()]);
    }
    Ok(())
}
