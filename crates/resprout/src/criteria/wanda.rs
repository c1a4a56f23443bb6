//! `score = |w| * |x|`: the magnitude of a weight times the norm of its input.

use super::{Build, Criterion};
use crate::calibrate::WeightSite;
use crate::error::Result;
use crate::table::{Entry, OptionSpec};

pub(super) const ENTRY: Entry<Build> = Entry {
    name: "wanda",
    about: "the absolute value by the root mean square of the input it multiplies; needs images",
    paper: "Sun et al., A simple and effective pruning approach for large language models, ICLR 2024",
    options: &[OptionSpec { name: "rows", about: "about how many positions of all images are used per layer", default: "65536" }],
    build: |options, seed| Ok(Box::new(Wanda { rows: options.parse("rows", "a number from 1 on", |&r: &usize| r > 0)?, seed })),
};

struct Wanda {
    rows: usize,
    seed: u64,
}

impl Criterion for Wanda {
    fn needs_images(&self) -> bool {
        true
    }

    fn score_site(&self, site: &WeightSite) -> Result<Option<Vec<f64>>> {
        let Some(inputs) = site.input_rms(self.rows, self.seed) else { return Ok(None) };
        Ok(Some(site.weights.data.iter().zip(&inputs).map(|(w, input)| f64::from(w.abs()) * input).collect()))
    }
}
