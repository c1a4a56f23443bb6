//! Tensors whose numbers lie in other files inside the model's folder: read one by one, each file opened once.

use super::proto::{GraphProto, ModelProto, TensorProto, data_type};
use crate::error::{Error, Result};
use crate::tensor::element_count;
use prost::Message;
use prost::bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

/// The data files of one model.
pub(super) struct External<'a> {
    folder: Option<&'a Path>,
    /// A file that does not have its name yet.
    pending: Option<(&'a str, &'a Path)>,
    files: HashMap<String, DataFile>,
}

struct DataFile {
    path: PathBuf,
    file: File,
    len: u64,
    /// What has been read: end and name by start.
    ranges: BTreeMap<u64, (u64, String)>,
}

impl<'a> External<'a> {
    /// Files are looked for in `folder`; without one, external data are refused. `pending` is a file that is still
    /// to get the name that comes with it.
    pub fn new(folder: Option<&'a Path>, pending: Option<(&'a str, &'a Path)>) -> External<'a> {
        External { folder, pending, files: HashMap::new() }
    }

    /// The bytes of a tensor; `None` if it is stored in the model's file.
    pub fn bytes(&mut self, tensor: &TensorProto) -> Result<Option<Bytes>> {
        if !tensor.is_external() {
            return Ok(None);
        }
        let location = tensor.entry("location").ok_or_else(|| Error::format("external data without a location"))?;
        let offset = number(tensor, "offset")?.unwrap_or(0);
        let needed = byte_count(tensor)?;
        let length = match (number(tensor, "length")?, needed) {
            (Some(length), Some(needed)) if length != needed => {
                let message = format!("external data at {location:?}: {length} bytes for a tensor that takes {needed}");
                return Err(Error::format(message));
            }
            (Some(length), _) => Some(length),
            (None, needed) => needed,
        };
        if !self.files.contains_key(location) {
            let path = match self.pending {
                Some((name, path)) if name == location => path.to_path_buf(),
                _ => locate(self.folder, location)?,
            };
            self.files.insert(location.to_string(), DataFile::open(path, location)?);
        }
        let file = self.files.get_mut(location).expect("was just put in");
        let length = length.unwrap_or(file.len.saturating_sub(offset));
        file.take(&tensor.name, location, offset, length).map(Some)
    }

    /// The files that were opened, by name.
    pub fn into_paths(self) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = self.files.into_values().map(|file| file.path).collect();
        paths.sort();
        paths
    }
}

impl DataFile {
    fn open(path: PathBuf, location: &str) -> Result<DataFile> {
        let file = File::open(&path).map_err(|e| Error::io(&path, e))?;
        let meta = file.metadata().map_err(|e| Error::io(&path, e))?;
        if !meta.is_file() {
            return Err(Error::format(format!("external data at {location:?}: not a file")));
        }
        Ok(DataFile { path, file, len: meta.len(), ranges: BTreeMap::new() })
    }

    /// The same bytes may serve several tensors; tensors that overlap in part are a mistake.
    fn take(&mut self, name: &str, location: &str, offset: u64, length: u64) -> Result<Bytes> {
        let end = offset.checked_add(length).filter(|end| *end <= self.len).ok_or_else(|| {
            Error::format(format!(
                "external data at {location:?}: {length} bytes at {offset} are needed, the file has {}; is it the model's own?",
                self.len
            ))
        })?;
        let before = self.ranges.range(..end).next_back();
        if let Some((start, (stop, other))) = before
            && *stop > offset
            && (*start, *stop) != (offset, end)
        {
            return Err(Error::format(format!("external data at {location:?}: overlap those of {other:?}")));
        }
        if length > 0 {
            self.ranges.insert(offset, (end, name.to_string()));
        }
        let length = usize::try_from(length).map_err(|_| Error::unsupported("external data beyond this machine's memory"))?;
        let mut bytes = vec![0; length];
        let read = self.file.seek(SeekFrom::Start(offset)).and_then(|_| self.file.read_exact(&mut bytes));
        read.map_err(|e| Error::io(&self.path, e))?;
        Ok(bytes.into())
    }
}

/// The file of that name inside the folder, which must not lead out of it.
fn locate(folder: Option<&Path>, location: &str) -> Result<PathBuf> {
    let folder = folder.ok_or_else(|| Error::unsupported("external data, but the model is not in a folder"))?;
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let inside = Path::new(location).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !inside {
        return Err(Error::format(format!("external data at {location:?} lies outside the model's folder; refused")));
    }
    let path = folder.join(location);
    let real = path.canonicalize().map_err(|e| Error::io(&path, e).at("external data"))?;
    let home = folder.canonicalize().map_err(|e| Error::io(folder, e))?;
    if !real.starts_with(&home) {
        return Err(Error::format(format!("external data at {location:?} leads outside the model's folder; refused")));
    }
    Ok(path)
}

fn number(tensor: &TensorProto, key: &str) -> Result<Option<u64>> {
    let parse = |v: &str| v.parse().map_err(|_| Error::format(format!("external data: {key} {v:?} is not a number")));
    tensor.entry(key).map(parse).transpose()
}

/// Bytes of the whole tensor; `None` for types of no fixed width.
fn byte_count(tensor: &TensorProto) -> Result<Option<u64>> {
    let shape: Option<Vec<usize>> = tensor.dims.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    let shape = shape.ok_or_else(|| Error::format(format!("dimensions {:?} are negative", tensor.dims)))?;
    let count = element_count(&shape)? as u64;
    Ok(data_type::width(tensor.data_type).map(|width| count * width))
}

/// The files of external data that a model names, whether they are there or not.
pub fn external_files(path: &Path) -> Result<Vec<PathBuf>> {
    let bytes = Bytes::from(std::fs::read(path).map_err(|e| Error::io(path, e))?);
    let Ok(ModelProto { graph: Some(graph), .. }) = ModelProto::decode(bytes) else { return Ok(Vec::new()) };
    let mut names: Vec<&str> = locations(&graph).collect();
    names.sort_unstable();
    names.dedup();
    let folder = path.parent().unwrap_or(Path::new(""));
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

fn locations(graph: &GraphProto) -> impl Iterator<Item = &str> {
    graph.initializer.iter().filter(|tensor| tensor.is_external()).filter_map(|tensor| tensor.entry("location"))
}
