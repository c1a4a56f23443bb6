//! From results to what people look at.

mod cells;
pub mod compare_page;
pub mod compress_page;
mod compress_words;
pub mod figure;
mod numbers;
mod plain_page;
pub mod prune_page;
pub mod run_page;
pub mod run_words;
mod study_frame;
pub mod study_page;
mod study_table;
mod study_words;
pub mod text;
pub mod train_study_page;
pub mod train_study_words;
