//! From results to what people look at.

pub mod figure;
pub mod run_page;
pub mod study_page;
pub mod study_words;
pub mod text;
