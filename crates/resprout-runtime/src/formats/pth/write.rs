//! Writes state dicts as `torch.save` does.

use crate::error::{Error, Result};
use crate::formats::atomic;
use crate::formats::state_dict::state_names;
use crate::model::Model;
use crate::tensor::{Tensor, strides};
use std::borrow::Cow;
use std::io::Write;
use std::path::Path;

/// Writes the model's state dict as `torch.save` does (the zip format of torch 1.6 and later).
pub fn write(model: &Model, path: &Path) -> Result<()> {
    let bytes = encode(model).map_err(|e| e.at(path.display()))?;
    atomic::write(path, &bytes)
}

/// The bytes of the file that [`write()`] writes.
pub fn encode(model: &Model) -> Result<Vec<u8>> {
    let names = state_names(model);
    let floats = model.params.iter().filter(|(name, _)| names.contains(*name));
    let floats = floats.filter_map(|(name, param)| Some((name, param.f32()?)));
    let tensors: Vec<(&str, Cow<Tensor>)> =
        floats.map(|(name, tensor)| Ok((name, model.stored_tensor(name, tensor)?))).collect::<Result<_>>()?;
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
fn pickle(tensors: &[(&str, Cow<Tensor>)]) -> Vec<u8> {
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

/// An integer as pickle's LONG1: the count of its bytes, up to eight, and a sign byte.
fn number(out: &mut Vec<u8>, value: usize) {
    out.extend([0x8a, 9]);
    out.extend((value as u64).to_le_bytes());
    out.push(0); // the sign
}
