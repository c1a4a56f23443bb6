//! The recipe of a study: its file, and the models and images that it names.

use crate::args::{ImageArgs, NetworkArgs};
use crate::commands::{images, read_computable};
use crate::embedded;
use resprout::criteria::pinned;
use resprout::data::{ImageSet, LabelSource, Preprocess};
use resprout::eval::sha256;
use resprout::formats::onnx;
use resprout::model::{Model, PrunableRule};
use resprout::study::{Cell, Failure, Grid, Images, Subject};
use resprout::{Error, ErrorKind, Result};
use resprout_train::REPAIRS;
use resprout_train::study::TrainStudy;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The embedded network and its images.
const DIGITS: &str = "digits";

/// Calibration images for seeds other than 0 are drawn from the first so many times the largest number.
const POOL: usize = 4;

/// Everything that decides what a study measures. Keys that are missing have the defaults of [`StudyRecipe::default`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct StudyRecipe {
    /// What is studied.
    pub models: Vec<Entry>,
    /// Images of every model that does not name its own.
    #[serde(flatten)]
    pub images: ImageKeys,
    /// What is tried on each of them.
    #[serde(flatten)]
    pub grid: Grid,
    /// As `prune --ignore`.
    pub ignore: Vec<String>,
    /// As `prune --include-grouped`.
    pub include_grouped: bool,
    /// As `prune --regrow`.
    pub regrow: bool,
    /// As `prune --memory`, for each job, and for the decoded test images.
    pub memory: f64,
    /// Calibration images on which each layer is compared with the dense one; 0 for none.
    pub diagnostic_images: usize,
}

impl Default for StudyRecipe {
    fn default() -> StudyRecipe {
        StudyRecipe {
            models: Vec::new(),
            images: ImageKeys::default(),
            grid: Grid::default(),
            ignore: Vec::new(),
            include_grouped: false,
            regrow: false,
            memory: 4.0,
            diagnostic_images: 64,
        }
    }
}

/// A model of a study.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// The file, or `digits` for the embedded network.
    pub path: PathBuf,
    /// In the study; the file's name without ending if it is missing.
    pub name: Option<String>,
    /// As `--arch`, for files of weights alone.
    pub arch: Option<String>,
    /// As `--classes`.
    pub classes: Option<NonZeroUsize>,
    /// As `--weights`.
    pub weights: Option<PathBuf>,
    /// Its own images.
    #[serde(flatten)]
    pub images: ImageKeys,
}

/// Images and their preprocessing, as the options of `prune` have it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageKeys {
    /// Unlabelled images for criterion and repair.
    pub calibration: Option<PathBuf>,
    /// Images to measure on.
    pub data: Option<PathBuf>,
    pub labels: Option<String>,
    pub limit: Option<NonZeroUsize>,
    pub preset: Option<String>,
    pub mean: Option<Vec<f32>>,
    pub std: Option<Vec<f32>>,
    pub scale: Option<f32>,
    pub resize: Option<usize>,
    pub crop: Option<Crop>,
}

/// `224` or `224x192`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Crop {
    Square(usize),
    Text(String),
}

impl ImageKeys {
    /// These, or where they are missing those of all models.
    fn or(&self, all: &ImageKeys) -> ImageKeys {
        macro_rules! or {
            ($($key:ident),*) => { ImageKeys { $($key: self.$key.clone().or_else(|| all.$key.clone())),* } };
        }
        or!(calibration, data, labels, limit, preset, mean, std, scale, resize, crop)
    }

    fn arguments(&self) -> ImageArgs {
        ImageArgs {
            labels: self.labels.clone().unwrap_or_else(|| "auto".into()),
            limit: self.limit,
            preset: self.preset.clone(),
            mean: self.mean.clone(),
            std: self.std.clone(),
            scale: self.scale,
            resize: self.resize,
            crop: self.crop.as_ref().map(|crop| match crop {
                Crop::Square(side) => side.to_string(),
                Crop::Text(text) => text.clone(),
            }),
        }
    }
}

