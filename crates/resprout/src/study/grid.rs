//! The grid of a study, and its cells.

use super::Cell;
use crate::allocation::{ALLOCATIONS, Measured};
use crate::error::{Error, Result};
use crate::prune::channel::CHANNEL_ALLOCATIONS;
use crate::prune::{PruneOptions, check_sparsity};
use crate::repair::{Chain, Rows};
use crate::structure::Pattern;
use crate::table;
use serde::{Deserialize, Serialize};

/// The choices of a study, which measures all their combinations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Grid {
    /// Rows of the patterns with options. An n:m has a sparsity of its own.
    pub patterns: Vec<String>,
    /// Rows of the criteria with options; for channels, rows of the table of channel criteria.
    pub criteria: Vec<String>,
    /// Rows of the allocations with options; for channels, rows of the table of channel allocations.
    pub allocations: Vec<String>,
    /// Shares of the prunable weights to remove.
    pub sparsities: Vec<f64>,
    /// Chains of repairs, without `auto`.
    pub repairs: Vec<String>,
    /// Numbers of calibration images.
    pub calibration_images: Vec<usize>,
    /// Seeds. 0 takes the first calibration images, any other seed draws them.
    pub seeds: Vec<u64>,
    /// Whether the controls are added: global magnitude, and random weights at a uniform sparsity.
    pub controls: bool,
}

impl Default for Grid {
    fn default() -> Grid {
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        Grid {
            patterns: names(&["unstructured"]),
            criteria: names(&["magnitude"]),
            allocations: names(&["erk", "lamp"]),
            sparsities: vec![0.5, 0.7, 0.8, 0.9, 0.95],
            repairs: names(&["none", "bn", "asr,bn"]),
            calibration_images: vec![256],
            seeds: vec![0],
            controls: true,
        }
    }
}

/// Criterion and allocation of the controls (Blalock et al., MLSys 2020, section 6).
const CONTROLS: [(&str, &str); 2] = [("magnitude", "global"), ("random", "uniform")];

impl Grid {
    /// Fails on the first invalid choice, with its key. `rows` are repairs beside [`REPAIRS`](crate::repair::REPAIRS).
    ///
    /// # Errors
    /// Of kind `Option`.
    pub fn check(&self, rows: Rows) -> Result<()> {
        let lists = [
            ("patterns", self.patterns.is_empty()),
            ("criteria", self.criteria.is_empty()),
            ("allocations", self.allocations.is_empty()),
            ("sparsities", self.sparsities.is_empty()),
            ("repairs", self.repairs.is_empty()),
            ("calibration_images", self.calibration_images.is_empty()),
            ("seeds", self.seeds.is_empty()),
        ];
        if let Some((key, _)) = lists.iter().find(|(_, empty)| *empty) {
            return Err(Error::option(format!("{key}: at least one is needed")));
        }
        self.sparsities.iter().try_for_each(|&s| check_sparsity(s, "sparsities:"))?;
        self.repairs.iter().try_for_each(|repair| Chain::parse_with(repair, rows).map(drop))?;
        if self.calibration_images.contains(&0) {
            return Err(Error::option("calibration_images: 0: a number from 1 on is needed"));
        }
        let patterns: Vec<Pattern> = self.patterns.iter().map(|text| Pattern::parse(text)).collect::<Result<_>>()?;
        // Channels have methods of their own, so each choice must belong to one of the patterns.
        let known = |choices: &[String], find: fn(&str, Pattern) -> Result<()>| {
            let one = |choice: &String| {
                let mut found = patterns.iter().map(|&pattern| find(choice, pattern));
                found.clone().find(Result::is_ok).or_else(|| found.next()).unwrap_or(Ok(()))
            };
            choices.iter().try_for_each(one)
        };
        known(&self.criteria, |criterion, pattern| criterion_needs_images(criterion, pattern, 0).map(drop))?;
        known(&self.allocations, find_allocation)?;
        match self.patterns.iter().zip(&patterns).find(|(_, pattern)| self.pairs(**pattern).is_empty()) {
            Some((pattern, _)) => {
                Err(Error::option(format!("patterns: {pattern} knows none of the criteria or none of the allocations")))
            }
            None => Ok(()),
        }
    }

    /// All cells of a model. The dense one comes first, and those with the same masks are adjacent.
    pub fn cells(&self, model: &str) -> Result<Vec<Cell>> {
        let mut cells = vec![Cell::dense(model)];
        for pattern in &self.patterns {
            let parsed = Pattern::parse(pattern)?;
            for (criterion, allocation) in self.pairs(parsed) {
                let sparsities = parsed.sparsity().map_or_else(|| self.sparsities.clone(), |own| vec![own]);
                for sparsity in sparsities {
                    for &calibration_images in &self.calibration_images {
                        for &seed in &self.seeds {
                            cells.extend(self.repairs.iter().map(|repair| Cell {
                                model: model.into(),
                                pattern: pattern.clone(),
                                criterion: criterion.into(),
                                allocation: allocation.into(),
                                sparsity,
                                repair: repair.clone(),
                                calibration_images,
                                seed,
                            }));
                        }
                    }
                }
            }
        }
        Ok(cells)
    }

