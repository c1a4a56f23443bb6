//! Folders that one process writes at a time.

use crate::error::{Error, ErrorKind, Result};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

/// The file of a folder that its writer locks. It stays, as another process may have opened it already.
pub const FILE: &str = ".lock";

/// The right to write a folder, until it is dropped or the process ends.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Makes the folder if it is not there, and locks it.
    ///
    /// # Errors
    /// Of kind `Io`, with the number of the process that has the lock.
    pub fn take(folder: &Path) -> Result<FolderLock> {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        let path = folder.join(FILE);
        // It is emptied only when it is locked: it may name its owner.
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = opened.map_err(|e| Error::io(&path, e))?;
        if !claim(&file) {
            let mut owner = String::new();
            // Where a lock keeps others from reading, the owner stays unknown.
            let known = file.read_to_string(&mut owner).is_ok() && !owner.trim().is_empty();
            let owner = if known { owner.trim() } else { "another process" };
            let message = format!("{}: {owner} is writing here; wait until it ends, or choose another folder", folder.display());
            return Err(Error::new(ErrorKind::Io, message));
        }
        let named = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "process {}", std::process::id()));
        named.map_err(|e| Error::io(&path, e))?;
        Ok(FolderLock { _file: file })
    }
}

/// Locks a file; whether no other process has. File systems without locks let everybody in.
pub(crate) fn claim(file: &File) -> bool {
    !matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_writer_who_is_named() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("made/on the way");
        let lock = FolderLock::take(&folder).unwrap();
        let error = FolderLock::take(&folder).unwrap_err().to_string();
        if cfg!(unix) {
            assert!(error.contains(&format!("process {} is writing", std::process::id())), "{error}");
        }
        assert!(error.contains("on the way"), "{error}");
        drop(lock);
        // The name of an earlier owner that was longer leaves nothing.
        std::fs::write(folder.join(FILE), "process 99999999999999").unwrap();
        let _lock = FolderLock::take(&folder).unwrap();
        assert_eq!(std::fs::read_to_string(folder.join(FILE)).unwrap(), format!("process {}\n", std::process::id()));
    }
}
