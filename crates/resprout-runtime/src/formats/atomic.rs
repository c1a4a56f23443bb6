//! Atomic writes: a file appears whole or not at all.

use crate::error::{Error, Result};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// A file under a temporary name beside its target. It is removed unless [`commit`](Self::commit) is called.
pub struct PendingFile {
    target: PathBuf,
    file: tempfile::NamedTempFile,
}

impl PendingFile {
    /// Writes `bytes` to a temporary file in the target's folder.
    pub fn write(target: &Path, bytes: &[u8]) -> Result<PendingFile> {
        PendingFile::write_with(target, |out| out.write_all(bytes))
    }

    /// Calls `write` with a temporary file in the target's folder.
    pub fn write_with(target: &Path, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<PendingFile> {
        let mut out = BufWriter::new(PendingFile::begin(target)?);
        let failed = |e| Error::io(target, e).at("cannot write");
        write(&mut out).map_err(failed)?;
        out.into_inner().map_err(|e| failed(e.into_error()))?.synced()
    }

    /// An empty temporary file in the target's folder.
    pub fn begin(target: &Path) -> Result<PendingFile> {
        let folder = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if target.is_dir() {
            return Err(Error::option(format!("{}: is a folder, a file name is needed", target.display())));
        }
        let file = tempfile::Builder::new()
            .prefix(".resprout-")
            .tempfile_in(folder)
            .map_err(|e| Error::io(target, e).at("cannot write"))?;
        Ok(PendingFile { target: target.to_path_buf(), file })
    }

    /// Waits until all of the file has reached the disk.
    pub fn synced(self) -> Result<PendingFile> {
        self.file.as_file().sync_all().map_err(|e| Error::io(&self.target, e).at("cannot write"))?;
        Ok(self)
    }

    /// The temporary path.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Gives the file the name of its target, replacing an older one.
    pub fn commit(self) -> Result<()> {
        let PendingFile { target, file } = self;
        set_default_permissions(file.path());
        file.persist(&target).map_err(|e| Error::io(&target, e.error).at("cannot write"))?;
        Ok(())
    }
}

impl Write for PendingFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// Temporary files are private. A result has the permissions of any new file.
#[cfg(unix)]
fn set_default_permissions(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    // After a failure the file is only more private than others.
    let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644));
}

#[cfg(not(unix))]
fn set_default_permissions(_path: &Path) {}

/// Writes a whole file, or leaves the old one.
pub fn write(target: &Path, bytes: &[u8]) -> Result<()> {
    PendingFile::write(target, bytes)?.commit()
}
