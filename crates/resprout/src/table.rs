//! What all tables share: a row is a name, what it is, where it comes from, its options, and how it is built.

use crate::error::{Error, Result};

/// A row of a table of methods. `B` builds the method from its options.
pub struct Entry<B> {
    /// What the user types.
    pub name: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// The publication, or where the rule comes from.
    pub paper: &'static str,
    /// The options it takes.
    pub options: &'static [OptionSpec],
    /// Builds the method.
    pub build: B,
}

/// An option of a method.
#[derive(Debug)]
pub struct OptionSpec {
    /// What the user types.
    pub name: &'static str,
    /// One sentence, with the unit or the choices.
    pub about: &'static str,
    /// Used where the option is not given.
    pub default: &'static str,
}

/// The options of one method as the user gave them, checked against the method's row.
#[derive(Clone, Debug)]
pub struct Options {
    method: String,
    values: Vec<(&'static str, String)>,
}

impl Options {
    /// The text of an option or its default.
    ///
    /// # Panics
    /// If the row does not list the option: a method may only read what it declares.
    pub fn text(&self, name: &str) -> &str {
        let found = self.values.iter().find(|(key, _)| *key == name);
        &found.unwrap_or_else(|| panic!("{} declares no option {name:?}", self.method)).1
    }

    /// The option as a value of type `T`; `what` says what is accepted.
    pub fn parse<T: std::str::FromStr>(&self, name: &str, what: &str, valid: impl Fn(&T) -> bool) -> Result<T> {
        let text = self.text(name);
        let value = text.parse().ok().filter(|value| valid(value));
        value.ok_or_else(|| self.error(name, what))
    }

    /// The error for a bad value of an option.
    pub fn error(&self, name: &str, what: &str) -> Error {
        Error::option(format!("{}: option {name}={:?}: {what} is needed", self.method, self.text(name)))
    }
}

/// Finds the row for `text`, which is `name` or `name:option=value:option=value`.
pub fn find<'t, B>(table: &'t [Entry<B>], kind: &str, text: &str) -> Result<(&'t Entry<B>, Options)> {
    let mut parts = text.split(':');
    let name = parts.next().unwrap_or_default();
    let entry = table.iter().find(|entry| entry.name == name).ok_or_else(|| {
        let names: Vec<&str> = table.iter().map(|entry| entry.name).collect();
        Error::option(format!("{kind} {name:?} is not known; there are {}", names.join(", ")))
    })?;
    let mut values: Vec<(&'static str, String)> = entry.options.iter().map(|o| (o.name, o.default.to_string())).collect();
    for part in parts {
        let (key, value) = part
            .split_once('=')
            .ok_or_else(|| Error::option(format!("{kind} {text:?}: option {part:?} has no value (write option=value)")))?;
        let slot = values.iter_mut().find(|(name, _)| *name == key).ok_or_else(|| {
            let names: Vec<&str> = entry.options.iter().map(|o| o.name).collect();
            Error::option(format!("{kind} {name:?} has no option {key:?}; it has [{}]", names.join(", ")))
        })?;
        slot.1 = value.to_string();
    }
    Ok((entry, Options { method: format!("{kind} {name:?}"), values }))
}
