//! A model from a file and to a file, whose ending decides on the format.

use super::{onnx, sparse};
use crate::error::{Error, Result};
use crate::model::Model;
use std::path::Path;

impl Model {
    /// Reads a network: an ONNX file, or [sparse safetensors](crate::formats::sparse) if the name ends in `.safetensors`.
    ///
    /// Operations that cannot be computed are no error here: [`check_supported`](crate::forward::check_supported) names them.
    ///
    /// # Errors
    /// Of kind `Io`, `Format` or `Unsupported`, with the file's name; of kind `Data` for safetensors that hold weights alone.
    pub fn open(path: impl AsRef<Path>) -> Result<Model> {
        let path = path.as_ref();
        if !is_safetensors(path) {
            return onnx::read(path);
        }
        let alone = || Error::data(format!("{}: holds weights alone; a network is needed", path.display()));
        sparse::read(path)?.ok_or_else(alone)
    }

    /// Writes the network: as [sparse safetensors](crate::formats::sparse) if the name ends in `.safetensors`, else as ONNX
    /// with every element. The file is read back and compared, and appears whole or not at all. ONNX files hold no masks, but
    /// the zeros that they leave.
    ///
    /// # Errors
    /// Of kind `Io` with the file's name; of kind `Format` if what was written is not read back the same.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        match is_safetensors(path) {
            true => sparse::write(self, path),
            false => onnx::write(self, path, onnx::Storage::Dense, |_| Ok(())),
        }
    }
}

fn is_safetensors(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "safetensors")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::formats::safetensors;
    use std::collections::BTreeMap;

    /// The order of a file's tensors is its own.
    fn floats(model: &Model) -> BTreeMap<String, Vec<f32>> {
        model.params.iter().filter_map(|(name, param)| Some((name.into(), param.f32()?.data.clone()))).collect()
    }

    #[test]
    fn a_model_is_saved_and_opened_in_both_formats() {
        let folder = tempfile::tempdir().unwrap();
        let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("../resprout-cli/assets/digits.onnx");
        let model = Model::open(digits).unwrap();
        for name in ["model.onnx", "model.safetensors"] {
            let path = folder.path().join(name);
            model.save(&path).unwrap();
            assert_eq!(floats(&Model::open(&path).unwrap()), floats(&model), "{name}");
        }
        let weights = folder.path().join("weights.safetensors");
        safetensors::write(&model, &weights).unwrap();
        let error = Model::open(&weights).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.to_string().contains("weights.safetensors"), "{error}");
    }
}
