use super::*;
use crate::formats::onnx::{Attribute, GraphBuilder};
use crate::forward::{Network, PlanOptions};
use crate::model::MaskTable;
use crate::progress::Quiet;
use crate::prune::{PruneOptions, prune};
use crate::structure::Pattern;
use crate::structure::shrink::{Cut, shrink};
use crate::tensor::Tensor;

/// Conv a, the operation `between`, conv b, conv c, pooled and classified.
fn chain(between: &str) -> Model {
    let mut builder = GraphBuilder::default();
    for (name, inputs) in [("a.weight", 2), ("b.weight", 4), ("c.weight", 4)] {
        builder.tensor(name, &Tensor::new(vec![4, inputs, 1, 1], vec![1.0; 4 * inputs]));
    }
    let a = builder.node("Conv", "a", &["input", "a.weight"], &[]);
    let x = builder.node(between, "between", &[&a], &[]);
    let b = builder.node("Conv", "b", &[&x, "b.weight"], &[]);
    let c = builder.node("Conv", "c", &[&b, "c.weight"], &[]);
    let pooled = builder.node("GlobalAveragePool", "pool", &[&c], &[]);
    let flat = builder.node("Flatten", "flat", &[&pooled], &[]);
    let output = builder.node("MatMul", "fc", &[&flat, "fc.transposed"], &[]);
    builder.tensor("fc.transposed", &Tensor::new(vec![4, 3], vec![1.0; 12]));
    builder.finish("chain", [2, 4, 4], &output, 3).unwrap()
}

fn reason(coupling: &Coupling, param: &str, role: Role) -> Option<String> {
    let one = coupling.uses.iter().find(|one| one.param == param && one.role == role).unwrap();
    coupling.frozen[one.units[0]].clone()
}

#[test]
fn unsupported_operations_freeze_their_neighbours() {
    let coupling = Coupling::new(&chain("Relu"), |_| None);
    assert_eq!(reason(&coupling, "a.weight", Role::Output), None);
    for between in ["Swirl", "Softmax"] {
        let coupling = Coupling::new(&chain(between), |_| None);
        let why = reason(&coupling, "a.weight", Role::Output).unwrap();
        assert!(why.contains("\"between\"") && why.contains(between), "{why}");
        assert!(reason(&coupling, "b.weight", Role::Input).is_some(), "{between}");
        // The layers after the next one are free again.
        assert_eq!(reason(&coupling, "b.weight", Role::Output), None, "{between}");
        assert_eq!(reason(&coupling, "fc.transposed", Role::Input), None, "{between}");
        assert!(reason(&coupling, "fc.transposed", Role::Output).unwrap().contains("output"), "{between}");
    }
}

/// A few bytes of a file ask for more channels than fit into memory.
#[test]
fn channels_beyond_counting_stay() {
    let mut builder = GraphBuilder::default();
    builder.tensor("a.weight", &Tensor::new(vec![4, 2, 1, 1], vec![1.0; 8]));
    let a = builder.node("Conv", "a", &["input", "a.weight"], &[]);
    let pads = builder.integers("pads", &[0, 0, 0, 0, 0, 1 << 40, 0, 0]);
    let padded = builder.node("Pad", "pad", &[&a, &pads], &[]);
    let model = builder.finish("padded", [2, 4, 4], &padded, 3).unwrap();
    let why = reason(&Coupling::new(&model, |_| None), "a.weight", Role::Output).unwrap();
    assert!(why.contains("\"pad\""), "{why}");
}

#[test]
fn layers_that_stay_freeze_what_they_read_and_write() {
    let coupling = Coupling::new(&chain("Relu"), |param| (param == "b.weight").then(|| "pinned".into()));
    assert_eq!(reason(&coupling, "a.weight", Role::Output).as_deref(), Some("pinned"));
    assert_eq!(reason(&coupling, "c.weight", Role::Input).as_deref(), Some("pinned"));
    assert_eq!(reason(&coupling, "c.weight", Role::Output), None);
}

/// A tensor of different numbers.
fn numbers(shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    Tensor::new(shape.to_vec(), (0..count).map(|i| ((i * 7 + count) as f32 * 0.37).sin()).collect())
}

/// Prunes channels and cuts them out, for two seeds. The smaller network must compute what the masked one does.
fn cut(model: &Model, sparsity: f64) -> Vec<Cut> {
    let image: Vec<usize> = crate::model::possible_images(model).swap_remove(0);
    let images = numbers(&[&[2], &image[..]].concat());
    let run = |model: &Model| {
        let network = Network::new(model, &image, &PlanOptions::default()).unwrap();
        network.run(&images).unwrap().swap_remove(0)
    };
    let mut all = Vec::new();
    for seed in 0..2 {
        let options = PruneOptions {
            sparsity,
            criterion: "random".into(),
            allocation: "global".into(),
            pattern: Pattern::Channel,
            seed,
            ..PruneOptions::default()
        };
        let mut masked = model.clone();
        masked.masks = MaskTable::default();
        prune(&mut masked, &options, &Tensor::default(), &Quiet).unwrap();
        let (small, cuts) = shrink(&masked).unwrap();
        let (before, after) = (run(&masked), run(&small));
        let largest = before.data.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        assert!(largest > 0.0 && before.shape == after.shape);
        let near = before.data.iter().zip(&after.data).all(|(a, b)| (a - b).abs() <= 1e-5 * largest);
        assert!(near, "{before:?} {after:?}");
        all.extend(cuts);
    }
    all
}

