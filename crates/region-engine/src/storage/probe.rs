//! Probe of a store at start: checks the guarantees that manifests depend on.

use std::fmt;

use bytes::Bytes;
use object_store::path::Path;
use uuid::Uuid;

use super::{PutOutcome, Storage, StorageError};

/// Maximum bytes of the probe's object.
const MAX_BYTES: u64 = 64;

/// Tests of the probe, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeTest {
    /// An object can be created.
    Write,
    /// The created object can be read and is the same.
    ReadBack,
    /// A listing contains the object that was just created.
    ListAfterWrite,
    /// Creating it again is rejected and does not change it.
    PutIfAbsent,
    /// After a delete, reads and listings do not return it.
    Delete,
}

/// Failed probe: the store must not be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("object store {location} failed the start-up test \"{test}\": {detail}")]
pub struct ProbeError {
    /// The store's root.
    pub location: String,
    /// The failed test.
    pub test: ProbeTest,
    /// The observed behaviour.
    pub detail: String,
    /// The store's error, if it returned one.
    #[source]
    pub source: Option<StorageError>,
}

impl Storage {
    /// Tests the store's guarantees below `_probe/<nonce>`. Leaves nothing behind on success.
    pub async fn probe(&self, nonce: Uuid) -> Result<(), ProbeError> {
        let dir = Path::from(format!("_probe/{nonce}"));
        let path = dir.clone().join("object");
        let result = self.probe_at(&dir, &path).await;
        if result.is_err() {
            // Best effort; the probe's own failure is reported.
            let _ = self.delete(&path).await;
        }
        result
    }

    async fn probe_at(&self, dir: &Path, path: &Path) -> Result<(), ProbeError> {
        let first = Bytes::from_static(b"first");
        let second = Bytes::from_static(b"second");

        if let PutOutcome::Conflict(error) | PutOutcome::Unknown(error) =
            self.put_if_absent(path, first.clone()).await
        {
            // A retry within the library may have found its own object.
            if !self.get_within(path, MAX_BYTES).await.is_ok_and(|found| found == first) {
                return Err(self.call_failed(ProbeTest::Write, error));
            }
        }
        let found = self
            .get_within(path, MAX_BYTES)
            .await
            .map_err(|e| self.call_failed(ProbeTest::ReadBack, e))?;
        if found != first {
            return Err(
                self.violated(ProbeTest::ReadBack, "the bytes read differ from the bytes written")
            );
        }
        if !self.lists(dir, path, ProbeTest::ListAfterWrite).await? {
            return Err(self.violated(
                ProbeTest::ListAfterWrite,
                "a listing does not contain an object that was just written",
            ));
        }
        if let PutOutcome::Created = self.put_if_absent(path, second).await {
            return Err(self.violated(
                ProbeTest::PutIfAbsent,
                "creating an existing object was not rejected: two owners could overwrite each \
                 other's commits. Use a store that supports conditional writes (If-None-Match)",
            ));
        }
        let found = self
            .get_within(path, MAX_BYTES)
            .await
            .map_err(|e| self.call_failed(ProbeTest::PutIfAbsent, e))?;
        if found != first {
            return Err(self.violated(
                ProbeTest::PutIfAbsent,
                "creating an existing object was rejected but overwrote it",
            ));
        }
        self.delete(path).await.map_err(|e| self.call_failed(ProbeTest::Delete, e))?;
        let left = self
            .get_opt_within(path, MAX_BYTES)
            .await
            .map_err(|e| self.call_failed(ProbeTest::Delete, e))?;
        if left.is_some() || self.lists(dir, path, ProbeTest::Delete).await? {
            return Err(self.violated(ProbeTest::Delete, "a deleted object still exists"));
        }
        Ok(())
    }

    async fn lists(&self, dir: &Path, path: &Path, test: ProbeTest) -> Result<bool, ProbeError> {
        let objects = self.list(dir, None).await.map_err(|error| self.call_failed(test, error))?;
        Ok(objects.iter().any(|object| object.location == *path))
    }

    fn violated(&self, test: ProbeTest, detail: &str) -> ProbeError {
        let detail = detail.to_owned();
        ProbeError { location: self.location().to_owned(), test, detail, source: None }
    }

    fn call_failed(&self, test: ProbeTest, error: StorageError) -> ProbeError {
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
