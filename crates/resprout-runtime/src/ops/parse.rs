//! Reads an operation from a node's type and attributes.

use super::conv::groups;
use super::{
    ArgExtreme, Attention, Attributes, BinaryOp, ConvAttributes, ConvTransposeAttributes, IndexOp, NormOp, Op, PadMode,
    PoolAttributes, QuantizeOp, RearrangeOp, Recurrent, Reducer, ResizeAttributes, RotaryEmbedding, SampleOp, UnaryOp,
    VolumeConv, WindowPool,
};
use crate::error::{Error, ErrorKind, Result};

/// Operations whose result's shape depends on the image's content, or that run a graph of their own.
const DYNAMIC: [&str; 9] =
    ["Loop", "Scan", "If", "NonZero", "NonMaxSuppression", "Unique", "Compress", "SequenceMap", "StringNormalizer"];

impl Op {
    /// Reads a standard operation. An unsupported one, or one with unsupported attributes, is an [`Op::Unknown`] whose name
    /// says so. Invalid attributes are an error.
    pub fn parse(kind: &str, attributes: &Attributes) -> Result<Op> {
        let families = [several_outputs, windows, products, elementwise, reductions, moves, shapes];
        let known = || families.iter().find_map(|family| family(kind, attributes).transpose()).transpose();
        match known() {
            Ok(op) => Ok(op.unwrap_or_else(|| Op::Unknown(kind.to_string()))),
            Err(e) if e.kind() == ErrorKind::Unsupported => match kind {
                "Conv" | "ConvTranspose" => {
                    let transposed = kind == "ConvTranspose";
                    let volume = VolumeConv::parse(attributes, transposed).ok();
                    Ok(Op::OpaqueConv { name: e.to_string(), volume, groups: groups(attributes)?, transposed })
                }
                "MaxPool" | "AveragePool" => match WindowPool::parse(kind, attributes)? {
                    Some(pool) => Ok(Op::WindowPool(pool)),
                    None => Ok(Op::Unknown(e.to_string())),
                },
                _ => Ok(Op::Unknown(e.to_string())),
            },
            Err(e) => Err(e),
        }
    }

    /// Whether the shape of an operation's result depends on the image's content, or a graph of its own runs in it.
    pub fn is_dynamic(&self) -> bool {
        matches!(self, Op::Unknown(name) if DYNAMIC.contains(&name.as_str()))
    }
}

/// Operations that have several outputs. What is read for an output behind the first knows no others.
fn several_outputs(kind: &str, a: &Attributes) -> Result<Option<Op>> {
    if let Some(op) = RearrangeOp::parse(kind, a)? {
        return Ok(Some(Op::Rearrange(op)));
    }
    if let Some(op) = NormOp::parse(kind, a)? {
        return Ok(Some(Op::Norm(op)));
    }
    if let Some(op) = Recurrent::parse(kind, a)? {
        return Ok(Some(Op::Recurrent(op)));
    }
    if kind == "Attention" && a.output < 4 {
        return Ok(Some(Op::Attention(Attention::parse(a)?)));
    }
    let counted = kind == "MaxPool" && a.output == 1;
    if counted || kind == "LpPool" {
        return Ok(WindowPool::parse(kind, a)?.map(Op::WindowPool));
    }
    match a.output {
        0 => Ok(None),
        output => Err(Error::unsupported(format!("{kind} with output {}", output + 1))),
    }
}

