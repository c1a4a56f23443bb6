//! Reads an operation from a node's type and attributes.

use super::conv::groups;
use super::{
    Attributes, BinaryOp, ConstantOp, ConvAttributes, ConvTransposeAttributes, Op, PadMode, PoolAttributes, ResizeAttributes,
    UnaryOp,
};
use crate::error::{Error, ErrorKind, Result};

impl Op {
    /// Reads a standard operation. An unsupported one, or one with unsupported attributes, is an [`Op::Unknown`] whose name
    /// says so. Invalid attributes are an error.
    pub fn parse(kind: &str, attributes: &Attributes) -> Result<Op> {
        let families = [windows, products, elementwise, moves, shapes];
        let known = || families.iter().find_map(|family| family(kind, attributes).transpose()).transpose();
        match known() {
            Ok(op) => Ok(op.unwrap_or_else(|| Op::Unknown(kind.to_string()))),
            Err(e) if e.kind() == ErrorKind::Unsupported => match kind {
                "Conv" | "ConvTranspose" => {
                    let transposed = kind == "ConvTranspose";
                    Ok(Op::OpaqueConv { name: e.to_string(), groups: groups(attributes)?, transposed })
                }
                _ => Ok(Op::Unknown(e.to_string())),
            },
            Err(e) => Err(e),
        }
    }
}

fn windows(kind: &str, a: &Attributes) -> Result<Option<Op>> {
    Ok(Some(match kind {
        "Conv" => Op::Conv(ConvAttributes::parse(kind, a)?),
        "ConvTranspose" => Op::ConvTranspose(ConvTransposeAttributes::parse(a)?),
        "MaxPool" => Op::MaxPool(PoolAttributes::parse(kind, a)?),
        "AveragePool" => Op::AveragePool(PoolAttributes::parse(kind, a)?),
        "GlobalAveragePool" => Op::GlobalAveragePool,
        "Resize" => Op::Resize(ResizeAttributes::parse(a)?),
        "Pad" => Op::Pad {
            mode: PadMode::parse(a.text("mode")?.as_deref())?,
            attributes: a.ints("pads")?.map(|pads| Ok::<_, Error>((pads, a.float("value", 0.0)?))).transpose()?,
        },
        _ => return Ok(None),
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
        "BatchNormalization" if a.flag("training_mode", false)? || !a.flag("spatial", true)? => {
            return Err(Error::unsupported("BatchNormalization in training mode or without spatial"));
        }
        "BatchNormalization" => Op::BatchNorm { epsilon: a.float("epsilon", 1e-5)? },
        "ReduceMean" => Op::ReduceMean {
            axes: a.ints("axes")?,
            keep_dims: a.flag("keepdims", true)?,
            noop_with_empty_axes: a.flag("noop_with_empty_axes", false)?,
        },
        "Softmax" | "LogSoftmax" => {
            let flatten = a.opset < 13;
            let axis = a.int("axis", if flatten { 1 } else { -1 })?;
            Op::Softmax { axis, flatten, log: kind == "LogSoftmax" }
        }
        _ => return Ok(None),
    }))
}

fn elementwise(kind: &str, a: &Attributes) -> Result<Option<Op>> {
    Ok(Some(match kind {
        "Relu" => Op::Unary(UnaryOp::Relu),
        "LeakyRelu" => Op::Unary(UnaryOp::LeakyRelu { alpha: a.float("alpha", 0.01)? }),
        "Sigmoid" => Op::Unary(UnaryOp::Sigmoid),
        "HardSigmoid" => Op::Unary(UnaryOp::HardSigmoid { alpha: a.float("alpha", 0.2)?, beta: a.float("beta", 0.5)? }),
        "HardSwish" => Op::Unary(UnaryOp::HardSwish),
        "Neg" => Op::Unary(UnaryOp::Neg),
        "Sqrt" => Op::Unary(UnaryOp::Sqrt),
        "Floor" => Op::Unary(UnaryOp::Floor),
        "Clip" => Op::Clip { bounds: [a.optional_float("min")?, a.optional_float("max")?] },
        "Add" | "Sum" => Op::Binary(BinaryOp::Add),
        "Sub" => Op::Binary(BinaryOp::Sub),
        "Mul" => Op::Binary(BinaryOp::Mul),
        "Div" => Op::Binary(BinaryOp::Div),
        "Max" => Op::Binary(BinaryOp::Max),
        "Min" => Op::Binary(BinaryOp::Min),
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
        _ => return Ok(None),
    }))
}

fn shapes(kind: &str, a: &Attributes) -> Result<Option<Op>> {
    Ok(Some(match kind {
        "Constant" => Op::OpaqueConstant,
        "ConstantOfShape" => Op::ConstantOfShape { value: a.tensor("value")? },
        "Shape" => Op::Shape { start: a.int("start", 0)?, end: a.optional_int("end")? },
        "Cast" => Op::Cast { to: a.int("to", 1)? },
        "CastLike" => Op::CastLike,
        "Equal" => Op::Constant(ConstantOp::Equal),
        "Less" => Op::Constant(ConstantOp::Less),
        "Greater" => Op::Constant(ConstantOp::Greater),
        "And" => Op::Constant(ConstantOp::And),
        "Or" => Op::Constant(ConstantOp::Or),
        "Not" => Op::Constant(ConstantOp::Not),
        "Where" => Op::Constant(ConstantOp::Where),
        "Range" => Op::Constant(ConstantOp::Range),
        "Mod" => Op::Constant(ConstantOp::Mod { like_dividend: a.flag("fmod", false)? }),
        "ReduceProd" => Op::Constant(ConstantOp::ReduceProd {
            axes: a.ints("axes")?,
            keep_dims: a.flag("keepdims", true)?,
            noop_with_empty_axes: a.flag("noop_with_empty_axes", false)?,
        }),
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
            ("MaxPool", vec![cube], "MaxPool of 3 spatial axes"),
            ("AveragePool", vec![cube], "AveragePool of 3 spatial axes"),
            ("Resize", vec![("axes", &[2, 3][..])], "Resize of given axes"),
            ("Swirl", vec![], "Swirl"),
        ] {
            let op = parse(kind, &lists).unwrap();
            assert_eq!(op.name(), name);
            assert!(matches!(op, Op::Unknown(_) | Op::OpaqueConv { .. }), "{op:?}");
        }
        let mut cubic = Attributes::new(13);
        cubic.insert("mode".into(), Attribute::Text("cubic".into()));
        assert_eq!(Op::parse("Resize", &cubic).unwrap().name(), "Resize of mode \"cubic\"");
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
