//! Any operation with any attributes and shapes is computed, or an error. Nothing panics.

use super::{Attribute, Attributes, Fact, Fused, Op, fold, resolve};
use crate::random::SplitMix64;
use crate::tensor::{Array, Tensor, Value};
use resprout_kernels::Isa;
use std::sync::Arc;

const KINDS: &str = "Conv ConvTranspose Gemm MatMul Einsum BatchNormalization LSTM GRU RNN Attention RotaryEmbedding \
    LayerNormalization RMSNormalization InstanceNormalization GroupNormalization MeanVarianceNormalization LpNormalization LRN \
    Relu PRelu Clip Elu Shrink Gelu Add Div Mod Pow Sum Mean Max Equal Where Not ReduceMean ReduceSum ReduceMax ReduceProd ReduceL2 \
    ReduceLogSumExp ArgMax ArgMin MaxPool AveragePool LpPool GlobalAveragePool GlobalMaxPool Concat Split Slice Pad CenterCropPad \
    Flatten Reshape Transpose Squeeze Unsqueeze Expand Tile DepthToSpace SpaceToDepth Gather GatherElements GatherND ScatterElements \
    ScatterND OneHot TopK CumSum Trilu ReverseSequence Resize Upsample GridSample AffineGrid RoiAlign Softmax QuantizeLinear \
    DequantizeLinear Cast CastLike Range ConstantOfShape Shape Size";

const NUMBERS: [&str; 18] = [
    "axis",
    "group",
    "blocksize",
    "keepdims",
    "num_groups",
    "hidden_size",
    "size",
    "p",
    "q_num_heads",
    "kv_num_heads",
    "block_size",
    "batch_dims",
    "ceil_mode",
    "exclusive",
    "linear_before_reset",
    "output_height",
    "sampling_ratio",
    "is_causal",
];
const LISTS: [&str; 11] =
    ["axes", "pads", "strides", "dilations", "kernel_shape", "perm", "split", "output_shape", "output_padding", "starts", "ends"];
const TEXTS: [(&str, &[&str]); 5] = [
    ("mode", &["linear", "cubic", "CRD", "reflect", "wrap", "max"]),
    ("auto_pad", &["SAME_UPPER", "VALID"]),
    ("equation", &["ij,jk->ik", "...i,i", "ii->i", "i,j->", "ij->ijk", "ab,,"]),
    ("coordinate_transformation_mode", &["align_corners", "tf_crop_and_resize", "asymmetric"]),
    ("direction", &["bidirectional", "reverse"]),
];

fn attributes(random: &mut SplitMix64) -> Attributes {
    let mut attributes = Attributes::new([8, 11, 13, 18, 23][random.below(5)]);
    attributes.output = if random.below(8) == 0 { random.below(3) } else { 0 };
    attributes.outputs = 1 + random.below(3);
    let integer = |random: &mut SplitMix64| [-2, -1, 0, 1, 1, 2, 2, 3, 4, i64::MAX, i64::MIN][random.below(11)];
    for name in NUMBERS {
        if random.below(3) == 0 {
            attributes.insert(name.into(), Attribute::Int(integer(random)));
        }
    }
    for name in LISTS {
        if random.below(4) == 0 {
            let list = (0..random.below(5)).map(|_| integer(random)).collect();
            attributes.insert(name.into(), Attribute::Ints(list));
        }
    }
    for (name, options) in TEXTS {
        if random.below(3) == 0 {
            attributes.insert(name.into(), Attribute::Text(options[random.below(options.len())].into()));
        }
    }
    attributes
}

/// Known shapes, and values of constants.
fn fact(random: &mut SplitMix64, like: Option<&[usize]>) -> Fact {
    let shape: Vec<usize> = match like {
        Some(shape) if random.below(3) > 0 => shape.to_vec(),
        _ => (0..random.below(6)).map(|_| [0, 1, 1, 2, 3, 4][random.below(6)]).collect(),
    };
    let count: usize = shape.iter().product();
    match random.below(4) {
        0 => Fact::of_shape(shape).with_integers(random.below(4) == 0),
        1 => {
            let one = |random: &mut SplitMix64| [-2i64, -1, 0, 1, 2, 3, i64::MAX, i64::MIN][random.below(8)];
            Fact::constant(Arc::new(Value::I64(Array::new(shape, (0..count).map(|_| one(random)).collect()))))
        }
        _ => {
            let one = |random: &mut SplitMix64| [-1.5f32, 0.0, 0.5, 1.0, 2.0, f32::NAN, f32::INFINITY][random.below(7)];
            Fact::constant(Arc::new(Value::F32(Tensor::new(shape, (0..count).map(|_| one(random)).collect()))))
        }
    }
}

#[test]
fn no_operation_panics() {
    let (mut computed, isa) = (0, Isa::best());
    for (stream, kind) in KINDS.split_whitespace().enumerate() {
        for seed in 0..400 {
            let mut random = SplitMix64::new(seed, stream as u64);
            let Ok(op) = Op::parse(kind, &attributes(&mut random)) else { continue };
            let mut inputs: Vec<Option<Fact>> = vec![Some(fact(&mut random, None))];
            for _ in 0..random.below(5) {
                let like = inputs[0].as_ref().map(|fact| fact.shape.clone());
                inputs.push((random.below(9) > 0).then(|| fact(&mut random, like.as_deref())));
            }
            let _ = fold(&op, &inputs, isa);
            let Ok(resolved) = resolve(&op, &inputs, &Fused::NONE) else { continue };
            let size = resolved.shape.iter().try_fold(1usize, |size, &dim| size.checked_mul(dim));
            let Some(size) = size.filter(|&size| size < 1 << 20) else { continue };
            let count = resolved.compute.operand_count(inputs.len());
            let tensor = |fact: &Fact| match fact.value.as_deref() {
                Some(Value::F32(tensor)) => tensor.clone(),
                // Integers that depend on an image can be any floats.
                _ => Tensor::new(fact.shape.clone(), (0..fact.shape.iter().product::<usize>()).map(|i| i as f32 - 1.5).collect()),
            };
            let operands: Vec<Tensor> = inputs.iter().take(count).flatten().map(tensor).collect();
            let mut out = Tensor::new(resolved.shape, vec![0.0; size]);
            resolved.compute.run(&operands.iter().collect::<Vec<_>>(), &mut out, isa, false);
            computed += 1;
        }
    }
    assert!(computed > 3000, "only {computed} were computed");
}
