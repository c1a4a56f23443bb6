//! PyTorch state dicts (.pth, .pt, .th): in, without running any code of the file, and out.

use crate::error::{Error, Result};
use crate::formats::atomic;
use crate::model::Model;
use crate::ops::Op;
use crate::tensor::{Tensor, strides};
use pytorch_reader::{DType, PytorchReader};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

/// Where training scripts keep the state dict in a larger checkpoint.
const KEYS: [&str; 5] = ["state_dict", "model_state_dict", "model", "net", "weights"];
/// What `DataParallel` puts in front of every name.
const PARALLEL: &str = "module.";
/// Counters that torch keeps beside the statistics; nothing is computed with them.
const COUNTER: &str = "num_batches_tracked";
/// More names than this are not worth reading.
const LISTED: usize = 8;

/// Replaces every weight, bias and statistic of `model` by those of the file. Names and shapes must be
/// the model's: what is missing, and what is in the file but not in the model, is an error that lists it.
pub fn read_into(model: &mut Model, path: &Path) -> Result<()> {
    let tensors = tensors(path).map_err(|e| e.at(path.display()))?;
    place(model, tensors).map_err(|e| e.at(path.display()))
}

fn place(model: &mut Model, tensors: BTreeMap<String, Tensor>) -> Result<()> {
    let expected = state_names(model);
    let missing: Vec<&String> = expected.iter().filter(|name| !tensors.contains_key(*name)).collect();
    let unexpected: Vec<&String> = tensors.keys().filter(|name| !expected.contains(*name)).collect();
    if !missing.is_empty() || !unexpected.is_empty() {
        return Err(Error::data(format!(
            "the file's names are not the model's: {} missing{}, {} unexpected{}",
            missing.len(),
            list(&missing),
            unexpected.len(),
            list(&unexpected)
        )));
    }
    let mut next = model.clone();
    for (name, tensor) in tensors {
        let Some(target) = next.params.f32_mut(&name) else { continue };
        if target.shape != tensor.shape {
            return Err(Error::data(format!("{name:?}: shape {:?} in the file, {:?} in the model", tensor.shape, target.shape)));
        }
        target.data = tensor.data;
    }
    next.apply_masks();
    *model = next;
    Ok(())
}

fn list(names: &[&String]) -> String {
    let shown: Vec<String> = names.iter().take(LISTED).map(|name| format!("{name:?}")).collect();
    match names.len() {
        0 => String::new(),
        count if count > LISTED => format!(" ({}, ...)", shown.join(", ")),
        _ => format!(" ({})", shown.join(", ")),
    }
}

/// What a state dict holds of a model: what layers have been trained or measured to.
fn state_names(model: &Model) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for layer in &model.graph.layers {
        let inputs: &[usize] = match layer.op {
            Op::Conv(_) | Op::ConvTranspose(_) | Op::Gemm { .. } => &[1, 2],
            Op::MatMul => &[0, 1],
            Op::BatchNorm { .. } => &[1, 2, 3, 4],
            _ => &[],
        };
        let read = inputs.iter().filter_map(|&index| layer.input(index));
        names.extend(read.filter(|name| model.params.f32(name).is_some()).map(String::from));
    }
    names
}

fn tensors(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let nested = KEYS.iter().find_map(|key| PytorchReader::with_top_level_key(path, key).ok().filter(|r| !r.is_empty()));
    let reader = match nested {
        Some(reader) => reader,
        None => PytorchReader::new(path).map_err(|e| match std::fs::metadata(path) {
            Err(io) => Error::new(crate::ErrorKind::Io, io.to_string()),
            Ok(_) => Error::format(format!("no PyTorch state dict, or one that cannot be read safely: {e}")),
        })?,
    };
    let all = reader.into_tensors();
    let parallel = all.keys().all(|name| name.starts_with(PARALLEL));
    let mut tensors = BTreeMap::new();
    for (name, tensor) in all {
        if name.rsplit('.').next() == Some(COUNTER) {
            continue;
        }
        let bytes = tensor.read().map_err(|e| Error::format(format!("{name:?}: {e}")))?;
        let values = floats(tensor.dtype(), &bytes).ok_or_else(|| {
            Error::unsupported(format!("{name:?}: numbers of type {:?}; floating-point numbers are needed", tensor.dtype()))
        })?;
        let short = if parallel { name[PARALLEL.len()..].to_string() } else { name };
        tensors.insert(short, Tensor::new(tensor.shape().to_vec(), values));
    }
    if tensors.is_empty() {
        return Err(Error::format("holds no tensors of a state dict"));
    }
    Ok(tensors)
}

fn floats(dtype: DType, bytes: &[u8]) -> Option<Vec<f32>> {
    match dtype {
        DType::F32 => Some(bytes.as_chunks::<4>().0.iter().map(|&chunk| f32::from_le_bytes(chunk)).collect()),
        DType::F64 => Some(bytes.as_chunks::<8>().0.iter().map(|&chunk| f64::from_le_bytes(chunk) as f32).collect()),
        DType::BF16 => {
            let wide = |chunk: [u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(chunk)) << 16);
            Some(bytes.as_chunks::<2>().0.iter().map(|&chunk| wide(chunk)).collect())
        }
        _ => None,
    }
}

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
