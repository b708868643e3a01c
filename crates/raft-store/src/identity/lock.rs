use std::fs::{File, TryLockError};
use std::io::{Seek, Write};
use std::path::Path;

use tidewater_common::file::read_at_most;

use super::{IdentityError, io_error};

const LOCK_FILE: &str = "lock";
/// Maximum length of a process id in the lock file, in bytes.
const MAX_PID_BYTES: u64 = 32;

/// Lock of a data directory. The operating system releases it when the process ends, however it
/// ends.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Locks the directory, and writes this process's id into the lock file for the error message
    /// of other processes.
    pub(super) fn acquire(dir: &Path) -> Result<Self, IdentityError> {
        let path = dir.join(LOCK_FILE);
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io_error("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = read_at_most(file, MAX_PID_BYTES).ok().flatten();
                let holder = holder.and_then(|holder| String::from_utf8(holder).ok());
                let pid = holder.and_then(|holder| holder.trim().parse().ok());
                return Err(IdentityError::InUse { path: dir.to_owned(), pid });
            }
            Err(TryLockError::Error(error)) => return Err(io_error("lock", &path)(error)),
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(io_error("write", &path))?;
        Ok(Self { _file: file })
    }
}
