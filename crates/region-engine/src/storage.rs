//! The object store as the engine uses it: every error names the operation and the object, every
//! wait has a limit, and what is visible is durable.
//!
//! Paths are relative to the store's root (`file:///dir`, `s3://bucket/prefix`, ..).
//!
//! **Put if absent** is what manifests stand on: of all who create one name, one wins. Every
//! outcome but [`PutOutcome::Created`] is ambiguous, also [`PutOutcome::Conflict`]: the libraries
//! retry after a 5xx or a closed connection and so meet their own object, and some servers answer
//! 409 with nothing stored. The manifest settles it by reading the slot back.

mod error;
mod local;
mod marker;
mod open;
mod options;
mod probe;
mod retry;
mod start;
pub mod testing;
mod upload;

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload};

pub use self::error::{Operation, StorageError};
pub use self::marker::{CLUSTER_MARKER, ClusterMarker, MarkerError};
pub use self::options::StorageOptions;
pub use self::probe::{ProbeError, ProbeTest};
pub(crate) use self::retry::rest;
pub use self::start::StoreError;
pub use self::upload::{Upload, Uploaded};

/// A handle on an object store below one root; cheap to clone.
#[derive(Clone)]
pub struct Storage {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn ObjectStore>,
    location: String,
    options: StorageOptions,
}

/// What came of a put if absent.
#[derive(Debug, Clone)]
#[must_use]
pub enum PutOutcome {
    /// The object in the slot is ours.
    Created,
    /// The store says that the slot is taken: by another, by our own earlier try, or by nobody.
    Conflict(StorageError),
    /// It may be stored, or may still be.
    Unknown(StorageError),
}

impl Storage {
    /// Opens `file:///abs/dir`, `s3://bucket/prefix`, `gs://`, `az://` or `memory:///`. The
    /// directory of a `file` URL is created. Does not talk to a remote store: see
    /// [`Storage::probe`].
    pub async fn open(url: &str) -> Result<Self, StorageError> {
        Self::open_with(url, StorageOptions::default()).await
    }

    /// [`Storage::open`] with other limits.
    pub async fn open_with(url: &str, options: StorageOptions) -> Result<Self, StorageError> {
        open::open(url, options).await
    }

    /// Whether a URL names a store that [`Storage::open`] knows; touches nothing.
    ///
    /// # Errors
    /// [`StorageError::Url`] says what is wrong with it.
    pub fn check_url(url: &str) -> Result<(), StorageError> {
        open::check(url)
    }

    /// The directory that a URL of this machine's file system names; `None` for any other.
    pub fn directory(url: &str) -> Option<PathBuf> {
        open::directory(url)
    }

    /// A store that lives as long as its last handle.
    pub fn memory() -> Self {
        Self::new(
            Arc::new(object_store::memory::InMemory::new()),
            "memory://",
            StorageOptions::default(),
        )
    }

