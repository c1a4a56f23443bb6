//! Sparse files: they read back to the bit, and broken ones are refused.

use proptest::prelude::*;
use resprout::data::{Preprocess, gaussian};
use resprout::formats::onnx::{self, Storage};
use resprout::formats::{safetensors as weights, sparse};
use resprout::forward::{Network, PlanOptions};
use resprout::model::{Model, PrunableRule};
use resprout::progress::Quiet;
use resprout::prune::{PruneOptions, prune};
use resprout::repair::{Chain, RepairOptions};
use resprout::tensor::Tensor;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::HashMap;

const DIGITS: &[u8] = include_bytes!("../../resprout-cli/assets/digits.onnx");
/// No BatchNormalization, layers without bias: testdata/gen/plain.py.
const PLAIN: &[u8] = include_bytes!("../../../testdata/golden/plain.onnx");

fn images(model: &Model) -> Tensor {
    let shape = if model.params.get("conv1.weight").is_some_and(|param| param.shape[1] == 1) { [1, 8, 8] } else { [3, 8, 8] };
    gaussian(5, shape, &Preprocess::preset("raw").unwrap(), 3)
}

fn pruned(bytes: &[u8], sparsity: f64) -> Model {
    let mut model = onnx::parse(bytes.to_vec(), None).unwrap();
    let rule = PrunableRule { include_grouped: true, ..Default::default() };
    let options = PruneOptions { sparsity, allocation: "uniform".into(), rule, ..PruneOptions::default() };
    prune(&mut model, &options, &Tensor::default(), &Quiet).unwrap();
    model
}

/// Pruned, with new biases and with zeros that are not pruned.
fn repaired(bytes: &[u8], sparsity: f64) -> Model {
    let dense = onnx::parse(bytes.to_vec(), None).unwrap();
    let mut model = pruned(bytes, sparsity);
    let images = images(&model);
    Chain::parse("bias").unwrap().repair(&mut model, &dense, &images, &RepairOptions::default(), &Quiet).unwrap();
    let name = model.masks.iter().next().unwrap().0.to_string();
    let kept: Vec<usize> =
        model.masks.get(&name).unwrap().0.iter().enumerate().filter(|(_, kept)| **kept).map(|(i, _)| i).collect();
    let tensor = model.params.f32_mut(&name).unwrap();
    tensor.data[kept[0]] = -0.0;
    tensor.data[kept[1]] = 0.0;
    model
}

fn assert_same(a: &Model, b: &Model) {
    assert_eq!(a.params.iter().count(), b.params.iter().count());
    for (name, param) in a.params.iter() {
        let other = b.params.get(name).unwrap();
        match (param.f32(), other.f32()) {
            (Some(a), Some(b)) => assert!(a.same_numbers(b), "{name}"),
            _ => assert_eq!(param.shape, other.shape, "{name}"),
        }
    }
    let run = |model: &Model| {
        let images = images(model);
        Network::new(model, &images.shape[1..], &PlanOptions::default()).unwrap().run(&images).unwrap()
    };
    assert!(run(a).iter().zip(&run(b)).all(|(a, b)| a.same_bits(b)));
}

#[test]
fn every_format_gives_back_what_went_in() {
    for bytes in [DIGITS, PLAIN] {
        for model in [onnx::parse(bytes.to_vec(), None).unwrap(), pruned(bytes, 0.9), repaired(bytes, 0.8)] {
            let encoded = sparse::encode(&model).unwrap();
            assert_eq!(sparse::encoded_len(&model).unwrap(), encoded.len() as u64);
            let small = sparse::decode(&encoded).unwrap().unwrap();
            assert_same(&model, &small);
            assert_eq!(small.masks, model.masks);
            let standard = onnx::parse(onnx::encode_as(&model, Storage::Sparse).unwrap(), None).unwrap();
            assert_same(&model, &standard);
            // From each format into each other.
            for from in [&small, &standard] {
                assert_same(&model, &onnx::parse(onnx::encode(from).unwrap(), None).unwrap());
                assert_same(&model, &onnx::parse(onnx::encode_as(from, Storage::Sparse).unwrap(), None).unwrap());
                assert_same(&model, &sparse::decode(&sparse::encode(from).unwrap()).unwrap().unwrap());
            }
            // As weights of an existing network.
            let mut other = onnx::parse(bytes.to_vec(), None).unwrap();
            weights::decode_into(&mut other, &sparse::encode(&model).unwrap()).unwrap();
            assert_same(&model, &other);
            assert_eq!(other.masks, model.masks);
        }
    }
}