fn windows(kind: &str, a: &Attributes) -> Result<Option<Op>> {
    Ok(Some(match kind {
        "Conv" => Op::Conv(ConvAttributes::parse(kind, a)?),
        "ConvTranspose" => Op::ConvTranspose(ConvTransposeAttributes::parse(a)?),
        "MaxPool" => Op::MaxPool(PoolAttributes::parse(kind, a)?),
        "AveragePool" => Op::AveragePool(PoolAttributes::parse(kind, a)?),
        "GlobalAveragePool" => Op::GlobalAveragePool,
        "GlobalMaxPool" => Op::GlobalPool { name: "GlobalMaxPool", reducer: Reducer::Max },
        "GlobalLpPool" => match a.int("p", 2)? {
            1 => Op::GlobalPool { name: "GlobalLpPool", reducer: Reducer::L1 },
            2 => Op::GlobalPool { name: "GlobalLpPool", reducer: Reducer::L2 },
            p => return Err(Error::unsupported(format!("GlobalLpPool of p {p}"))),
        },
        "Resize" | "Upsample" => Op::Resize(ResizeAttributes::parse(kind, a)?),
        "Pad" => Op::Pad {
            mode: PadMode::parse(a.text("mode")?.as_deref())?,
            attributes: a.ints("pads")?.map(|pads| Ok::<_, Error>((pads, a.float("value", 0.0)?))).transpose()?,
        },
        _ => return Ok(SampleOp::parse(kind, a)?.map(Op::Sample)),
    }))
}

fn products(kind: &str, a: &Attributes) -> Result<Option<Op>> {
    Ok(Some(match kind {
        "Gemm" => Op::Gemm {
            alpha: a.float("alpha", 1.0)?,
            beta: a.float("beta", 1.0)?,
            trans_a: a.flag("transA", false)?,
            trans_b: a.flag("transB", false)?,
        },
        "MatMul" => Op::MatMul,
        "Einsum" => Op::Einsum(a.text("equation")?.ok_or_else(|| Error::format("an Einsum without an equation"))?),
        "RotaryEmbedding" => Op::Rotary(RotaryEmbedding::parse(a)?),
        "BatchNormalization" if !a.flag("spatial", true)? => {
            return Err(Error::unsupported("BatchNormalization without spatial"));
        }
        "BatchNormalization" => Op::BatchNorm { epsilon: a.float("epsilon", 1e-5)? },
        "Softmax" | "LogSoftmax" => {
            let flatten = a.opset < 13;
            let axis = a.int("axis", if flatten { 1 } else { -1 })?;
            Op::Softmax { axis, flatten, log: kind == "LogSoftmax" }
        }
        _ => return Ok(None),
    }))
}

fn elementwise(kind: &str, a: &Attributes) -> Result<Option<Op>> {
    if let Some(op) = UnaryOp::parse(kind, a)? {
        return Ok(Some(Op::Unary(op)));
    }
    if let Some(op) = BinaryOp::named(kind) {
        return Ok(Some(Op::Binary(op)));
    }
    Ok(Some(match kind {
        "Clip" => Op::Clip { bounds: [a.optional_float("min")?, a.optional_float("max")?] },
        "Mod" => Op::Binary(BinaryOp::Mod { like_dividend: a.flag("fmod", false)? }),
        "Where" => Op::Where,
        _ => return Ok(QuantizeOp::parse(kind, a)?.map(Op::Quantize)),
    }))
}

fn reductions(kind: &str, a: &Attributes) -> Result<Option<Op>> {
    let axes = || a.ints("axes");
    let flags = || Ok::<_, Error>([a.flag("keepdims", true)?, a.flag("noop_with_empty_axes", false)?]);
    if let Some(reducer) = Reducer::named(kind) {
        let [keep_dims, noop_with_empty_axes] = flags()?;
        return Ok(Some(Op::Reduce { reducer, axes: axes()?, keep_dims, noop_with_empty_axes }));
    }
    Ok(Some(match kind {
        "ReduceMean" => {
            let [keep_dims, noop_with_empty_axes] = flags()?;
            Op::ReduceMean { axes: axes()?, keep_dims, noop_with_empty_axes }
        }
        "ArgMax" | "ArgMin" => Op::Arg(ArgExtreme {
            axis: a.int("axis", 0)?,
            keep_dims: a.flag("keepdims", true)?,
            last: a.flag("select_last_index", false)?,
            smallest: kind == "ArgMin",
        }),
        _ => return Ok(None),
    }))
}