fn was_cut(cuts: &[Cut], param: &str) -> bool {
    cuts.iter().any(|cut| cut.param == param)
}

#[test]
fn constants_of_one_dimensional_networks() {
    let mut builder = GraphBuilder::default();
    builder.tensor("a.weight", &numbers(&[6, 3, 3]));
    builder.tensor("scale", &numbers(&[6, 1]));
    builder.tensor("b.weight", &numbers(&[5, 6, 3]));
    builder.tensor("fc.weight", &numbers(&[3, 5]));
    let axis = builder.integers("axis", &[2]);
    let x = builder.node("Squeeze", "squeeze", &["input", &axis], &[]);
    let x = builder.node("Conv", "a", &[&x, "a.weight"], &[("pads", Attribute::Ints(vec![1, 1]))]);
    let x = builder.node("Mul", "scaled", &[&x, "scale"], &[]);
    let x = builder.node("Conv", "b", &[&x, "b.weight"], &[("strides", Attribute::Ints(vec![2]))]);
    let x = builder.node("MaxPool", "pool", &[&x], &[("kernel_shape", Attribute::Ints(vec![2]))]);
    let axes = [("axes", Attribute::Ints(vec![2])), ("keepdims", Attribute::Int(0))];
    let x = builder.node("ReduceMean", "mean", &[&x], &axes);
    let output = builder.node("Gemm", "fc", &[&x, "fc.weight"], &[("transB", Attribute::Int(1))]);
    let model = builder.finish("row", [3, 1, 16], &output, 3).unwrap();
    let cuts = cut(&model, 0.4);
    assert!(was_cut(&cuts, "a.weight") && was_cut(&cuts, "b.weight") && was_cut(&cuts, "fc.weight"), "{cuts:?}");
    let coupling = Coupling::new(&model, |_| None);
    let scale = coupling.uses.iter().find(|one| one.param == "scale").unwrap();
    assert_eq!((scale.axis, scale.units.len()), (0, 6));
}

/// Conv, its pixels as a sequence of tokens, a product with a bias, all tokens flattened, classified.
fn tokens(flatten: &str) -> Model {
    let mut builder = GraphBuilder::default();
    builder.tensor("a.weight", &numbers(&[4, 2, 1, 1]));
    builder.tensor("b.weight", &numbers(&[4, 6]));
    builder.tensor("b.bias", &numbers(&[6]));
    builder.tensor("fc.weight", &numbers(&[3, 6 * 6]));
    let row = builder.integers("row", &[0, 4, -1]);
    let x = builder.node("Conv", "a", &["input", "a.weight"], &[]);
    let x = builder.node("Reshape", "pixels", &[&x, &row], &[]);
    let x = builder.node("Transpose", "tokens", &[&x], &[("perm", Attribute::Ints(vec![0, 2, 1]))]);
    let x = builder.node("MatMul", "b", &[&x, "b.weight"], &[]);
    let x = builder.node("Add", "biased", &[&x, "b.bias"], &[]);
    let x = builder.node("Relu", "relu", &[&x], &[]);
    let all = builder.integers("all", &[-1, 36]);
    let x = match flatten {
        "Flatten" => builder.node("Flatten", "flat", &[&x], &[]),
        _ => builder.node("Reshape", "flat", &[&x, &all], &[]),
    };
    let output = builder.node("Gemm", "fc", &[&x, "fc.weight"], &[("transB", Attribute::Int(1))]);
    builder.finish("tokens", [2, 2, 3], &output, 3).unwrap()
}

#[test]
fn channels_of_tokens_are_the_last_axis() {
    for flatten in ["Flatten", "Reshape"] {
        let model = tokens(flatten);
        let cuts = cut(&model, 0.3);
        assert!(["a.weight", "b.weight", "fc.weight"].iter().all(|param| was_cut(&cuts, param)), "{flatten}: {cuts:?}");
        let coupling = Coupling::new(&model, |_| None);
        let units =
            |param: &str, role: Role| &coupling.uses.iter().find(|one| one.param == param && one.role == role).unwrap().units;
        assert_eq!(units("fc.weight", Role::Input)[..], units("b.weight", Role::Output).repeat(6), "{flatten}: token by token");
    }
}

