//! PyTorch checkpoints, read without running any code of the file, and written.
//!
//! Two containers are read: the zip archive of torch 1.6 and later, and the older file of pickles and storages.
//! [`super::weights`] puts the tensors into a model.

mod pickle;
mod state;
mod write;

pub use write::{encode, write};

use super::archive::Archive;
use super::state_dict::{Names, Number, Stored, is_trainer};
use crate::error::{Error, Result};
use pickle::{Node, Pickle};
use state::{ADVICE, State, Storage, TensorRef};
use std::borrow::Cow;
use std::collections::HashMap;

/// The first number of older files.
const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
/// The version of their layout.
const LAYOUT: i128 = 1001;
/// The name of the pickle in an archive.
const PICKLE: &str = "data.pkl";

/// Whether the first bytes are those of a zip archive or a pickle.
pub(super) fn is_checkpoint(head: &[u8]) -> bool {
    head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") || matches!(head, [0x80, 2..=5, ..])
}

/// Calls `act` with the tensors of a checkpoint.
pub(super) fn with_tensors<T>(bytes: &[u8], act: impl FnOnce(Names) -> Result<T>) -> Result<T> {
    match bytes.starts_with(b"PK") {
        true => archive(bytes, act),
        false => pickles(bytes, act),
    }
}

/// Storages by their keys.
type Storages<'f> = HashMap<String, Cow<'f, [u8]>>;

fn archive<T>(bytes: &[u8], act: impl FnOnce(Names) -> Result<T>) -> Result<T> {
    let archive = Archive::open(bytes)?;
    let roots = archive.names().filter_map(|name| name.strip_suffix(PICKLE));
    let root = roots.filter(|root| root.is_empty() || root.ends_with('/')).min_by_key(|root| root.len());
    let Some(root) = root else { return Err(no_checkpoint(&archive)) };
    let code = format!("{root}code/");
    if archive.names().any(|name| name.starts_with(&code)) {
        return Err(Error::unsupported(format!("is a TorchScript program; save a state dict: {ADVICE}")));
    }
    if archive.read(&format!("{root}byteorder"))?.is_some_and(|order| &*order == b"big") {
        return Err(Error::unsupported("its numbers are big-endian; save it on a little-endian machine"));
    }
    let pickle = archive.read(&format!("{root}{PICKLE}"))?.unwrap_or_default();
    let state = checked(State::of(&Pickle::read(&pickle)?)?)?;
    let mut storages = Storages::new();
    for storage in state.tensors.iter().filter_map(|(_, tensor)| tensor.storage.as_ref().ok()) {
        if !storages.contains_key(&storage.key) {
            let name = format!("{root}data/{}", storage.key);
            let bytes = archive.read(&name)?.ok_or_else(|| Error::format(format!("there is no {name:?} in it")))?;
            storages.insert(storage.key.clone(), bytes);
        }
    }
    act(names(state, &storages)?)
}

/// The error for an archive without a pickle.
fn no_checkpoint(archive: &Archive) -> Error {
    let any = |test: fn(&str) -> bool| archive.names().any(test);
    let what = match () {
        () if any(|name| name.ends_with(".npy")) => "a NumPy archive",
        () if any(|name| name.contains("archive_format") || name.ends_with("model.json")) => "a program of torch.export",
        () => "a zip archive that torch.save has not written",
    };
    Error::unsupported(format!("is {what}; save a state dict: {ADVICE}"))
}

/// Reads an older file: number, version, system, objects, and the keys of the storages; then the storages in this order.
fn pickles<T>(bytes: &[u8], act: impl FnOnce(Names) -> Result<T>) -> Result<T> {
    let mut rest = bytes;
    let mut next = || {
        let pickle = Pickle::read(rest)?;
        rest = &rest[pickle.length..];
        Ok::<Pickle, Error>(pickle)
    };
    let first = next()?;
    if *first.node(first.root) != Node::Int(MAGIC) {
        // The contents of a single pickle can make a better error.
        checked(State::of(&first)?)?;
        return Err(Error::unsupported(format!("is a pickle that torch.save has not written; save a state dict: {ADVICE}")));
    }
    let version = next()?;
    if *version.node(version.root) != Node::Int(LAYOUT) {
        return Err(Error::unsupported(format!("is a checkpoint of another layout than {LAYOUT}; load and save it again")));
    }
    check_order(&next()?)?;
    let objects = next()?;
    let state = checked(State::of(&objects)?)?;
    let keys = next()?;
    let storages = in_order(&state::storages(&objects), &keys, rest)?;
    act(names(state, &storages)?)
}

