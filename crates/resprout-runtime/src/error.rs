//! The error type: a kind, and a message that says what is wrong and where.

use std::fmt;
use std::path::Path;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of an [`Error`], for programs that react to it. The message of the error has the details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A file or folder could not be read or written.
    Io,
    /// A file does not follow its format.
    Format,
    /// The input is valid, but this version does not support it.
    Unsupported,
    /// The value of an option is invalid, alone or for this model.
    Option,
    /// Images, labels or weights do not fit the model or each other, or are not finite.
    Data,
    /// A [`Progress`](crate::progress::Progress) has stopped the work.
    Interrupted,
}

/// An error. Its message names the file, layer, parameter or option.
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// A new error. `message` says what is wrong.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), source: None }
    }

    /// An error of a file that does not follow its format.
    pub fn format(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Format, message)
    }

    /// An error of valid input that this version does not support.
    pub fn unsupported(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Unsupported, message)
    }

    /// An error of an option's value.
    pub fn option(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Option, message)
    }

    /// An error of data that do not fit.
    pub fn data(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Data, message)
    }

    /// An operating-system error with the path it concerns; the error itself is the [`source`](std::error::Error::source).
    pub fn io(path: &Path, error: std::io::Error) -> Error {
        let message = format!("{}: {error}", path.display());
        Error { source: Some(error.into()), ..Error::new(ErrorKind::Io, message) }
    }

    /// The kind, for programs that react to it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Prefixes the message with a place: a file, layer or option.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Error {
        self.message = format!("{place}: {}", self.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    #[test]
    fn an_error_of_the_system_stays_at_hand() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        let error = Error::io(Path::new("model.onnx"), missing).at("prune");
        let source = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
        assert_eq!(source.map(std::io::Error::kind), Some(std::io::ErrorKind::NotFound));
        assert!(error.to_string().starts_with("prune: model.onnx: "), "{error}");
    }
}
