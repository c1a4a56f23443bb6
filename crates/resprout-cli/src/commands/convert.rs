//! `resprout convert`: a model, or an architecture with weights, in another format.

use super::{ONNX_SPARSE, check_writable, fold_batch_norm, format_of, open_source, write_model};
use crate::args::{ConvertArgs, Format};
use crate::render::text;
use resprout::architectures::Shape;

pub fn run(args: &ConvertArgs) -> anyhow::Result<()> {
    check_writable(&args.output, "--output")?;
    let format = format_of(&args.output, &args.how)?;
    let mut model = open_source(&args.source, &Shape { classes: None, image: None }, false)?;
    if args.how.fold_bn {
        for (layer, reason) in fold_batch_norm(&mut model)?.left {
            eprintln!("note: --fold-bn: {layer} stays: {reason}");
        }
    }
    write_model(&model, &args.output, format, None)?;
    if format == Format::OnnxSparse {
        text::warnings(&[ONNX_SPARSE.to_string()]);
    }
    Ok(())
}
