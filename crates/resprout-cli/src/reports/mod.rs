//! What commands print, as data.

pub mod bench;
pub mod compare;
pub mod compress;
pub mod demo;
pub mod eval;
pub mod inspect;
pub mod list;
pub mod run;
pub mod score;
pub mod train_bench;
