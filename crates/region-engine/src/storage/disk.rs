//! Free space for outputs, if the object store is a local directory.

use std::path::PathBuf;

use tracing::warn;

use super::Storage;

/// Disk of an object store.
#[derive(Debug)]
pub struct StoreDisk {
    /// `None`: the store is remote and reports by itself when it is full.
    directory: Option<PathBuf>,
    reserve: u64,
}

impl StoreDisk {
    /// Creates the disk of the store at `url`, on which `reserve` bytes stay free.
    pub fn new(url: &str, reserve: u64) -> Self {
        Self { directory: Storage::directory(url), reserve }
    }

    /// Bytes that may be written; `None`: no limit is known.
    pub async fn room(&self) -> Option<u64> {
        let directory = self.directory.clone()?;
        let stat = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&directory)).await;
        match stat {
            Ok(Ok(stat)) => {
                let free = stat.f_bavail.saturating_mul(stat.f_frsize);
                Some(free.saturating_sub(self.reserve))
            }
            Ok(Err(error)) => {
                warn!(%error, "failed to read free space of the object store's disk");
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
    async fn only_local_object_stores_have_a_disk() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file://{}", dir.path().display());
        let free = StoreDisk::new(&url, 0).room().await.unwrap();
        assert!(free > 0);
        assert_eq!(StoreDisk::new(&url, u64::MAX).room().await, Some(0));
        assert_eq!(StoreDisk::new("file:///nowhere/at/all", 0).room().await, None);
        assert_eq!(StoreDisk::new("memory:///", 0).room().await, None);
    }
}
