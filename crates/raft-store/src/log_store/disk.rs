use std::fmt::Debug;
use std::io;
use std::path::Path;

/// The disk as the flusher sees it, so that tests can fill it.
pub(crate) trait Disk: Debug + Send + Sync + 'static {
    /// Bytes that may still be written below `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;

    /// Called before each write; an error takes the place of the write's own.
    fn before_write(&self) -> Result<(), String> {
        Ok(())
    }
}

/// The machine's disk.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SystemDisk;

impl Disk for SystemDisk {
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}
