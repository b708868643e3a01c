//! Whether a store keeps the promises that manifests stand on; asked once at start.

use std::fmt;

use bytes::Bytes;
use object_store::path::Path;
use uuid::Uuid;

use super::{PutOutcome, Storage, StorageError};

/// What is tested, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeTest {
    /// An object can be created.
    Write,
    /// What was created can be read and is the same.
    ReadBack,
    /// A listing shows what was just created.
    ListAfterWrite,
    /// Creating it again is refused, and leaves it as it was.
    PutIfAbsent,
    /// It can be deleted, and is then gone from reads and listings.
    Delete,
}

/// The store must not be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("object store {location} failed the start-up test \"{test}\": {detail}")]
pub struct ProbeError {
    /// The store's root.
    pub location: String,
    /// Which test.
    pub test: ProbeTest,
    /// What was seen.
    pub detail: String,
    /// The store's error, when it gave one.
    #[source]
    pub source: Option<StorageError>,
}

impl Storage {
    /// Tests the store's promises below `_probe/<nonce>`. Leaves nothing behind when it succeeds.
    pub async fn probe(&self, nonce: Uuid) -> Result<(), ProbeError> {
        let dir = Path::from(format!("_probe/{nonce}"));
        let path = dir.clone().join("object");
        let result = self.probe_at(&dir, &path).await;
        if result.is_err() {
            // Best effort; the failure that is reported is the probe's.
            let _ = self.delete(&path).await;
        }
        result
    }

    async fn probe_at(&self, dir: &Path, path: &Path) -> Result<(), ProbeError> {
        let (first, second) = (Bytes::from_static(b"first"), Bytes::from_static(b"second"));

        if let PutOutcome::Conflict(error) | PutOutcome::Unknown(error) =
            self.put_if_absent(path, first.clone()).await
        {
            // A retry inside the library may have met its own object.
            if !self.get(path).await.is_ok_and(|found| found == first) {
                return Err(self.asked(ProbeTest::Write, error));
            }
        }
        let found = self.get(path).await.map_err(|e| self.asked(ProbeTest::ReadBack, e))?;
        if found != first {
            return Err(self.saw(ProbeTest::ReadBack, "other bytes came back than were written"));
        }
        if !self.lists(dir, path, ProbeTest::ListAfterWrite).await? {
            return Err(self.saw(
                ProbeTest::ListAfterWrite,
                "a listing does not show an object that was just written",
            ));
        }
        if let PutOutcome::Created = self.put_if_absent(path, second).await {
            return Err(self.saw(
                ProbeTest::PutIfAbsent,
                "creating an object that exists was not refused: two owners could overwrite each \
                 other's commits. Use a store that honours conditional writes (If-None-Match)",
            ));
        }
        let found = self.get(path).await.map_err(|e| self.asked(ProbeTest::PutIfAbsent, e))?;
        if found != first {
            return Err(self.saw(
                ProbeTest::PutIfAbsent,
                "creating an object that exists was refused, and overwrote it all the same",
            ));
        }
        self.delete(path).await.map_err(|e| self.asked(ProbeTest::Delete, e))?;
        let left = self.get_opt(path).await.map_err(|e| self.asked(ProbeTest::Delete, e))?;
        if left.is_some() || self.lists(dir, path, ProbeTest::Delete).await? {
            return Err(self.saw(ProbeTest::Delete, "a deleted object is still there"));
        }
        Ok(())
    }

    async fn lists(&self, dir: &Path, path: &Path, test: ProbeTest) -> Result<bool, ProbeError> {
        let objects = self.list(dir, None).await.map_err(|error| self.asked(test, error))?;
        Ok(objects.iter().any(|object| object.location == *path))
    }

    fn saw(&self, test: ProbeTest, detail: &str) -> ProbeError {
        let detail = detail.to_owned();
        ProbeError { location: self.location().to_owned(), test, detail, source: None }
    }

    fn asked(&self, test: ProbeTest, error: StorageError) -> ProbeError {
        ProbeError {
            location: self.location().to_owned(),
            test,
            detail: error.to_string(),
            source: Some(error),
        }
    }
}

impl fmt::Display for ProbeTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Write => "write",
            Self::ReadBack => "read back",
            Self::ListAfterWrite => "list after write",
            Self::PutIfAbsent => "put if absent",
            Self::Delete => "delete",
        })
    }
}