#[test]
fn sparse_files_are_small() {
    let model = pruned(DIGITS, 0.9);
    let parameters: usize = model.params.iter().filter_map(|(_, param)| param.f32()).map(Tensor::len).sum();
    let (dense, small) = (onnx::encode(&model).unwrap().len(), sparse::encode(&model).unwrap().len());
    // A tenth of the values, one bit for each, the graph and the names.
    assert!(small < 4 * parameters / 5, "{small} bytes for {parameters} parameters");
    let standard = onnx::encode_as(&model, Storage::Sparse).unwrap().len();
    assert!(small < standard && standard < dense / 2, "{small}, {standard}, {dense}");
    // A dense model has no sparse tensors.
    assert_eq!(onnx::encode_as(&onnx::parse(DIGITS.to_vec(), None).unwrap(), Storage::Sparse).unwrap(), DIGITS);
}

/// Name, type, shape and bytes.
type Part = (String, Dtype, Vec<usize>, Vec<u8>);

/// The parts of a sparse file, to be assembled wrongly.
fn parts() -> (Vec<Part>, String) {
    let bytes = sparse::encode(&pruned(DIGITS, 0.9)).unwrap();
    let header = SafeTensors::read_metadata(&bytes).unwrap().1.metadata().clone().unwrap()["resprout"].clone();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    (file.iter().map(|(name, view)| (name.into(), view.dtype(), view.shape().to_vec(), view.data().to_vec())).collect(), header)
}

fn assemble(parts: &[Part], header: &str) -> String {
    let views = parts.iter().map(|(name, dtype, shape, data)| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    let bytes = safetensors::serialize(views, Some(HashMap::from([("resprout".to_string(), header.to_string())]))).unwrap();
    sparse::decode(&bytes).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn parts_that_disagree_are_refused_by_name() {
    let (good, header) = parts();
    let at = |parts: &[Part], end: &str| parts.iter().position(|part| part.0.ends_with(end)).unwrap();
    let mut parts = good.clone();
    let bits = at(&parts, ".bitmask");
    let name = parts[bits].0.strip_suffix(".bitmask").unwrap().to_string();
    parts[bits].3[0] ^= 1;
    let message = assemble(&parts, &header);
    assert!(message.contains(&name) && message.contains("bitmask and values disagree"), "{message}");

    let mut parts = good.clone();
    parts[bits].3.pop();
    parts[bits].2[0] -= 1;
    assert!(assemble(&parts, &header).contains("bytes of bitmask"));

    let mut parts = good.clone();
    parts.remove(at(&good, ".values"));
    assert!(assemble(&parts, &header).contains(".values"));

    let mut parts = good.clone();
    parts.remove(at(&good, "resprout.graph"));
    assert!(assemble(&parts, &header).contains("resprout.graph"));

    for (wrong, part) in [
        (header.replace("\"version\":1", "\"version\":7"), "version 7"),
        (header.replace("\"masks\":[", "\"masks\":[\"no.such\","), "no.such"),
        (header.replacen('{', "", 1), "metadata"),
        (header.replace("\"shapes\":{", "\"shapes\":{\"huge\":[4294967296,4294967296,4294967296],"), "huge"),
    ] {
        let message = assemble(&good, &wrong);
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn invalid_sparse_initializers_are_refused() {
    let model = pruned(DIGITS, 0.9);
    let bytes = onnx::encode_as(&model, Storage::Sparse).unwrap();
    let (name, mask) = model.masks.iter().next().unwrap();
    let places: Vec<usize> = mask.0.iter().enumerate().filter(|(_, kept)| **kept).map(|(i, _)| i).collect();
    let raw = |places: &[usize]| places.iter().flat_map(|&at| (at as i64).to_le_bytes()).collect::<Vec<u8>>();
    let good = raw(&places);
    let start = bytes.windows(good.len()).position(|window| window == good).unwrap();
    let refused = |change: &dyn Fn(&mut Vec<usize>)| {
        let (mut bytes, mut places) = (bytes.clone(), places.clone());
        change(&mut places);
        bytes[start..start + good.len()].copy_from_slice(&raw(&places));
        let message = onnx::parse(bytes, None).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains("ascend"), "{message}");
    };
    refused(&|places| places.swap(0, 1));
    refused(&|places| places[1] = places[0]);
    refused(&|places| *places.last_mut().unwrap() = mask.0.len());
    refused(&|places| *places.last_mut().unwrap() = usize::MAX);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// A hostile file is an error, and causes no panic, endless loop or huge allocation.
    #[test]
    fn broken_sparse_files_never_panic(
        standard in any::<bool>(),
        cut in 0usize..2000,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        head in any::<bool>(),
    ) {
        let model = pruned(DIGITS, 0.9);
        let mut bytes = if standard { onnx::encode_as(&model, Storage::Sparse).unwrap() } else { sparse::encode(&model).unwrap() };
        for (at, value) in flips {
            let end = if head { bytes.len().min(6000) } else { bytes.len() };
            bytes[at.index(end)] = value;
        }
        bytes.truncate(bytes.len() - if cut > 1000 { cut } else { 0 });
        let read = if standard { onnx::parse(bytes, None).map(Some) } else { sparse::decode(&bytes) };
        if let Ok(Some(model)) = read {
            let _ = onnx::encode(&model);
            let _ = sparse::encode(&model);
        }
    }
}
