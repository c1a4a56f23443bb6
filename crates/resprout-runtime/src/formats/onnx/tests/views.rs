//! Weights that a layer reads through other nodes, and numbers that several layers share.

use super::*;
use half::f16;

#[test]
fn a_weight_behind_nodes_that_move_it_is_pruned_where_it_is_stored() {
    let nodes = vec![
        with_ints(node("Transpose", &["fc.weight"], &["t"]), "perm", &[1, 0]),
        node("Identity", &["t"], &["i"]),
        node("MatMul", &["x", "i"], &["h"]),
        node("Reshape", &["flat", "shape"], &["r"]),
        node("MatMul", &["h", "r"], &["y"]),
    ];
    let initializers = vec![floats("fc.weight", &[3, 4]), floats("flat", &[6]), ints("shape", &[3, 2])];
    let dense = parse_proto(&model(&[0, 4], nodes, initializers)).unwrap();
    let (names, left) = prunable(&dense);
    assert_eq!(names, ["fc.weight", "flat"]);
    assert!(left.is_empty());
    assert_eq!(dense.params.f32("fc.weight").unwrap().shape, [4, 3]);
    assert_eq!(dense.stored_shape("fc.weight").unwrap().unwrap(), [3, 4]);
    assert!(dense.can_be_cut("fc.weight") && !dense.can_be_cut("flat"));
    let sparse = pruned(&pruned(&dense, "fc.weight"), "flat");
    let back = check_back(&sparse, &[4]);
    // The file keeps the layout of the weight, and the nodes.
    let bytes = encode(&back).unwrap();
    let stored = ModelProto::decode(&bytes[..]).unwrap().graph.unwrap();
    assert_eq!(stored.initializer[0].dims, [3, 4]);
    assert_eq!(stored.node.len(), 5);
    // Other formats keep weights and masks in the layout of the network's file.
    let file = crate::formats::sparse::decode(&crate::formats::sparse::encode(&sparse).unwrap()).unwrap().unwrap();
    assert_eq!(file.masks, sparse.masks);
    assert_eq!(run(&file, &[4]), run(&sparse, &[4]));
    let weights = crate::formats::safetensors::encode(&sparse).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&weights).unwrap();
    assert_eq!(tensors.tensor("fc.weight").unwrap().shape(), [3, 4]);
    let mut read = dense.clone();
    crate::formats::safetensors::decode_into(&mut read, &weights).unwrap();
    assert_eq!((run(&read, &[4]), &read.masks), (run(&sparse, &[4]), &sparse.masks));
}

#[test]
fn a_weight_that_several_nodes_read_is_pruned_for_all_of_them() {
    let nodes = vec![
        with_ints(node("Transpose", &["w"], &["t"]), "perm", &[1, 0]),
        node("MatMul", &["x", "t"], &["h"]),
        node("MatMul", &["h", "w"], &["y"]),
    ];
    let dense = parse_proto(&model(&[0, 4], nodes, vec![floats("w", &[3, 4])])).unwrap();
    assert_eq!(prunable(&dense).0, ["w"]);
    let sparse = pruned(&dense, "w");
    assert_eq!(run(&sparse, &[4]), run(&again(&sparse), &[4]));
}

#[test]
fn half_precision_behind_a_cast_stays_half_where_that_is_exact() {
    let raw: Vec<u8> = numbers(12).iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
    let half = TensorProto {
        name: "w".into(),
        dims: vec![4, 3],
        data_type: data_type::FLOAT16,
        raw_data: raw.into(),
        ..Default::default()
    };
    let nodes = vec![with_int(node("Cast", &["w"], &["f"]), "to", 1), node("MatMul", &["x", "f"], &["y"])];
    let dense = parse_proto(&model(&[0, 4], nodes, vec![half.clone()])).unwrap();
    let stored = |model: &Model| ModelProto::decode(&encode(model).unwrap()[..]).unwrap().graph.unwrap().initializer[0].data_type;
    let sparse = pruned(&dense, "w");
    assert_eq!(stored(&sparse), data_type::FLOAT16);
    check_back(&sparse, &[4]);
    // A number that half precision does not have makes it 32-bit floats, which the Cast keeps.
    let mut repaired = sparse.clone();
    repaired.params.f32_mut("w").unwrap().data[1] = 0.1;
    assert_eq!(stored(&repaired), data_type::FLOAT);
    check_back(&repaired, &[4]);
    // Without a Cast it is listed as dense.
    let direct = parse_proto(&model(&[0, 4], vec![node("MatMul", &["x", "w"], &["y"])], vec![half])).unwrap();
    let (names, left) = prunable(&direct);
    assert!(names.is_empty() && left[0].reason.starts_with("float16") && left[0].weights == 12, "{left:?}");
}

fn norm(x: &str, y: &str, of: [&str; 4]) -> NodeProto {
    node("BatchNormalization", &[x, of[0], of[1], of[2], of[3]], &[y])
}

#[test]
fn numbers_that_normalisations_share_are_changed_one_by_one() {
    let vectors = || ["g", "b", "m"].map(|name| floats(name, &[3]));
    let var = || TensorProto {
        raw_data: [1.5f32, 2.0, 0.5].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into(),
        ..floats("v", &[3])
    };
    // Simplifiers write numbers that are read twice. The TorchScript exporter hands them on by Identity.
    let direct = vec![norm("x", "a", ["g", "b", "b", "v"]), norm("a", "y", ["g", "b", "m", "v"])];
    let handed = vec![
        node("Identity", &["g"], &["n2.weight"]),
        norm("x", "a", ["g", "b", "m", "v"]),
        norm("a", "y", ["n2.weight", "b", "m", "v"]),
    ];
    for nodes in [direct, handed] {
        let dense = parse_proto(&model(&[0, 3, 2, 2], nodes, vectors().into_iter().chain([var()]).collect())).unwrap();
        assert_eq!(encode(&dense).unwrap(), encode(&again(&dense)).unwrap());
        let first = dense.graph.layers[0].inputs[1].clone();
        let second = dense.graph.layers[1].inputs[1].clone();
        assert_ne!(first, second);
        for changed in [first, second] {
            let mut repaired = dense.clone();
            repaired.params.f32_mut(&changed).unwrap().data[1] = 9.0;
            check_back(&repaired, &[3, 2, 2]);
        }
    }
}
