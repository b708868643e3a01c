use std::fmt::Debug;
use std::io;
use std::path::Path;

/// Disk operations of the flusher, replaceable so that tests can fill the disk.
pub(crate) trait Disk: Debug + Send + Sync + 'static {
    /// Returns the free bytes of the file system at `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;

    /// Runs before each write; an error replaces the result of the write.
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
