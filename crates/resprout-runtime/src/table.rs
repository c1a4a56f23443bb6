//! Tables of methods. A row has a name, a description, the publication, options, and a function that builds the method.
//!
//! A method is written `name:option=value:option=value`, such as `erk:power=2`. Options that are left out have their default.

use crate::error::{Error, Result};

/// A row of a table of methods. `B` builds the method from its options.
pub struct Entry<B> {
    /// The name that the user types.
    pub name: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// The publication, or the origin of the rule.
    pub paper: &'static str,
    /// The options it takes.
    pub options: &'static [OptionSpec],
    /// Builds the method. In tables of things that need no options it is the thing itself.
    pub build: B,
}

/// The name: the rest of a row is the same for every one of that name.
impl<B> std::fmt::Debug for Entry<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// An option of a method.
#[derive(Debug)]
pub struct OptionSpec {
    /// The name that the user types.
    pub name: &'static str,
    /// One sentence, with the unit or the possible values.
    pub about: &'static str,
    /// The value without the option.
    pub default: &'static str,
}

/// The options of one method as [`find`] has read them, with defaults for those that were left out.
#[derive(Clone, Debug)]
pub struct Options {
    method: String,
    values: Vec<(&'static str, String)>,
}

impl Options {
    /// The text of an option or its default.
    ///
    /// # Panics
    /// If the row does not list the option.
    pub fn text(&self, name: &str) -> &str {
        let found = self.values.iter().find(|(key, _)| *key == name);
        &found.unwrap_or_else(|| panic!("{} declares no option {name:?}", self.method)).1
    }

    /// The option as a value of type `T`. `what` describes the accepted values in messages, such as "a positive number".
    ///
    /// # Errors
    /// Of kind `Option` if the text is no `T`, or `valid` refuses it.
    ///
    /// # Panics
    /// If the row does not list the option.
    pub fn parse<T: std::str::FromStr>(&self, name: &str, what: &str, valid: impl Fn(&T) -> bool) -> Result<T> {
        let text = self.text(name);
        let value = text.parse().ok().filter(|value| valid(value));
        value.ok_or_else(|| self.error(name, what))
    }

    /// The error for a bad value of an option.
    pub fn error(&self, name: &str, what: &str) -> Error {
        let text = self.text(name);
        // The words among the accepted values. A number is no misspelt word.
        let words = what.split(|c: char| !c.is_alphanumeric()).filter(|word| word.chars().any(char::is_alphabetic));
        let hint = if text.parse::<f64>().is_ok() { String::new() } else { did_you_mean(text, words) };
        Error::option(format!("{}: option {name}={text:?}: {what} is needed{hint}", self.method))
    }
}

/// The error for an unknown name, of kind `Option`. It lists the known names, and hints at the nearest one.
#[doc(hidden)]
pub fn unknown(kind: &str, name: &str, known: &[&str]) -> Error {
    let hint = did_you_mean(name, known.iter().copied());
    Error::option(format!("{kind} {name:?} is not known{hint}; there are {}", known.join(", ")))
}

/// A hint at the known name that is nearest to the given one; empty if none is near.
#[doc(hidden)]
pub fn did_you_mean<'n>(given: &str, known: impl Iterator<Item = &'n str>) -> String {
    let near = known.map(|name| (strsim::damerau_levenshtein(given, name), name)).min_by_key(|(distance, _)| *distance);
    // At most half of a short name may be misspelt.
    let found = near.filter(|&(distance, name)| distance > 0 && distance <= (given.len().min(name.len()) / 2).min(3));
    found.map_or(String::new(), |(_, name)| format!(" (did you mean {name}?)"))
}

/// Finds the row for `text`, which is `name` or `name:option=value:option=value`. `kind` is what messages call a row.
///
/// # Errors
/// Of kind `Option` for an unknown name or option. Values are checked by the row's `build`.
#[doc(hidden)]
pub fn find<'t, B>(table: &'t [Entry<B>], kind: &str, text: &str) -> Result<(&'t Entry<B>, Options)> {
    find_beside(table, &[], kind, text)
}

/// As [`find`]. `others` are names without a row, which messages list too.
#[doc(hidden)]
pub fn find_beside<'t, B>(table: &'t [Entry<B>], others: &[&str], kind: &str, text: &str) -> Result<(&'t Entry<B>, Options)> {
    find_among(&[table], others, kind, text)
}

/// As [`find_beside`] in several tables, the first of which that has the name decides.
#[doc(hidden)]
pub fn find_among<'t, B>(tables: &[&'t [Entry<B>]], others: &[&str], kind: &str, text: &str) -> Result<(&'t Entry<B>, Options)> {
    let mut parts = text.split(':');
    let name = parts.next().unwrap_or_default();
    let rows = || tables.iter().flat_map(|table| table.iter());
    let entry = rows().find(|entry| entry.name == name).ok_or_else(|| {
        let names: Vec<&str> = rows().map(|entry| entry.name).chain(others.iter().copied()).collect();
        unknown(kind, name, &names)
    })?;
    let mut values: Vec<(&'static str, String)> = entry.options.iter().map(|o| (o.name, o.default.to_string())).collect();
    for part in parts {
        let (key, value) = part
            .split_once('=')
            .ok_or_else(|| Error::option(format!("{kind} {text:?}: option {part:?} has no value (write option=value)")))?;
        let slot = values.iter_mut().find(|(name, _)| *name == key).ok_or_else(|| {
            let names: Vec<&str> = entry.options.iter().map(|o| o.name).collect();
            let hint = did_you_mean(key, names.iter().copied());
            Error::option(format!("{kind} {name:?} has no option {key:?}{hint}; it has [{}]", names.join(", ")))
        })?;
        slot.1 = value.to_string();
    }
    Ok((entry, Options { method: format!("{kind} {name:?}"), values }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Entry<()>] = &[
        Entry {
            name: "magnitude",
            about: "",
            paper: "",
            options: &[OptionSpec { name: "variant", about: "exact or ema", default: "exact" }],
            build: (),
        },
        Entry { name: "erk", about: "", paper: "", options: &[], build: () },
    ];

    #[test]
    fn errors_hint_at_similar_names() {
        let wrong = |text: &str| find(TABLE, "criterion", text).map(drop).unwrap_err().to_string();
        assert!(wrong("magnitud").contains("is not known (did you mean magnitude?); there are magnitude, erk"));
        assert!(wrong("ekr").contains("(did you mean erk?)"));
        assert!(wrong("magnitude:varaint=ema").contains("(did you mean variant?); it has [variant]"));
        for far in ["", "x", "luck", "wanda"] {
            assert!(!wrong(far).contains("did you mean"), "{}", wrong(far));
        }
        let value =
            |text: &str| find(TABLE, "criterion", text).unwrap().1.error("variant", "exact, cumulative or ema").to_string();
        assert!(value("magnitude:variant=exat").contains("exact, cumulative or ema is needed (did you mean exact?)"));
        assert!(!value("magnitude:variant=3").contains("did you mean"));
    }
}