    /// Wraps a store; `location` stands before the path in messages.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        location: impl Into<String>,
        options: StorageOptions,
    ) -> Self {
        let mut location: String = location.into();
        while location.ends_with('/') && !location.ends_with("://") {
            location.pop();
        }
        Self { inner: Arc::new(Inner { store, location, options }) }
    }

    /// The root, as an operator would write it.
    pub fn location(&self) -> &str {
        &self.inner.location
    }

    /// How an object is named in messages.
    pub fn name(&self, path: &Path) -> String {
        match self.inner.location.ends_with('/') {
            true => format!("{}{path}", self.inner.location),
            false => format!("{}/{path}", self.inner.location),
        }
    }

    /// Creates an object if its name is free. Tried once here (the libraries below may try
    /// again): who calls this must settle every outcome but `Created`.
    pub async fn put_if_absent(&self, path: &Path, bytes: Bytes) -> PutOutcome {
        let put = self.inner.store.put_opts(path, PutPayload::from(bytes), PutMode::Create.into());
        match self.within(Operation::PutIfAbsent, path, put).await {
            Ok(_) => PutOutcome::Created,
            Err(error) if error.is_conflict() => PutOutcome::Conflict(error),
            Err(error) => PutOutcome::Unknown(error),
        }
    }

    /// Writes an object whole, over whatever is there; in parts when it is large.
    pub async fn put(&self, path: &Path, bytes: Bytes) -> Result<(), StorageError> {
        if bytes.len() > self.inner.options.part_bytes {
            let mut upload = self.upload(path).await?;
            upload.write(bytes).await?;
            return upload.finish().await.map(drop);
        }
        retry::idempotent(&self.inner.options, || {
            let put = self.inner.store.put(path, PutPayload::from(bytes.clone()));
            self.within(Operation::Put, path, put)
        })
        .await
        .map(drop)
    }

    /// Starts writing an object in parts; nothing is visible until [`Upload::finish`].
    pub async fn upload(&self, path: &Path) -> Result<Upload, StorageError> {
        Upload::start(self.clone(), path.clone()).await
    }

    /// Reads an object whole.
    pub async fn get(&self, path: &Path) -> Result<Bytes, StorageError> {
        retry::idempotent(&self.inner.options, || {
            self.within(Operation::Get, path, async {
                self.inner.store.get(path).await?.bytes().await
            })
        })
        .await
    }

    /// Reads an object whole; `None` when there is none.
    pub async fn get_opt(&self, path: &Path) -> Result<Option<Bytes>, StorageError> {
        match self.get(path).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads bytes `range`; an error when the object is shorter.
    pub async fn get_range(&self, path: &Path, range: Range<u64>) -> Result<Bytes, StorageError> {
        let wanted = range.end.saturating_sub(range.start);
        let bytes = retry::idempotent(&self.inner.options, || {
            self.within(Operation::Get, path, self.inner.store.get_range(path, range.clone()))
        })
        .await?;
        self.expect_length(path, wanted, &bytes)?;
        Ok(bytes)
    }

    /// Reads several ranges, near ones in one request.
    pub async fn get_ranges(
        &self,
        path: &Path,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>, StorageError> {
        let parts = retry::idempotent(&self.inner.options, || {
            self.within(Operation::Get, path, self.inner.store.get_ranges(path, ranges))
        })
        .await?;
        for (range, bytes) in ranges.iter().zip(&parts) {
            self.expect_length(path, range.end.saturating_sub(range.start), bytes)?;
        }
        Ok(parts)
    }

    /// Size and time of an object.
    pub async fn head(&self, path: &Path) -> Result<ObjectMeta, StorageError> {
        retry::idempotent(&self.inner.options, || {
            self.within(Operation::Head, path, self.inner.store.head(path))
        })
        .await
    }

    /// All objects below `prefix` with names after `offset`, in order of name.
    pub async fn list(
        &self,
        prefix: &Path,
        offset: Option<&Path>,
    ) -> Result<Vec<ObjectMeta>, StorageError> {
        let mut objects = retry::idempotent(&self.inner.options, || {
            let stream = match offset {
                Some(offset) => self.inner.store.list_with_offset(Some(prefix), offset),
                None => self.inner.store.list(Some(prefix)),
            };
            self.within(Operation::List, prefix, stream.try_collect::<Vec<_>>())
        })
        .await?;
        objects.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(objects)
    }

    /// The folders right below `prefix` (`None`: below the root), in order of name, and how many
    /// objects lie there beside them.
    pub async fn folders(&self, prefix: Option<&Path>) -> Result<(Vec<Path>, u64), StorageError> {
        let root = Path::default();
        let listed = retry::idempotent(&self.inner.options, || {
            let list = self.inner.store.list_with_delimiter(prefix);
            self.within(Operation::List, prefix.unwrap_or(&root), list)
        })
        .await?;
        let mut folders = listed.common_prefixes;
        folders.sort();
        Ok((folders, listed.objects.len() as u64))
    }

    /// Deletes an object; one that is not there counts as deleted.
    pub async fn delete(&self, path: &Path) -> Result<(), StorageError> {
        let deleted = retry::idempotent(&self.inner.options, || {
            self.within(Operation::Delete, path, self.inner.store.delete(path))
        })
        .await;
        match deleted {
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        }
    }

    async fn within<T>(
        &self,
        operation: Operation,
        path: &Path,
        call: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, StorageError> {
        match tokio::time::timeout(self.inner.options.deadline, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(source)) => Err(StorageError::store(operation, self.name(path), source)),
            Err(_) => {
                Err(StorageError::late(operation, self.name(path), self.inner.options.deadline))
            }
        }
    }

    fn expect_length(&self, path: &Path, wanted: u64, bytes: &Bytes) -> Result<(), StorageError> {
        if u64::try_from(bytes.len()).ok() == Some(wanted) {
            return Ok(());
        }
        Err(StorageError::Short { object: self.name(path), wanted, got: bytes.len() })
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Storage").field(&self.inner.location).finish()
    }
}

#[cfg(test)]
mod tests;
