//! Room for outputs, where the object store is a directory of this machine.

use std::path::PathBuf;

use tidewater_region_engine::storage::Storage;
use tracing::warn;

/// The disk of an object store.
#[derive(Debug)]
pub(crate) struct Disk {
    /// `None`: the store is elsewhere, and says itself when it is full.
    directory: Option<PathBuf>,
    reserve: u64,
}

impl Disk {
    /// Of the store at `url`, on which `reserve` bytes stay free.
    pub(crate) fn of(url: &str, reserve: u64) -> Self {
        Self { directory: Storage::directory(url), reserve }
    }

    /// Bytes that may be written; `None`: no limit is known.
    pub(crate) async fn room(&self) -> Option<u64> {
        let directory = self.directory.clone()?;
        let asked = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&directory)).await;
        match asked {
            Ok(Ok(stat)) => {
                let free = stat.f_bavail.saturating_mul(stat.f_frsize);
                Some(free.saturating_sub(self.reserve))
            }
            Ok(Err(error)) => {
                warn!(%error, "the disk of the object store does not say how much is free");
                None
            }
            Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_local_directory_has_a_disk() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file://{}", dir.path().display());
        let free = Disk::of(&url, 0).room().await.unwrap();
        assert!(free > 0);
        assert_eq!(Disk::of(&url, u64::MAX).room().await, Some(0));
        assert_eq!(Disk::of("file:///nowhere/at/all", 0).room().await, None);
        assert_eq!(Disk::of("memory:///", 0).room().await, None);
    }
}