fn option(message: String) -> Error {
    Error::new(ErrorKind::Option, message)
}

/// A grid of either kind.
pub enum SweepRecipe {
    Repairs(Box<StudyRecipe>),
    Training(Box<TrainStudy>),
}

/// The key of a grid of training, which has no others beside it.
const TRAIN: &str = "train";

impl SweepRecipe {
    /// Reads a file, or the embedded study.
    pub fn read(path: Option<&Path>) -> Result<SweepRecipe> {
        let Some(path) = path else { return SweepRecipe::parse(embedded::STUDY) };
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        SweepRecipe::parse(&text).map_err(|e| e.at(path.display()))
    }

    fn parse(text: &str) -> Result<SweepRecipe> {
        let mut value: Value = serde_saphyr::from_str(text).map_err(|e| option(e.to_string()))?;
        let Some(train) = value.as_object_mut().and_then(|keys| keys.remove(TRAIN)) else {
            return Ok(SweepRecipe::Repairs(Box::new(StudyRecipe::from_json(value)?)));
        };
        if let Some(key) = value.as_object().and_then(|keys| keys.keys().next()) {
            return Err(option(format!("{key}: a recipe with {TRAIN} has no other keys; those of a run stand below {TRAIN}")));
        }
        let Value::Object(keys) = train else { return Err(option(format!("{TRAIN}: keys and values are needed, not {train}"))) };
        let study = TrainStudy::from_json(keys).and_then(|study| study.check().map(|()| study));
        Ok(SweepRecipe::Training(Box::new(study.map_err(|e| e.at(TRAIN))?)))
    }

    /// Every key, as JSON.
    pub fn to_json(&self) -> Result<Value> {
        match self {
            SweepRecipe::Repairs(recipe) => serde_json::to_value(recipe).map_err(|e| option(e.to_string())),
            SweepRecipe::Training(study) => Ok(serde_json::json!({ TRAIN: study.to_json()? })),
        }
    }
}

impl StudyRecipe {
    fn from_json(mut value: Value) -> Result<StudyRecipe> {
        if value.get("signs_images").is_some() {
            return Err(option("signs_images: this key is called diagnostic_images now".into()));
        }
        check_keys(&value, &StudyRecipe::default(), "")?;
        if let Some(models) = value.get_mut("models").and_then(Value::as_array_mut) {
            for model in models {
                if let Value::String(path) = model {
                    *model = serde_json::json!({ "path": path });
                }
                check_keys(model, &Entry::default(), " of a model")?;
            }
        }
        let mut recipe: StudyRecipe = serde_json::from_value(value).map_err(|e| option(e.to_string()))?;
        for criterion in &mut recipe.grid.criteria {
            *criterion = pinned(criterion)?;
        }
        recipe.check()?;
        Ok(recipe)
    }

    fn check(&self) -> Result<()> {
        if self.models.is_empty() {
            return Err(option("models: at least one is needed".into()));
        }
        if !(self.memory > 0.0 && self.memory < 1e9) {
            return Err(option(format!("memory: {}: a number of gigabytes above 0 is needed", self.memory)));
        }
        let names: Vec<String> = self.models.iter().map(Entry::name).collect();
        if let Some(twice) = (1..names.len()).find(|&i| names[..i].contains(&names[i])) {
            return Err(option(format!("models: {:?} is there twice; give one of them another name", names[twice])));
        }
        self.grid.check(REPAIRS)
    }

    /// Bytes that the images' values may take.
    pub fn memory_bytes(&self) -> usize {
        (self.memory * 1e9) as usize
    }

