//! Images of `prune`: those that it calibrates with, and those that it measures on.

use super::request::{CalibrationSource, ImageRequest};
use crate::commands::{VERIFY_IMAGES, images};
use resprout::calibrate::{Checkup, checkup};
use resprout::data::{ImageSet, LabelSource, Preprocess, gaussian};
use resprout::forward::{Network, PlanOptions};
use resprout::model::Model;
use resprout::progress::Progress;
use resprout::report::EvaluationReport;
use resprout::tensor::Tensor;
use resprout::{Error, ErrorKind, Result, eval};

/// Every image that the command works with.
pub struct Data {
    /// With notes on what was chosen.
    pub preprocess: Option<(Preprocess, Vec<String>)>,
    pub calibration: Option<(Tensor, Origin)>,
    evaluation: Option<ImageSet>,
    /// As [`ImageRequest::needed`].
    pub needed: bool,
    /// As [`ImageRequest::settle`].
    settle: bool,
}

/// Where calibration images come from.
pub enum Origin {
    Set(ImageSet),
    Noise,
}

/// The most images of noise.
const MOST_NOISE: usize = 1024;

impl Data {
    /// Reads the calibration images, and opens those to measure on.
    pub fn open(request: &ImageRequest, model: &Model) -> Result<Data> {
        let ImageRequest { most, settle, needed, .. } = *request;
        if request.calibration.is_none() && request.evaluation.is_none() {
            return Ok(Data { preprocess: None, calibration: None, evaluation: None, needed, settle });
        }
        let (preprocess, notes) = images::preprocess(&request.options, model)?;
        let calibration = match &request.calibration {
            Some(CalibrationSource::Path(path)) => {
                // Labels are not even read: nothing below could use them.
                let mut set = ImageSet::open(path, &LabelSource::None)?;
                set.truncate(most);
                let count = if needed { set.len() } else { set.len().min(VERIFY_IMAGES) };
                let images = set.load(0..count, images::channels(model), &preprocess)?;
                Some((without_held_out(images, request.hold_out)?, Origin::Set(set)))
            }
            Some(CalibrationSource::Noise) => {
                Some((noise(model, &preprocess, most.min(MOST_NOISE), request.seed)?, Origin::Noise))
            }
            None => None,
        };
        let evaluation = request.evaluation.as_ref().map(|path| images::open(path, &request.options));
        Ok(Data { preprocess: Some((preprocess, notes)), calibration, evaluation: evaluation.transpose()?, needed, settle })
    }

    /// What is not read of the folders.
    pub fn left_out(&self) -> Vec<String> {
        let calibration = match &self.calibration {
            Some((_, Origin::Set(set))) => Some(set),
            _ => None,
        };
        let other = self.evaluation.as_ref().filter(|set| calibration.is_none_or(|other| other.path() != set.path()));
        calibration.into_iter().chain(other).flat_map(ImageSet::left_out).collect()
    }

    /// The calibration images.
    pub fn images(&self) -> Option<&Tensor> {
        self.calibration.as_ref().map(|(images, _)| images)
    }

    /// Looks at the images that criterion or repair use. Of a request that settles it keeps those that are needed.
    pub fn check_up(&mut self, dense: &Model, memory: usize, progress: &dyn Progress) -> Result<Option<Checkup>> {
        let Some((images, origin)) = self.calibration.as_mut().filter(|_| self.needed) else { return Ok(None) };
        if matches!(origin, Origin::Noise) {
            return Ok(None);
        }
        let found = checkup(dense, images, memory, progress)?;
        if let Some(settled) = found.settled.filter(|_| self.settle) {
            // Statistics do not move between this number and twice as many; the larger one is the safe one.
            *images = images.first((2 * settled).min(images.shape[0]));
        }
        Ok(Some(found))
    }

    /// Measures the networks, the first of which is the dense one, where there are images.
    pub fn evaluate(&self, networks: &[(&str, &Model)], progress: &dyn Progress) -> Result<Option<EvaluationReport>> {
        let Some((preprocess, _)) = &self.preprocess else { return Ok(None) };
        let fallback = match &self.calibration {
            Some((_, Origin::Set(set))) => Some(set),
            _ => None,
        };
        let Some(set) = self.evaluation.as_ref().or(fallback) else { return Ok(None) };
        let image = images::shape(set, networks[0].1, preprocess)?;
        let (names, models): (Vec<&str>, Vec<&Model>) = networks.iter().copied().unzip();
        let ready: Result<Vec<Network>> =
            models.iter().map(|model| Network::new(model, &image, &PlanOptions::default())).collect();
        let run = eval::evaluate(&ready?.iter().collect::<Vec<_>>(), set, preprocess, true, progress)?;
        Ok(Some(EvaluationReport::new(run, &names, set.path().display().to_string(), self.evaluation.is_none())))
    }
}

/// The images without every K-th one.
fn without_held_out(images: Tensor, hold_out: Option<u32>) -> Result<Tensor> {
    let Some(every) = hold_out.map(|every| every as usize) else { return Ok(images) };
    let count = images.shape[0];
    match count < every {
        true => Err(Error::new(ErrorKind::Option, format!("--hold-out {every}: there are only {count} calibration images"))),
        false => Ok(images.hold_out(every).0),
    }
}

/// Noise in the shape of the model's images.
fn noise(model: &Model, preprocess: &Preprocess, count: usize, seed: u64) -> Result<Tensor> {
    let shape = match (images::fixed_size(model), preprocess.crop) {
        (Some(shape), _) => shape,
        (_, Some([height, width])) => [images::channels(model), height, width],
        _ => {
            let message = match resprout::model::fixed_image(model) {
                Some(shape) => {
                    format!("--data-free: noise is drawn as images, not in the shape {shape:?}; give --calibration, an .npy file")
                }
                None => "--data-free: the model leaves the size of its images free; give --crop".into(),
            };
            return Err(Error::new(ErrorKind::Option, message));
        }
    };
    Ok(gaussian(count, shape, preprocess, seed))
}
