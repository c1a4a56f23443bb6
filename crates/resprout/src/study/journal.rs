//! The journal: one line per finished cell, appended at once.
//!
//! A line is `CHECK KEY {record}`. `CHECK` is the first 16 hexadecimal digits of the SHA-256 of the rest. `KEY` identifies
//! what the result depends on. The record is JSON.
//!
//! A last line without its end is from a killed process and is dropped. Any other line that does not match its check is an error.
//! Studies of every kind have this form; their records differ.

use crate::error::{Error, ErrorKind, Result};
use crate::eval::sha256;
use crate::formats::atomic;
use crate::lock::claim;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The number of digits of a check or a key.
const DIGITS: usize = 16;

/// A journal on the disk.
pub struct Journal {
    path: PathBuf,
    file: Mutex<File>,
}

/// The lines of a journal of records `R`.
#[derive(Clone, Debug)]
pub struct Lines<R> {
    /// Key, record and text of each line.
    pub lines: Vec<(String, R, String)>,
    /// Whether a last line without its end was dropped.
    pub torn: bool,
    /// Numbers of the lines that do not match their check, from 1 on.
    pub corrupt: Vec<usize>,
    /// Numbers of the lines that match their check, but whose record is of another kind.
    pub foreign: Vec<usize>,
}

impl<R> Default for Lines<R> {
    fn default() -> Lines<R> {
        Lines { lines: Vec::new(), torn: false, corrupt: Vec::new(), foreign: Vec::new() }
    }
}

/// The key of a cell, of a text that holds everything that determines its result.
pub fn key(determined_by: &str) -> String {
    sha256(determined_by.as_bytes())[..DIGITS].to_string()
}

fn line(key: &str, record: &impl Serialize) -> Result<String> {
    let json = serde_json::to_string(record).map_err(|e| Error::data(e.to_string()))?;
    let rest = format!("{key} {json}");
    Ok(format!("{} {rest}", &sha256(rest.as_bytes())[..DIGITS]))
}

/// Key and record of a line that matches its check.
fn parse(line: &str) -> Option<(&str, &str)> {
    let (check, rest) = line.split_once(' ')?;
    if check != sha256(rest.as_bytes()).get(..DIGITS)? {
        return None;
    }
    rest.split_once(' ')
}

/// Reads a journal. A missing file has no lines.
///
/// # Errors
/// Of kind `Io`. Corrupt lines are listed: see [`check`].
pub fn read<R: DeserializeOwned>(path: &Path) -> Result<Lines<R>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Lines::default()),
        Err(e) => return Err(Error::io(path, e)),
    };
    let mut lines = Lines::default();
    let mut rest = &bytes[..];
    let mut number = 0;
    while !rest.is_empty() {
        number += 1;
        let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
            lines.torn = true;
            break;
        };
        let text = std::str::from_utf8(&rest[..end]).ok();
        match text.and_then(|text| Some((parse(text)?, text))) {
            Some(((key, json), text)) => match serde_json::from_str(json) {
                Ok(record) => lines.lines.push((key.to_string(), record, text.to_string())),
                Err(_) => lines.foreign.push(number),
            },
            None => lines.corrupt.push(number),
        }
        rest = &rest[end + 1..];
    }
    Ok(lines)
}

/// Fails if a line is corrupt, or of another kind of study.
///
/// # Errors
/// Of kind `Format`, with the number of the first such line.
pub fn check<R>(lines: &Lines<R>, path: &Path) -> Result<()> {
    if let Some(number) = lines.foreign.first() {
        let message = format!("{}: line {number} is of another kind of study; choose another folder", path.display());
        return Err(Error::new(ErrorKind::Format, message));
    }
    match lines.corrupt.first() {
        None => Ok(()),
        Some(number) => Err(Error::new(
            ErrorKind::Format,
            format!(
                "{}: line {number} is corrupt ({} in all); repair the journal to drop such lines and measure their cells again",
                path.display(),
                lines.corrupt.len()
            ),
        )),
    }
}

/// Writes a journal of these lines atomically.
pub fn write<'l>(path: &Path, lines: impl IntoIterator<Item = &'l str>) -> Result<()> {
    let mut text = String::new();
    lines.into_iter().for_each(|line| text.extend([line, "\n"]));
    atomic::write(path, text.as_bytes())
}

impl Journal {
    /// Opens the journal to append, without a torn last line.
    pub fn open<R>(path: &Path, lines: &Lines<R>) -> Result<Journal> {
        if lines.torn {
            write(path, lines.lines.iter().map(|(_, _, line)| line.as_str()))?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(|e| Error::io(path, e))?;
        if !claim(&file) {
            return Err(Error::new(ErrorKind::Io, format!("{}: another sweep is writing this journal", path.display())));
        }
        Ok(Journal { path: path.to_path_buf(), file: Mutex::new(file) })
    }

    /// Appends a record; returns its line.
    pub fn append(&self, key: &str, record: &impl Serialize) -> Result<String> {
        let line = line(key, record)?;
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let done = file.write_all(format!("{line}\n").as_bytes()).and_then(|()| file.sync_data());
        done.map_err(|e| Error::io(&self.path, e).at("cannot write the journal"))?;
        Ok(line)
    }
}

/// Lines of several journals, the first of each key.
pub fn merge<R>(all: impl IntoIterator<Item = Lines<R>>) -> HashMap<String, (R, String)> {
    let mut merged = HashMap::new();
    for (key, record, line) in all.into_iter().flat_map(|lines| lines.lines) {
        merged.entry(key).or_insert((record, line));
    }
    merged
}