fn moves(kind: &str, a: &Attributes) -> Result<Option<Op>> {
    Ok(Some(match kind {
        "Concat" => Op::Concat { axis: a.int("axis", 1)? },
        "Slice" if a.opset < 10 => {
            let (starts, ends) = (a.ints("starts")?.unwrap_or_default(), a.ints("ends")?.unwrap_or_default());
            let axes = a.ints("axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
            Op::Slice { attributes: Some([starts, ends, axes]) }
        }
        "Slice" => Op::Slice { attributes: None },
        "Flatten" => Op::Flatten { axis: a.int("axis", 1)? },
        "Reshape" => Op::Reshape { allow_zero: a.flag("allowzero", false)? },
        "Transpose" => Op::Transpose { perm: a.ints("perm")? },
        "Squeeze" => Op::Squeeze { axes: a.ints("axes")? },
        "Unsqueeze" => Op::Unsqueeze { axes: a.ints("axes")? },
        "Gather" => Op::Gather { axis: a.int("axis", 0)? },
        "Expand" => Op::Expand,
        "Identity" | "Dropout" => Op::Identity,
        _ => return Ok(IndexOp::parse(kind, a)?.map(Op::Index)),
    }))
}

fn shapes(kind: &str, a: &Attributes) -> Result<Option<Op>> {
    Ok(Some(match kind {
        "Constant" => Op::OpaqueConstant,
        "ConstantOfShape" => Op::ConstantOfShape { value: a.tensor("value")? },
        "Shape" => Op::Shape { start: a.int("start", 0)?, end: a.optional_int("end")? },
        "Size" => Op::Size,
        "Cast" => Op::Cast { to: a.int("to", 1)? },
        "CastLike" => Op::CastLike,
        "Range" => Op::Range,
        _ => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Attribute;

    fn parse(kind: &str, lists: &[(&str, &[i64])]) -> Result<Op> {
        let mut attributes = Attributes::new(13);
        lists.iter().for_each(|(name, numbers)| attributes.insert(name.to_string(), Attribute::Ints(numbers.to_vec())));
        Op::parse(kind, &attributes)
    }

    #[test]
    fn an_unsupported_operation_has_a_name_that_says_so() {
        let cube: (&str, &[i64]) = ("kernel_shape", &[3, 3, 3]);
        for (kind, lists, name) in [
            ("Conv", vec![cube], "Conv of 3 spatial axes"),
            ("Conv", vec![("pads", &[1, 1, 1, 1, 1, 1][..])], "Conv of 3 spatial axes"),
            ("ConvTranspose", vec![cube], "ConvTranspose of 3 spatial axes"),
            ("ConvTranspose", vec![("output_shape", &[8, 8][..])], "ConvTranspose with output_shape"),
            ("Swirl", vec![], "Swirl"),
        ] {
            let op = parse(kind, &lists).unwrap();
            assert_eq!(op.name(), name);
            assert!(matches!(op, Op::Unknown(_) | Op::OpaqueConv { .. }), "{op:?}");
        }
        let mut turned = Attributes::new(13);
        turned.insert("mode".into(), Attribute::Text("lanczos".into()));
        assert_eq!(Op::parse("Resize", &turned).unwrap().name(), "Resize of mode \"lanczos\"");
        let mut second = Attributes::new(13);
        second.output = 1;
        assert_eq!(Op::parse("Dropout", &second).unwrap().name(), "Dropout with output 2");
        assert!(matches!(parse("Conv", &[cube]).unwrap(), Op::OpaqueConv { groups: 1, transposed: false, .. }));
    }

    #[test]
    fn invalid_attributes_are_an_error() {
        for (kind, lists) in [
            ("Conv", vec![("strides", &[1, 0][..])]),
            ("Conv", vec![("pads", &[1, 1, 1][..])]),
            ("Conv", vec![("pads", &[-1, 1, 1, 1][..])]),
            ("Conv", vec![("pads", &[1, 1][..]), ("strides", &[1, 1][..])]),
            ("MaxPool", vec![]),
            ("MaxPool", vec![("kernel_shape", &[][..])]),
            ("ConvTranspose", vec![("output_padding", &[1, 1][..])]),
        ] {
            let error = parse(kind, &lists).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Format, "{kind} {lists:?}: {error}");
        }
    }
}
