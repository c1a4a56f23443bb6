//! The grid of a study of training, and its cells.

use super::TrainCell;
use crate::at_init;
use crate::error::option;
use crate::methods::{self, METHODS, MethodRequest};
use crate::recipe::Recipe;
use resprout::architectures::ARCHITECTURES;
use resprout::lipschitz;
use resprout::{Result, table};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::Path;

/// The method of the dense run.
pub(super) const DENSE: &str = "dense";

/// The choices of a study, which trains all their combinations, and the dense network for each architecture, repair and seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainGrid {
    /// Rows of [`ARCHITECTURES`]; none with a model file.
    pub architectures: Vec<String>,
    /// Pruning during training: rows of [`METHODS`] with options.
    pub methods: Vec<String>,
    /// Pruning before training: rows of [`AT_INIT`](crate::at_init::AT_INIT) with options.
    pub prune_at_init: Vec<String>,
    /// Shares of the prunable weights to remove, in (0, 1).
    pub sparsities: Vec<f64>,
    /// Repairs before training and after pruning there: rows of [`INIT_REPAIRS`](resprout::lipschitz::INIT_REPAIRS).
    pub repair_init: Vec<String>,
    /// Seeds of weights, order, augmentation and random masks.
    pub seeds: Vec<u64>,
}

impl Default for TrainGrid {
    fn default() -> TrainGrid {
        TrainGrid {
            architectures: Vec::new(),
            methods: Vec::new(),
            prune_at_init: Vec::new(),
            sparsities: vec![0.5, 0.7, 0.8, 0.9, 0.95],
            repair_init: vec!["none".into()],
            seeds: vec![0],
        }
    }
}

/// A grid, and the recipe of which all its cells take the other keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrainStudy {
    /// What is varied.
    pub grid: TrainGrid,
    /// What all cells share.
    pub recipe: Recipe,
}

/// Keys of a recipe that are lists in a grid.
const VARIED: [(&str, &str); 6] = [
    ("arch", "architectures"),
    ("method", "methods"),
    ("prune_at_init", "prune_at_init"),
    ("sparsity", "sparsities"),
    ("repair_init", "repair_init"),
    ("seed", "seeds"),
];

impl TrainStudy {
    /// Reads keys and values: those of the grid, and those of a recipe that it does not vary.
    ///
    /// # Errors
    /// Of kind `Option`, with the key.
    pub fn from_json(mut keys: Map<String, Value>) -> Result<TrainStudy> {
        if let Some((one, list)) = VARIED.iter().find(|(one, list)| one != list && keys.contains_key(*one)) {
            return Err(option(format!("{one}: a grid has a list of them, {list}")));
        }
        let known = TrainStudy::default().to_json()?;
        if let Some(key) = keys.keys().find(|key| !known.contains_key(*key)) {
            let hint = table::did_you_mean(key, known.keys().map(String::as_str));
            return Err(option(format!("{key}: there is no such key of a grid of training{hint}")));
        }
        let mut lists = Map::new();
        for (_, list) in VARIED {
            if let Some(value) = keys.remove(list) {
                serde_json::from_value::<TrainGrid>(Value::Object(Map::from_iter([(list.to_string(), value.clone())])))
                    .map_err(|e| option(format!("{list}: {e}")))?;
                lists.insert(list.into(), value);
            }
        }
        let wrong = |e: serde_json::Error| option(e.to_string());
        let grid = serde_json::from_value(Value::Object(lists)).map_err(wrong)?;
        let recipe = serde_json::from_value(Value::Object(keys)).map_err(wrong)?;
        Ok(TrainStudy { grid, recipe })
    }

    /// Every key.
    ///
    /// # Errors
    /// Of kind `Option`.
    pub fn to_json(&self) -> Result<Map<String, Value>> {
        let map = |value: serde_json::Result<Value>| match value {
            Ok(Value::Object(map)) => Ok(map),
            Ok(other) => Err(option(other.to_string())),
            Err(e) => Err(option(e.to_string())),
        };
        let mut keys = map(serde_json::to_value(&self.recipe))?;
        VARIED.iter().for_each(|(one, _)| drop(keys.remove(*one)));
        keys.extend(map(serde_json::to_value(&self.grid))?);
        Ok(keys)
    }