    /// Opens models and images. What cannot be used is a failure of that model alone.
    /// With notes on what was chosen or left out.
    pub fn subjects(&self) -> Result<(Vec<Subject>, Vec<Failure>, Vec<String>)> {
        let (mut subjects, mut failures, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        let mut shared: Vec<(String, Arc<Images>)> = Vec::new();
        for entry in &self.models {
            let name = entry.name();
            let cells = self.grid.cells(&name)?;
            match entry.open(self, &mut shared, &mut notes) {
                Ok((mut model, sha256, images)) => {
                    let rule = PrunableRule { ignore: self.ignore.clone(), include_grouped: self.include_grouped };
                    match model.keep_zeros(&rule, self.regrow) {
                        Ok(came) => came.iter().for_each(|came| eprintln!("note: {name} {came}")),
                        Err(error) => {
                            failures.push(Failure { cell: Cell::dense(&name), error: error.to_string() });
                            continue;
                        }
                    }
                    subjects.push(Subject { name, model, sha256, images, rule, cells });
                }
                Err(error) => failures.push(Failure { cell: Cell::dense(&name), error: error.to_string() }),
            }
        }
        Ok((subjects, failures, notes))
    }

    /// How many images are calibration images are taken from.
    fn pool(&self) -> usize {
        let largest = self.grid.calibration_images.iter().copied().max().unwrap_or(0);
        if self.grid.seeds.iter().all(|&seed| seed == 0) { largest } else { POOL.saturating_mul(largest) }
    }
}

impl Entry {
    fn name(&self) -> String {
        let stem = || self.path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        self.name.clone().or_else(stem).unwrap_or_default()
    }

    fn open(
        &self,
        recipe: &StudyRecipe,
        shared: &mut Vec<(String, Arc<Images>)>,
        notes: &mut Vec<String>,
    ) -> Result<(Model, String, Arc<Images>)> {
        let keys = self.images.or(&recipe.images);
        if self.path == Path::new(DIGITS) {
            let images = share(shared, DIGITS.into(), || self.digits(recipe, &keys))?;
            return Ok((onnx::parse(embedded::MODEL.to_vec(), None)?, sha256(embedded::MODEL), images));
        }
        let network =
            NetworkArgs { arch: self.arch.clone(), classes: self.classes, weights: self.weights.clone(), fold_weights: false };
        let model = read_computable(&self.path, &network)?;
        let args = keys.arguments();
        let (preprocess, chosen) = images::preprocess(&args, &model)?;
        notes.extend(chosen.iter().map(|note| format!("{}: {note}", self.name())));
        let channels = images::channels(&model);
        let identity = format!("{keys:?} {preprocess:?} {channels}");
        let images = share(shared, identity, || open_images(recipe, &keys, &args, channels, &preprocess, notes))?;
        let mut identity = format!("{:?} {:?}", self.arch, self.classes);
        for file in [Some(&self.path), self.weights.as_ref()].into_iter().flatten() {
            identity += &sha256(&std::fs::read(file).map_err(|e| Error::io(file, e))?);
        }
        Ok((model, sha256(identity.as_bytes()), images))
    }

