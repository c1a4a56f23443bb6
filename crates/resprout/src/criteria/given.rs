//! Scores that a file gives: those of `score --scores`, or of any other program.

use super::{Criterion, ScoreInput};
use crate::error::{Error, Result};
use crate::formats::safetensors;
use crate::hash::sha256;
use std::collections::HashMap;
use std::path::Path;

/// What a criterion begins with whose scores are in a file: `scores=FILE`, or `scores=FILE#HASH` for a file of these contents.
///
/// The file is safetensors with a tensor of 32-bit or 64-bit floats per prunable weight, by the parameter's name:
/// [`write_numbers`](crate::formats::safetensors::write_numbers) writes one. `HASH` is the first 16 digits of its SHA-256.
#[doc(hidden)]
pub const GIVEN: &str = "scores=";

/// Digits of the hash.
const DIGITS: usize = 16;

/// Scores by parameter, one for each weight.
pub(crate) struct Given(HashMap<String, Vec<f64>>);

impl Given {
    /// Reads the file that a criterion names; `None` for other criteria.
    pub(crate) fn read(criterion: &str) -> Result<Option<Given>> {
        let Some(text) = criterion.strip_prefix(GIVEN) else { return Ok(None) };
        let (file, hash) = text.rsplit_once('#').map_or((text, None), |(file, hash)| (file, Some(hash)));
        let bytes = std::fs::read(file).map_err(|e| Error::io(Path::new(file), e))?;
        if hash.is_some_and(|hash| hash != &sha256(&bytes)[..DIGITS]) {
            return Err(Error::data(format!("{file}: the scores are others than when the work began")));
        }
        safetensors::decode_numbers(&bytes).map(|scores| Some(Given(scores))).map_err(|e| e.at(file))
    }
}

/// The criterion with a hash of its file, so that results can be told apart when the file changes. Criteria without a file stay
/// as they are.
///
/// # Errors
/// Of kind `Io`, with the file's name.
#[doc(hidden)]
pub fn pinned(criterion: &str) -> Result<String> {
    match criterion.strip_prefix(GIVEN).filter(|file| !file.contains('#')) {
        None => Ok(criterion.into()),
        Some(file) => {
            let bytes = std::fs::read(file).map_err(|e| Error::io(Path::new(file), e))?;
            Ok(format!("{criterion}#{}", &sha256(&bytes)[..DIGITS]))
        }
    }
}

impl Criterion for Given {
    /// No scores at all where the file has none of the layer: too few are an error that names it.
    fn score(&self, input: &ScoreInput) -> Vec<f64> {
        self.0.get(&input.layer.param).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::criteria::layer_of;

    #[test]
    fn a_file_gives_scores_and_its_hash_holds_them() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("scores.safetensors");
        let write = |scores: Vec<f64>| safetensors::write_numbers(&[("weight".into(), vec![3], scores)], &file).unwrap();
        write(vec![0.1, 1e-300, 2.0]);
        let text = pinned(&format!("{GIVEN}{}", file.display())).unwrap();
        let given = Given::read(&text).unwrap().unwrap();
        let weights = [1.0; 3];
        assert_eq!(given.score(&ScoreInput { weights: &weights, layer: &layer_of(3), index: 0 }), [0.1, 1e-300, 2.0]);
        assert_eq!(pinned(&text).unwrap(), text);
        write(vec![0.1, 1e-300, 3.0]);
        assert!(Given::read(&text).err().unwrap().to_string().contains("others"));
        assert!(Given::read("magnitude").unwrap().is_none());
        assert_eq!(pinned("magnitude").unwrap(), "magnitude");
    }
}
