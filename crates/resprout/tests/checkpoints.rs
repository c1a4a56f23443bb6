//! Checkpoints: written and read back.

use resprout::architectures::{Shape, build};
use resprout::formats::pth::{encode, write};
use resprout::formats::weights::read_into;
use resprout::model::Model;

fn lenet(seed: u64) -> Model {
    build("lenet-300-100", &Shape { classes: None, image: None }, "kaiming-in", seed).unwrap()
}

#[test]
fn what_is_written_is_read_back_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.pth");
    let (written, mut read) = (lenet(1), lenet(2));
    write(&written, &path).unwrap();
    read_into(&mut read, &path).unwrap();
    for (name, param) in written.params.iter().filter(|(_, param)| param.f32().is_some()) {
        assert!(read.params.f32(name).unwrap().same_bits(param.f32().unwrap()), "{name}");
    }
}

#[test]
fn other_names_and_shapes_are_listed_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.pth");
    write(&lenet(1), &path).unwrap();
    let shape = Shape { classes: Some(3), image: None };
    let mut other = build("lenet-300-100", &shape, "kaiming-in", 2).unwrap();
    let before = other.params.f32("fc1.weight").unwrap().clone();
    let error = read_into(&mut other, &path).unwrap_err().to_string();
    assert!(error.contains("\"fc3.bias\"") && error.contains("[10]") && error.contains("[3]"), "{error}");
    assert!(other.params.f32("fc1.weight").unwrap().same_bits(&before));
    let mut resnet = build("resnet-20", &Shape { classes: None, image: None }, "kaiming-in", 2).unwrap();
    let error = read_into(&mut resnet, &path).unwrap_err().to_string();
    assert!(error.contains("97 missing") && error.contains("6 unexpected") && error.contains("\"bn1.bias\""), "{error}");
}

#[test]
fn hostile_pickles_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.pth");
    let run_code = b"\x80\x02cposix\nsystem\nX\x0b\x00\x00\x00touch pwnedtR.".to_vec();
    let deep = [b"\x80\x02".to_vec(), vec![b'('; 1 << 20]].concat();
    let long = b"\x80\x02X\xff\xff\xff\x7fa.".to_vec();
    let good = encode(&lenet(1)).unwrap();
    let truncated = good[..good.len() / 2].to_vec();
    for bytes in [run_code, deep, long, truncated, vec![], b"PK\x03\x04".to_vec()] {
        std::fs::write(&path, &bytes).unwrap();
        let error = read_into(&mut lenet(2), &path).unwrap_err().to_string();
        assert!(error.contains("weights.pth"), "{error}");
    }
}