    fn digits(&self, recipe: &StudyRecipe, keys: &ImageKeys) -> Result<Images> {
        if let Some(path) = keys.calibration.as_ref().or(keys.data.as_ref()) {
            return Err(option(format!("models: {DIGITS}: has images of its own; {} cannot replace them", path.display())));
        }
        let splits = embedded::splits()?;
        let mut test = splits.test.ok_or_else(|| option("digits: no test images".into()))?;
        if let Some(limit) = keys.limit {
            test.truncate(limit.get());
        }
        load(recipe, splits.train, test, 1, &embedded::preprocess())
    }
}

/// Images that were opened before, or new ones.
fn share(
    shared: &mut Vec<(String, Arc<Images>)>,
    identity: String,
    open: impl FnOnce() -> Result<Images>,
) -> Result<Arc<Images>> {
    if let Some((_, images)) = shared.iter().find(|(known, _)| *known == identity) {
        return Ok(images.clone());
    }
    let images = Arc::new(open()?);
    shared.push((identity, images.clone()));
    Ok(images)
}

fn open_images(
    recipe: &StudyRecipe,
    keys: &ImageKeys,
    args: &ImageArgs,
    channels: usize,
    preprocess: &Preprocess,
    notes: &mut Vec<String>,
) -> Result<Images> {
    let missing = |key: &str| option(format!("{key}: is needed, for all models or for each"));
    let calibration = keys.calibration.as_ref().ok_or_else(|| missing("calibration"))?;
    let data = keys.data.as_ref().ok_or_else(|| missing("data"))?;
    // Labels of calibration images are not even read.
    let pool = ImageSet::open(calibration, &LabelSource::None)?;
    let test = images::open(data, args)?;
    notes.extend(pool.left_out().chain(test.left_out()));
    load(recipe, pool, test, channels, preprocess)
}

fn load(recipe: &StudyRecipe, mut pool: ImageSet, test: ImageSet, channels: usize, preprocess: &Preprocess) -> Result<Images> {
    pool.truncate(recipe.pool());
    let one = test.load(0..1, channels, preprocess)?.data.len() * size_of::<f32>();
    if let Some(bytes) = one.checked_mul(test.len()).filter(|&bytes| bytes > recipe.memory_bytes()) {
        return Err(option(format!(
            "data: {} images take {:.1} GB decoded, and memory: allows {}; set limit: or memory:",
            test.len(),
            bytes as f64 / 1e9,
            recipe.memory
        )));
    }
    let labels = test.labels().map(<[usize]>::to_vec);
    Ok(Images {
        pool: pool.load(0..pool.len(), channels, preprocess)?,
        test: test.load(0..test.len(), channels, preprocess)?,
        labels,
    })
}

/// Fails on the first key that `known` does not have, and suggests the one that comes nearest.
fn check_keys<T: Serialize>(value: &Value, known: &T, place: &str) -> Result<()> {
    let Value::Object(given) = value else { return Err(option(format!("keys and values are needed{place}, not {value}"))) };
    let Ok(Value::Object(known)) = serde_json::to_value(known) else { return Ok(()) };
    match given.keys().find(|key| !known.contains_key(*key)) {
        Some(key) => {
            let nearest = known.keys().min_by_key(|name| strsim::levenshtein(key, name)).map_or("", String::as_str);
            Err(option(format!("{key}: there is no such key{place}; did you mean {nearest}?")))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<StudyRecipe> {
        StudyRecipe::from_json(serde_saphyr::from_str(text).unwrap())
    }

    #[test]
    fn the_embedded_study_is_valid_and_complete() {
        let recipe = parse(embedded::STUDY).unwrap();
        let rows = resprout::allocation::ALLOCATIONS.iter().map(|entry| entry.name);
        // One that measures the others compares as a sweep does.
        let allocations: Vec<&str> = rows.filter(|name| *name != "measured").collect();
        assert_eq!(recipe.grid.allocations, allocations);
        for entry in resprout::repair::REPAIRS {
            assert!(recipe.grid.repairs.iter().any(|repair| repair == entry.name), "{}", entry.name);
        }
    }

    #[test]
    fn wrong_keys_are_named_with_the_nearest() {
        let wrong = |text: &str| parse(text).unwrap_err().to_string();
        assert!(wrong("models: [a]\nalocations: [erk]").contains("did you mean allocations?"));
        assert!(wrong("models: [{path: a, weigths: b}]").contains("did you mean weights?"));
        assert!(wrong("models: []").contains("models"));
        assert!(wrong("models: [a.onnx, b/a.onnx]").contains("twice"));
        assert!(wrong("models: [a]\nsparsities: [0.5, 1.5]").contains("1.5"));
        assert!(wrong("models: [a]\nsparsities: many").contains("invalid type"));
        assert!(wrong("- models").contains("keys and values"));
    }

    #[test]
    fn a_model_has_its_own_images_or_those_of_all() {
        let recipe = parse("models: [{path: a, crop: 224}, b]\ncrop: 96x64\ndata: x").unwrap();
        let crop = |i: usize| recipe.models[i].images.or(&recipe.images).arguments().crop.unwrap();
        assert_eq!((crop(0).as_str(), crop(1).as_str()), ("224", "96x64"));
    }
}