    /// Fails on the first invalid choice, with its key.
    ///
    /// # Errors
    /// Of kind `Option`.
    pub fn check(&self) -> Result<()> {
        let TrainGrid { architectures, methods, prune_at_init, sparsities, repair_init, seeds } = &self.grid;
        match (architectures.is_empty(), &self.recipe.model) {
            (true, None) => return Err(option("architectures or model: one of them is needed")),
            (false, Some(_)) => return Err(option("architectures and model: only one of them can be trained")),
            _ => {}
        }
        if methods.is_empty() && prune_at_init.is_empty() {
            return Err(option("methods or prune_at_init: at least one is needed"));
        }
        unique("architectures", architectures)?;
        unique("methods", methods)?;
        unique("prune_at_init", prune_at_init)?;
        needed("sparsities", sparsities)?;
        needed("repair_init", repair_init)?;
        needed("seeds", seeds)?;
        if let Some(wrong) = sparsities.iter().find(|&&s| !(s > 0.0 && s < 1.0)) {
            return Err(option(format!("sparsities: {wrong}: a number between 0 and 1 is needed")));
        }
        for name in architectures {
            table::find(ARCHITECTURES, "architecture", name).map_err(|e| e.at("architectures"))?;
        }
        for repair in repair_init {
            lipschitz::find(repair).map_err(|e| e.at("repair_init"))?;
        }
        for method in methods {
            let (entry, _) = table::find(METHODS, "method", method).map_err(|e| e.at("methods"))?;
            if entry.name == DENSE {
                return Err(option("methods: dense: the dense run is in every grid; leave it out"));
            }
            for &sparsity in sparsities {
                let request = MethodRequest { epochs: self.recipe.epochs, sparsity };
                methods::segments(method, request).map_err(|e| e.at("methods"))?;
            }
        }
        for method in prune_at_init {
            for &sparsity in sparsities {
                at_init::find(method, sparsity).map_err(|e| e.at("prune_at_init"))?;
            }
        }
        if self.recipe.ablation != "none" && prune_at_init.is_empty() {
            return Err(option(format!("ablation {}: goes with prune_at_init, and there is none", self.recipe.ablation)));
        }
        self.cells().iter().try_for_each(|cell| self.recipe(cell).check())
    }

    /// All cells, for each network the dense ones first.
    pub fn cells(&self) -> Vec<TrainCell> {
        let TrainGrid { architectures, methods, prune_at_init, sparsities, .. } = &self.grid;
        let file = self.recipe.model.as_deref().and_then(|path| Path::new(path).file_stem()).map(|stem| stem.to_string_lossy());
        let networks = architectures.iter().cloned().chain(file.map(|name| name.into_owned()));
        let mut cells = Vec::new();
        for network in networks {
            self.repeated(&mut cells, &network, DENSE, None, 0.0);
            for &sparsity in sparsities {
                methods.iter().for_each(|method| self.repeated(&mut cells, &network, method, None, sparsity));
                prune_at_init.iter().for_each(|how| self.repeated(&mut cells, &network, DENSE, Some(how), sparsity));
            }
        }
        cells
    }

    /// Adds one cell for each repair and seed.
    fn repeated(&self, cells: &mut Vec<TrainCell>, network: &str, method: &str, at_init: Option<&String>, sparsity: f64) {
        for repair_init in &self.grid.repair_init {
            cells.extend(self.grid.seeds.iter().map(|&seed| TrainCell {
                network: network.into(),
                method: method.into(),
                prune_at_init: at_init.cloned(),
                sparsity,
                repair_init: repair_init.clone(),
                seed,
            }));
        }
    }

    /// The recipe of a cell, as `train` takes it.
    pub fn recipe(&self, cell: &TrainCell) -> Recipe {
        let ablation = if cell.prune_at_init.is_some() { self.recipe.ablation.clone() } else { "none".into() };
        Recipe {
            arch: self.recipe.model.is_none().then(|| cell.network.clone()),
            method: cell.method.clone(),
            prune_at_init: cell.prune_at_init.clone(),
            sparsity: cell.sparsity,
            repair_init: cell.repair_init.clone(),
            seed: cell.seed,
            ablation,
            ..self.recipe.clone()
        }
    }
}

fn needed<T: PartialEq + std::fmt::Display>(key: &str, list: &[T]) -> Result<()> {
    if list.is_empty() {
        return Err(option(format!("{key}: at least one is needed")));
    }
    unique(key, list)
}

fn unique<T: PartialEq + std::fmt::Display>(key: &str, list: &[T]) -> Result<()> {
    match (1..list.len()).find(|&i| list[..i].contains(&list[i])) {
        Some(twice) => Err(option(format!("{key}: {} is there twice", list[twice]))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn study() -> TrainStudy {
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        let grid = TrainGrid {
            architectures: names(&["lenet-5", "resnet-20"]),
            methods: names(&["gmp"]),
            prune_at_init: names(&["snip"]),
            sparsities: vec![0.8, 0.9],
            repair_init: names(&["none", "repair"]),
            seeds: vec![0, 1, 2],
        };
        TrainStudy { grid, recipe: Recipe { ablation: "shuffle".into(), ..Recipe::default() } }
    }

    #[test]
    fn cells_are_all_combinations_and_the_dense_runs() {
        let study = study();
        study.check().unwrap();
        let cells = study.cells();
        // Dense, and two methods at two sparsities, for two repairs and three seeds.
        assert_eq!(cells.len(), 2 * (1 + 2 * 2) * 2 * 3);
        assert_eq!(cells.iter().filter(|cell| cell.is_dense()).count(), 2 * 2 * 3);
        // Sanity checks of masks at initialisation concern no other cell.
        let checked = cells.iter().filter(|cell| study.recipe(cell).ablation == "shuffle");
        assert!(checked.clone().count() == 2 * 2 * 2 * 3 && checked.clone().all(|cell| cell.prune_at_init.is_some()));
        assert_eq!(TrainStudy::from_json(study.to_json().unwrap()).unwrap(), study);
    }
}
