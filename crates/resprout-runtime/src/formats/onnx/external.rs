//! Reads tensors from files of external data in the model's folder, one by one. Each file is opened once.

use super::proto::{GraphProto, ModelProto, TensorProto, data_type};
use super::skeleton::{self, Stretch};
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
    /// The name of a file that still has a temporary path, and this path.
    pending: Option<(&'a str, &'a Path)>,
    files: HashMap<String, DataFile>,
    /// The model's own file, and the raw data that the skeleton left there.
    own: Option<(DataFile, HashMap<usize, Stretch>)>,
}

/// The numbers of a tensor that were read.
pub(super) enum Content {
    /// The same as those of the tensor it was compared with, to the bit.
    Same,
    /// 32-bit floats.
    Floats(Vec<f32>),
    /// Bytes of any other type.
    Bytes(Bytes),
}

/// Bytes that become numbers at a time.
const CHUNK: usize = 1 << 16;

struct DataFile {
    path: PathBuf,
    file: File,
    len: u64,
    /// Ranges that were read: end and tensor by start.
    ranges: BTreeMap<u64, (u64, String)>,
}

impl<'a> External<'a> {
    /// Files must be in `folder`. Without one, external data are refused. `pending` is the name of a file with a temporary
    /// path, and this path.
    pub fn new(folder: Option<&'a Path>, pending: Option<(&'a str, &'a Path)>) -> External<'a> {
        External { folder, pending, files: HashMap::new(), own: None }
    }

    /// Adds the raw data that the skeleton left in the model's own file.
    pub fn with_own(self, path: &Path, numbers: HashMap<usize, Stretch>) -> Result<External<'a>> {
        let own = (!numbers.is_empty()).then(|| Ok((DataFile::open(path.to_path_buf(), "")?, numbers)));
        Ok(External { own: own.transpose()?, ..self })
    }

    /// The numbers of an initializer that are not in the skeleton; `None` if they are. If they are in the same file, also
    /// returns where in the initializer their field was. The same numbers as in `like` need no memory of their own.
    pub fn content(
        &mut self,
        index: usize,
        tensor: &TensorProto,
        like: Option<&[f32]>,
    ) -> Result<Option<(Content, Option<usize>)>> {
        let (file, offset, length, inside) = match (&mut self.own, tensor.is_external()) {
            (_, true) => {
                let (file, offset, length) = self.outside(tensor)?;
                (file, offset, length, None)
            }
            (Some((file, numbers)), false) => {
                let Some(stretch) = numbers.get(&index) else { return Ok(None) };
                (file, stretch.offset, stretch.length, Some(stretch.at))
            }
            (None, false) => return Ok(None),
        };
        if tensor.data_type != data_type::FLOAT || length % 4 != 0 {
            return Ok(Some((Content::Bytes(file.bytes(offset, length)?), inside)));
        }
        let like = like.filter(|like| 4 * like.len() as u64 == length);
        let same = like.map_or(Ok(false), |like| file.holds(offset, like))?;
        Ok(Some((if same { Content::Same } else { Content::Floats(file.floats(offset, length)?) }, inside)))
    }

    /// The file with the numbers of a tensor, and their offset and length.
    fn outside(&mut self, tensor: &TensorProto) -> Result<(&mut DataFile, u64, u64)> {
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
        file.take(&tensor.name, location, offset, length)?;
        Ok((file, offset, length))
    }

    /// The files that were opened, sorted.
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

    /// Records a range. Several tensors may use the same one; a partial overlap is an error.
    fn take(&mut self, name: &str, location: &str, offset: u64, length: u64) -> Result<()> {
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
        Ok(())
    }

    fn bytes(&mut self, offset: u64, length: u64) -> Result<Bytes> {
        let length = usize::try_from(length).map_err(|_| Error::unsupported("external data beyond this machine's memory"))?;
        let mut bytes = vec![0; length];
        let read = self.file.seek(SeekFrom::Start(offset)).and_then(|_| self.file.read_exact(&mut bytes));
        read.map_err(|e| Error::io(&self.path, e))?;
        Ok(bytes.into())
    }

    /// Reads floats without keeping all their bytes in memory.
    fn floats(&mut self, offset: u64, length: u64) -> Result<Vec<f32>> {
        let count = usize::try_from(length / 4).map_err(|_| Error::unsupported("external data beyond this machine's memory"))?;
        let mut floats = Vec::with_capacity(count);
        self.in_chunks(offset, count, |chunk| {
            floats.extend(chunk.iter().map(|&bytes| f32::from_le_bytes(bytes)));
            true
        })?;
        Ok(floats)
    }

    /// Whether the file has these numbers there, to the bit.
    fn holds(&mut self, offset: u64, numbers: &[f32]) -> Result<bool> {
        let mut rest = numbers;
        self.in_chunks(offset, numbers.len(), |chunk| {
            let (now, later) = rest.split_at(chunk.len());
            rest = later;
            chunk.iter().zip(now).all(|(bytes, number)| *bytes == number.to_le_bytes())
        })
    }

    /// Calls `take` with the bytes of `count` numbers, a chunk at a time, until it returns false. Returns whether it took all.
    fn in_chunks(&mut self, offset: u64, count: usize, mut take: impl FnMut(&[[u8; 4]]) -> bool) -> Result<bool> {
        let failed = |e| Error::io(&self.path, e);
        self.file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        let mut buffer = vec![0; CHUNK.min(4 * count)];
        for start in (0..4 * count).step_by(CHUNK) {
            let chunk = &mut buffer[..CHUNK.min(4 * count - start)];
            self.file.read_exact(chunk).map_err(failed)?;
            if !take(chunk.as_chunks::<4>().0) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The path of a file in the folder. The name must not lead out of it.
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

/// The bytes of a tensor; `None` for types without a fixed width.
fn byte_count(tensor: &TensorProto) -> Result<Option<u64>> {
    let shape: Option<Vec<usize>> = tensor.dims.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    let shape = shape.ok_or_else(|| Error::format(format!("dimensions {:?} are negative", tensor.dims)))?;
    let count = element_count(&shape)? as u64;
    Ok(data_type::width(tensor.data_type).map(|width| count * width))
}

/// The files of external data that an ONNX model names, even if they do not exist.
#[doc(hidden)]
pub fn external_files(path: &Path) -> Result<Vec<PathBuf>> {
    let bytes = Bytes::from(skeleton::read(path)?.bytes);
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
