//! The program as a person uses it: one binary of all its tests.

mod bad_input;
mod book;
mod brought;
mod cli;
mod compress;
mod inputs;
mod order;
mod pages;
mod real_data;
mod session;
mod sweep;
mod tidy;
mod train;
mod train_sweep;
mod util;
mod written;
