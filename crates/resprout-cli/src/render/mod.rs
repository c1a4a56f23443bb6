//! How results look on a terminal. JSON needs no rendering: the data are serialised as they are.

pub mod text;