    /// The criteria and allocations that this pattern has, then the missing controls.
    fn pairs(&self, pattern: Pattern) -> Vec<(&str, &str)> {
        let criteria = self.criteria.iter().filter(|text| criterion_needs_images(text, pattern, 0).is_ok());
        let allocations = self.allocations.iter().filter(|text| find_allocation(text, pattern).is_ok());
        // In n:m every layer keeps the same share, so one allocation is enough.
        let most = if pattern.sparsity().is_some() { 1 } else { usize::MAX };
        let allocations: Vec<&str> = allocations.map(String::as_str).take(most).collect();
        let mut pairs: Vec<(&str, &str)> =
            criteria.flat_map(|criterion| allocations.iter().map(|&allocation| (criterion.as_str(), allocation))).collect();
        if self.controls && pattern == Pattern::Unstructured {
            for control in CONTROLS {
                if !pairs.contains(&control) {
                    pairs.push(control);
                }
            }
        }
        pairs
    }

    /// Notes on the choice, after Blalock et al., MLSys 2020.
    pub fn notes(&self) -> Vec<String> {
        let few = (self.sparsities.len() < 5).then(|| {
            format!("{} sparsities: at least five operating points are needed to compare methods", self.sparsities.len())
        });
        let no_controls = (!self.controls).then(|| "no controls: random and global magnitude pruning were left out".to_string());
        few.into_iter().chain(no_controls).collect()
    }
}

/// Whether the criterion needs images; an error if the pattern has none of that name.
pub(super) fn criterion_needs_images(criterion: &str, pattern: Pattern, seed: u64) -> Result<bool> {
    PruneOptions { criterion: criterion.into(), pattern, seed, ..PruneOptions::default() }.needs_images()
}

fn find_allocation(allocation: &str, pattern: Pattern) -> Result<()> {
    if pattern == Pattern::Channel {
        return table::find(CHANNEL_ALLOCATIONS, "allocation", allocation).map(drop);
    }
    let (entry, options) = table::find(ALLOCATIONS, "allocation", allocation)?;
    if entry.name == Measured::NAME {
        return Err(Error::option("allocation measured: a sweep compares allocations itself; `prune` measures them"));
    }
    (entry.build)(&options).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_all_combinations_with_the_controls_once() {
        let grid = Grid { allocations: vec!["lamp".into(), "global".into()], sparsities: vec![0.5, 0.9], ..Grid::default() };
        let cells = grid.cells("a").unwrap();
        // Dense; lamp, global and random x 2 sparsities x 3 repairs.
        assert_eq!(cells.len(), 1 + 3 * 2 * 3);
        assert!(cells[0].is_dense() && cells[1].same_masks(&cells[2]) && !cells[3].same_masks(&cells[4]));
        let grid = Grid { patterns: vec!["2:4".into()], ..grid };
        let cells = grid.cells("a").unwrap();
        assert_eq!((cells.len(), cells[1].sparsity), (1 + 3, 0.5));
    }

    #[test]
    fn invalid_choices_are_named() {
        let wrong = |grid: Grid| grid.check(&[]).unwrap_err().to_string();
        assert!(wrong(Grid { sparsities: vec![1.5], ..Grid::default() }).contains("1.5"));
        assert!(wrong(Grid { repairs: vec!["bm".into()], ..Grid::default() }).contains("bm"));
        assert!(wrong(Grid { seeds: vec![], ..Grid::default() }).contains("seeds"));
        assert!(wrong(Grid { allocations: vec!["lump".into()], ..Grid::default() }).contains("lump"));
        assert!(wrong(Grid { criteria: vec!["magnitud".into()], ..Grid::default() }).contains("magnitud"));
        assert!(wrong(Grid { patterns: vec!["channel".into()], ..Grid::default() }).contains("magnitude"));
        // Channels and single weights in one study: each pattern takes its own methods.
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        let both = Grid {
            patterns: names(&["unstructured", "channel"]),
            criteria: names(&["magnitude", "l2"]),
            allocations: names(&["lamp", "global"]),
            sparsities: vec![0.5],
            repairs: names(&["none"]),
            controls: false,
            ..Grid::default()
        };
        both.check(&[]).unwrap();
        assert_eq!(both.cells("a").unwrap().len(), 1 + 2 + 1);
        assert!(Grid::default().check(&[]).is_ok());
    }
}
