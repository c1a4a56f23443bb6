//! Tables for people.

mod bench;
mod compress;
mod evaluation;
mod list;
mod network;
mod prune;
mod study;
mod table;
mod training;
mod warnings;

pub use bench::bench;
pub use compress::compress;
pub use evaluation::{classified, demo, eval};
pub use list::list;
pub use network::{inspection, scored};
pub use prune::report;
pub use study::{comparison, comparison_in_markdown, study, train_study};
pub use training::{run, train_bench};
pub use warnings::warnings;
