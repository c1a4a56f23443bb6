//! Shorthands for the one error type.

use resprout::{Error, ErrorKind};

pub(crate) fn option(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Option, message)
}

pub(crate) fn data(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Data, message)
}

pub(crate) fn unsupported(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unsupported, message)
}
