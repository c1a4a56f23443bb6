//! Large tensors, which stay in the file until they are read, and damaged files.

use super::*;
use crate::formats::onnx::changes::source_of;
use crate::formats::onnx::{ReadOptions, Storage, read_with, write};
use crate::random::SplitMix64;

/// Two large weights, a tensor in half precision that no layer reads, and a weight of typed numbers.
fn large() -> ModelProto {
    let unread = |name: &str, element, raw: Vec<u8>| TensorProto {
        name: name.into(),
        data_type: element,
        raw_data: raw.into(),
        ..ints(name, &[])
    };
    let half = TensorProto {
        dims: vec![3000],
        ..unread("half", data_type::FLOAT16, numbers(1500).iter().flat_map(|v| v.to_le_bytes()).collect())
    };
    let typed = TensorProto { raw_data: Default::default(), float_data: numbers(2000), ..floats("typed", &[2000, 1]) };
    let nodes =
        vec![node("Gemm", &["x", "w"], &["h"]), node("MatMul", &["h", "v"], &["g"]), node("MatMul", &["g", "typed"], &["y"])];
    model(&[-1, 40], nodes, vec![half, floats("w", &[40, 50]), typed, floats("v", &[50, 2000])])
}

#[test]
fn large_tensors_stay_in_the_file_until_they_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("m.onnx"), folder.path().join("out.onnx"));
    let bytes = large().encode_to_vec();
    std::fs::write(&path, &bytes).unwrap();
    let from_disk = read_with(&path, ReadOptions::default()).unwrap();
    let source = source_of(&from_disk).unwrap();
    assert_eq!(source.detached.len(), 3, "half, w and v");
    assert!(source.bytes.len() < bytes.len() / 4);
    // Unchanged, it is the same file. Written dense or with external data, it has every number.
    assert_eq!(encode(&from_disk).unwrap(), bytes);
    for storage in [Storage::Dense, Storage::External] {
        write(&from_disk, &out, storage, |_| Ok(())).unwrap();
        let back = read_with(&out, ReadOptions::default()).unwrap();
        assert_eq!(run(&back, &[40]), run(&from_disk, &[40]));
        assert_eq!(encode(&back).unwrap(), bytes, "and into one file again");
    }
    let from_memory = pruned(&parse(bytes.clone(), None).unwrap(), "v");
    assert_eq!(encode(&pruned(&from_disk, "v")).unwrap(), encode(&from_memory).unwrap());
    // Cut off anywhere, it is an error.
    for end in [3, 100, bytes.len() / 2, bytes.len() - 5000, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..end]).unwrap();
        assert!(read_with(&path, ReadOptions::default()).is_err(), "{end}");
    }
}

#[test]
fn damaged_files_are_read_from_disk_as_they_are_from_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    let nodes = vec![node("MatMul", &["x", "w"], &["h"]), node("MatMul", &["h", "v"], &["y"])];
    let bytes = model(&[0, 40], nodes, vec![floats("w", &[40, 50]), floats("v", &[50, 30])]).encode_to_vec();
    let mut random = SplitMix64::new(0, 0);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..600 {
        let mut damaged = bytes.clone();
        // Mostly in the structure, not among the numbers.
        let far = if random.next_f64() < 0.1 { damaged.len() } else { 160 };
        let at = (random.next_f64() * far as f64) as usize;
        let at = if random.next_f64() < 0.5 { at } else { damaged.len() - 1 - at };
        damaged[at] = (256.0 * random.next_f64()) as u8;
        std::fs::write(&path, &damaged).unwrap();
        match (parse(damaged, None), read_with(&path, ReadOptions::default())) {
            (Ok(a), Ok(b)) => {
                let bits = |model: &Model| -> Vec<Vec<u8>> {
                    model.params.iter().filter_map(|(_, param)| param.f32()).map(Tensor::to_le_bytes).collect()
                };
                assert_eq!(bits(&a), bits(&b), "byte {at}");
                read += 1;
            }
            (Err(_), Err(_)) => refused += 1,
            (a, b) => panic!("byte {at}: from memory {:?}, from disk {:?}", a.err(), b.err()),
        }
    }
    assert!(read > 50 && refused > 50, "{read} read, {refused} refused");
}
