//! State dicts as `torch.save` writes them.

use crate::error::{Error, Result};
use crate::formats::atomic;
use crate::formats::weights::state_names;
use crate::model::Model;
use crate::tensor::{Tensor, strides};
use std::io::Write;
use std::path::Path;

/// Writes the model's state dict as `torch.save` does (the zip format of torch 1.6 and later).
pub fn write(model: &Model, path: &Path) -> Result<()> {
    let bytes = encode(model).map_err(|e| e.at(path.display()))?;
    atomic::write(path, &bytes)
}

/// The bytes of the file.
pub fn encode(model: &Model) -> Result<Vec<u8>> {
    let names = state_names(model);
    let tensors: Vec<(&str, &Tensor)> = model
        .params
        .iter()
        .filter(|(name, _)| names.contains(*name))
        .filter_map(|(name, param)| Some((name, param.f32()?)))
        .collect();
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut file = |name: String, bytes: &[u8]| {
        zip.start_file(format!("archive/{name}"), stored)
            .map_err(|e| Error::format(e.to_string()))
            .and_then(|()| zip.write_all(bytes).map_err(|e| Error::format(e.to_string())))
    };
    file("data.pkl".into(), &pickle(&tensors))?;
    file("byteorder".into(), b"little")?;
    for (i, (_, tensor)) in tensors.iter().enumerate() {
        file(format!("data/{i}"), &tensor.to_le_bytes())?;
    }
    file("version".into(), b"3\n")?;
    Ok(zip.finish().map_err(|e| Error::format(e.to_string()))?.into_inner())
}

/// An OrderedDict of names and tensors in pickle's protocol 2; tensor `i` lies in storage `i`.
fn pickle(tensors: &[(&str, &Tensor)]) -> Vec<u8> {
    const DICT: &[u8] = b"ccollections\nOrderedDict\n)R";
    let mut out = b"\x80\x02".to_vec();
    out.extend(DICT);
    out.push(b'(');
    for (i, (name, tensor)) in tensors.iter().enumerate() {
        text(&mut out, name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut out, "storage");
        out.extend(b"ctorch\nFloatStorage\n");
        text(&mut out, &i.to_string());
        text(&mut out, "cpu");
        number(&mut out, tensor.len());
        out.extend(b"tQ");
        number(&mut out, 0);
        for numbers in [&tensor.shape, &strides(&tensor.shape)] {
            out.push(b'(');
            numbers.iter().for_each(|&value| number(&mut out, value));
            out.push(b't');
        }
        out.push(0x89); // requires_grad = False
        out.extend(DICT);
        out.extend(b"tR");
    }
    out.extend(b"u.");
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Lengths of tensors that fit in memory need up to eight bytes; pickle's LONG1 counts them itself.
fn number(out: &mut Vec<u8>, value: usize) {
    out.extend([0x8a, 9]);
    out.extend((value as u64).to_le_bytes());
    out.push(0); // the sign
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architectures::{Shape, build};
    use crate::formats::weights::read_into;

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
        let cut = good[..good.len() / 2].to_vec();
        for bytes in [run_code, deep, long, cut, vec![], b"PK\x03\x04".to_vec()] {
            std::fs::write(&path, &bytes).unwrap();
            let error = read_into(&mut lenet(2), &path).unwrap_err().to_string();
            assert!(error.contains("weights.pth"), "{error}");
        }
    }
}
