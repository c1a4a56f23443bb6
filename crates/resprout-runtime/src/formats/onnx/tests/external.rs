//! External data.

use super::*;
use crate::formats::onnx::proto::StringEntry;
use crate::formats::onnx::{Storage, external_files, read, write};
use std::path::Path;

fn outside(tensor: TensorProto, entries: &[(&str, &str)]) -> TensorProto {
    let entry = |&(key, value): &(&str, &str)| StringEntry { key: key.into(), value: value.into() };
    TensorProto { raw_data: Default::default(), data_location: 1, external_data: entries.iter().map(entry).collect(), ..tensor }
}

fn read_in(folder: &Path, proto: &ModelProto) -> Result<Model> {
    let path = folder.join("model.onnx");
    std::fs::write(&path, proto.encode_to_vec()).unwrap();
    read(&path)
}

#[test]
fn external_data_are_read_in_slices_and_written_back() {
    let folder = tempfile::tempdir().unwrap();
    let weights = floats("w", &[4, 100]);
    std::fs::write(folder.path().join("weights.bin"), [&[0u8; 16][..], &weights.raw_data].concat()).unwrap();
    let entries = [("location", "weights.bin"), ("offset", "16"), ("length", "1600")];
    let proto = model(&[0, 4], vec![node("MatMul", &["x", "w"], &["y"])], vec![outside(weights.clone(), &entries)]);
    let inline = parse_proto(&model(&[0, 4], vec![node("MatMul", &["x", "w"], &["y"])], vec![weights])).unwrap();
    let dense = read_in(folder.path(), &proto).unwrap();
    assert_eq!(run(&dense, &[4]), run(&inline, &[4]));
    let sparse = pruned(&dense, "w");
    check_back(&sparse, &[4]);
    let target = folder.path().join("out.onnx");
    write(&sparse, &target, Storage::External, |_| Ok(())).unwrap();
    let files = external_files(&target).unwrap();
    assert_eq!(files, [folder.path().join("out.onnx.data")]);
    assert_eq!(std::fs::metadata(&files[0]).unwrap().len(), 1600);
    assert!(std::fs::metadata(&target).unwrap().len() < 400);
    assert_eq!(run(&read(&target).unwrap(), &[4]), run(&sparse, &[4]));
}

#[test]
fn external_data_that_do_not_fit_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("short.bin"), [0u8; 100]).unwrap();
    let nodes = || vec![node("MatMul", &["x", "a"], &["h"]), node("MatMul", &["h", "b"], &["y"])];
    let try_with = |a: &[(&str, &str)], b: &[(&str, &str)]| {
        let initializers = vec![outside(floats("a", &[4, 4]), a), outside(floats("b", &[4, 4]), b)];
        read_in(folder.path(), &model(&[0, 4], nodes(), initializers)).unwrap_err().to_string()
    };
    let fine = [("location", "short.bin"), ("offset", "0"), ("length", "64")];
    for (b, expected) in [
        (vec![("location", "short.bin"), ("offset", "40")], "64 bytes at 40 are needed, the file has 100"),
        (vec![("location", "short.bin"), ("offset", "32"), ("length", "64")], "overlap those of \"a\""),
        (vec![("location", "short.bin"), ("offset", "64"), ("length", "36")], "36 bytes for a tensor that takes 64"),
        (vec![("location", "../short.bin")], "outside the model's folder"),
        (vec![("location", "nothing.bin")], "nothing.bin"),
        (vec![("offset", "0")], "without a location"),
        (vec![("location", "short.bin"), ("offset", "-1")], "is not a number"),
        (vec![("location", "short.bin"), ("offset", "18446744073709551615")], "are needed"),
    ] {
        let error = try_with(&fine, &b);
        assert!(error.contains(expected) && error.contains("initializer \"b\"") && error.contains("model.onnx"), "{error}");
    }
}