#[test]
fn images_flattened_have_their_channels_one_after_another() {
    let mut builder = GraphBuilder::default();
    builder.tensor("a.weight", &numbers(&[4, 2, 1, 1]));
    builder.tensor("fc.weight", &numbers(&[3, 16]));
    let a = builder.node("Conv", "a", &["input", "a.weight"], &[]);
    let flat = builder.node("Flatten", "flat", &[&a], &[]);
    let output = builder.node("Gemm", "fc", &[&flat, "fc.weight"], &[("transB", Attribute::Int(1))]);
    let model = builder.finish("images", [2, 2, 2], &output, 3).unwrap();
    assert!(was_cut(&cut(&model, 0.3), "fc.weight"));
    let coupling = Coupling::new(&model, |_| None);
    let inputs = coupling.uses.iter().find(|one| one.param == "fc.weight" && one.role == Role::Input).unwrap();
    assert!(inputs.units.chunks_exact(4).all(|pixels| pixels.iter().all(|unit| *unit == pixels[0])));
}

#[test]
fn operations_that_mix_channels_with_another_axis_freeze_them() {
    // Operations, a second input, and a permutation.
    let model = |between: &[(&str, &str, &[i64])]| {
        let mut builder = GraphBuilder::default();
        builder.tensor("a.weight", &numbers(&[4, 2, 1, 1]));
        builder.tensor("matrix", &numbers(&[4, 4]));
        builder.tensor("c.weight", &numbers(&[3, 4, 1, 1]));
        builder.integers("groups", &[0, 2, 2, 4, 4]);
        builder.integers("images", &[0, 4, 4, 4]);
        let mut x = builder.node("Conv", "a", &["input", "a.weight"], &[]);
        for (index, &(op, second, perm)) in between.iter().enumerate() {
            let name = format!("n{index}");
            x = match second {
                "" if perm.is_empty() => builder.node(op, &name, &[&x], &[]),
                "" => builder.node(op, &name, &[&x], &[("perm", Attribute::Ints(perm.to_vec()))]),
                second => builder.node(op, &name, &[&x, second], &[]),
            };
        }
        let c = builder.node("Conv", "c", &[&x, "c.weight"], &[]);
        let pooled = builder.node("GlobalAveragePool", "pool", &[&c], &[]);
        let output = builder.node("Flatten", "flat", &[&pooled], &[]);
        builder.finish("mixed", [2, 4, 4], &output, 3).unwrap()
    };
    let shuffled = model(&[("Reshape", "groups", &[]), ("Transpose", "", &[0, 2, 1, 3, 4]), ("Reshape", "images", &[])]);
    // Along the width, not along the channels, which are as many.
    let beside = model(&[("MatMul", "matrix", &[])]);
    let turned = model(&[("Transpose", "", &[0, 3, 2, 1])]);
    for (what, model) in [("shuffled", shuffled), ("beside", beside), ("turned", turned)] {
        let coupling = Coupling::new(&model, |_| None);
        assert!(reason(&coupling, "a.weight", Role::Output).is_some(), "{what}");
    }
    let back = model(&[("Transpose", "", &[0, 2, 3, 1]), ("Relu", "", &[]), ("Transpose", "", &[0, 3, 1, 2])]);
    assert_eq!(reason(&Coupling::new(&back, |_| None), "a.weight", Role::Output), None);
}

/// Parts of channels by a Split, normalised one by one, and joined again.
#[test]
fn parts_of_channels_stay_equal() {
    let mut builder = GraphBuilder::default();
    for (name, shape) in [("a.weight", vec![8, 3, 1, 1]), ("b.weight", vec![5, 4, 3, 3]), ("scale", vec![8]), ("shift", vec![8])]
    {
        builder.tensor(name, &numbers(&shape));
    }
    builder.tensor("fc.weight", &numbers(&[3, 5]));
    let x = builder.node("Conv", "a", &["input", "a.weight"], &[]);
    let x = builder.node("InstanceNormalization", "norm", &[&x, "scale", "shift"], &[]);
    builder.nodes("Split", &["left", "right"], &[&x], &[("axis", Attribute::Int(1))]);
    let x = builder.node("Gelu", "gelu", &["left"], &[]);
    let x = builder.node("Mul", "gated", &[&x, "right"], &[]);
    let x = builder.node("Conv", "b", &[&x, "b.weight"], &[]);
    let x = builder.node("GlobalMaxPool", "pool", &[&x], &[]);
    let x = builder.node("Flatten", "flat", &[&x], &[]);
    let x = builder.node("Gemm", "fc", &[&x, "fc.weight"], &[("transB", Attribute::Int(1))]);
    let model = builder.finish("split", [3, 6, 6], &x, 3).unwrap();
    let cuts = cut(&model, 0.7);
    assert!(was_cut(&cuts, "a.weight") && was_cut(&cuts, "b.weight"), "{cuts:?}");
}
