//! From results to what people look at.

pub mod chart;
pub mod run_page;
pub mod text;