/// Fails on big-endian numbers.
fn check_order(system: &Pickle) -> Result<()> {
    let Node::Dict(items) = system.node(system.root) else { return Ok(()) };
    let big =
        |(key, value): &(usize, usize)| system.text(*key) == Some("little_endian") && *system.node(*value) == Node::Bool(false);
    match items.iter().any(big) {
        true => Err(Error::unsupported("its numbers are big-endian; save it on a little-endian machine")),
        false => Ok(()),
    }
}

/// Reads the storages. Each one is the count of its numbers in 64 bits, and the numbers.
fn in_order<'f>(described: &[Storage], keys: &Pickle, mut rest: &'f [u8]) -> Result<Storages<'f>> {
    let sizes: HashMap<&str, usize> = described.iter().map(|storage| (storage.key.as_str(), storage.number.bytes())).collect();
    let mut storages = Storages::new();
    for &key in keys.sequence(keys.root).ok_or_else(|| Error::format("has no list of its storages"))? {
        let key = keys.text(key).ok_or_else(|| Error::format("has a storage without a name"))?;
        let truncated = || Error::format(format!("ends in the middle of storage {key:?}"));
        let (length, behind) = rest.split_first_chunk::<8>().ok_or_else(truncated)?;
        let size = sizes.get(key).ok_or_else(|| Error::unsupported(format!("storage {key:?} is described nowhere")))?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok().and_then(|length| length.checked_mul(*size));
        let (bytes, behind) = length.and_then(|length| behind.split_at_checked(length)).ok_or_else(truncated)?;
        storages.insert(key.to_string(), Cow::Borrowed(bytes));
        rest = behind;
    }
    Ok(storages)
}

/// Fails on a network that was saved as a Python object. Reading it would run its code.
fn checked(state: State) -> Result<State> {
    let weights = state.tensors.iter().any(|(name, _)| !is_trainer(name));
    match state.modules.first() {
        Some((name, class)) if !weights => {
            let place = if name.is_empty() { String::new() } else { format!(" under {name:?}") };
            Err(Error::unsupported(format!(
                "holds a whole network as a Python object ({class}){place}; that would run its code. Save its state dict: {ADVICE}"
            )))
        }
        _ if state.tensors.is_empty() => Err(Error::format("holds no tensors")),
        _ => Ok(state),
    }
}

fn names<'f>(state: State, storages: &'f Storages) -> Result<Names<'f>> {
    let State { tensors, modules, mut others } = state;
    others.extend(modules.into_iter().map(|(name, _)| name));
    let tensors = tensors.into_iter().map(|(name, tensor)| stored(tensor, storages).map(|stored| (name, stored)));
    Ok(Names { tensors: tensors.collect::<Result<_>>()?, others })
}

fn stored<'f>(tensor: TensorRef, storages: &'f Storages) -> Result<Stored<'f>> {
    let TensorRef { storage, shape, offset, strides } = tensor;
    let unreadable = |why: String| Stored { bytes: Err(why), ..Stored::contiguous(Vec::new(), String::new(), Number::F32, &[]) };
    let storage = match storage {
        Ok(storage) => storage,
        Err(why) => return Ok(unreadable(why)),
    };
    let bytes = storages.get(&storage.key).ok_or_else(|| Error::format(format!("there is no storage {:?}", storage.key)))?;
    Ok(Stored { shape, type_name: storage.type_name, number: storage.number, bytes: Ok(bytes), offset, strides })
}
