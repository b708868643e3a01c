//! The object store as the engine uses it: every error names the operation and the object, every
//! call has a deadline, and visible objects are durable.
//!
//! Paths are relative to the store's root (`file:///dir`, `s3://bucket/prefix`, ..).
//!
//! Manifests depend on **put if absent**: of all writers that create one name, one wins. Every
//! outcome except [`PutOutcome::Created`] is ambiguous, also [`PutOutcome::Conflict`]: the
//! libraries retry after a 5xx or a closed connection and then find their own object, and some
//! servers answer 409 with nothing stored. The manifest resolves the outcome by reading the slot
//! back.

mod disk;
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

pub use self::disk::StoreDisk;
pub use self::error::{Operation, StorageError};
pub use self::local::DurableLocal;
pub use self::marker::{CLUSTER_MARKER, ClusterMarker, MarkerError};
pub use self::options::StorageOptions;
pub use self::probe::{ProbeError, ProbeTest};
pub use self::start::StoreError;
pub use self::upload::{Upload, Uploaded};

/// Maximum bytes of an object that is read as a whole: deltas and checkpoints of manifests. A delta of the
/// most files of a job, or a checkpoint of a hundred thousand files, has a tenth of it.
pub const MAX_OBJECT_BYTES: u64 = 256 << 20;

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

/// Outcome of a put if absent.
#[derive(Debug, Clone)]
#[must_use]
pub enum PutOutcome {
    /// The slot holds our object.
    Created,
    /// The store reports that the slot is taken: by another object, by our own earlier attempt, or
    /// by nothing.
    Conflict(StorageError),
    /// The object may be stored, now or later.
    Unknown(StorageError),
}

impl Storage {
    /// Opens `file:///abs/dir`, `s3://bucket/prefix`, `gs://`, `az://` or `memory:///`. The
    /// directory of a `file` URL is created. Does not call a remote store: see [`Storage::probe`].
    pub async fn open(url: &str) -> Result<Self, StorageError> {
        Self::open_with(url, StorageOptions::default()).await
    }

    /// [`Storage::open`] with other limits.
    pub async fn open_with(url: &str, options: StorageOptions) -> Result<Self, StorageError> {
        open::open(url, options).await
    }

    /// Checks that [`Storage::open`] supports a URL; accesses nothing.
    ///
    /// # Errors
    /// [`StorageError::Url`] with the problem.
    pub fn check_url(url: &str) -> Result<(), StorageError> {
        open::check(url)
    }

    /// Returns the local directory of a `file` URL; `None` for any other URL.
    pub fn directory(url: &str) -> Option<PathBuf> {
        open::directory(url)
    }

    /// Creates a store in memory, which lives as long as its last handle.
    pub fn memory() -> Self {
        Self::new(
            Arc::new(object_store::memory::InMemory::new()),
            "memory://",
            StorageOptions::default(),
        )
    }

    /// Wraps a store; `location` precedes the path in messages.
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

    /// URL of the root, as an operator would write it.
    pub fn location(&self) -> &str {
        &self.inner.location
    }

    /// Name of an object in messages.
    pub fn name(&self, path: &Path) -> String {
        if self.inner.location.ends_with('/') {
            format!("{}{path}", self.inner.location)
        } else {
            format!("{}/{path}", self.inner.location)
        }
    }

    /// Creates an object if its name is free. Makes one attempt (the libraries below may retry):
    /// the caller must resolve every outcome except `Created`.
    pub async fn put_if_absent(&self, path: &Path, bytes: Bytes) -> PutOutcome {
        let put = self.inner.store.put_opts(path, PutPayload::from(bytes), PutMode::Create.into());
        match self.with_deadline(Operation::PutIfAbsent, path, put).await {
            Ok(_) => PutOutcome::Created,
            Err(error) if error.is_conflict() => PutOutcome::Conflict(error),
            Err(error) => PutOutcome::Unknown(error),
        }
    }

    /// Writes an object, replacing any existing one; in parts when it is large.
    pub async fn put(&self, path: &Path, bytes: Bytes) -> Result<(), StorageError> {
        if bytes.len() > self.inner.options.part_bytes {
            let mut upload = self.upload(path).await?;
            upload.write(bytes).await?;
            return upload.finish().await.map(drop);
        }
        retry::idempotent(&self.inner.options, || {
            let put = self.inner.store.put(path, PutPayload::from(bytes.clone()));
            self.with_deadline(Operation::Put, path, put)
        })
        .await
        .map(drop)
    }

    /// Starts to write an object in parts; nothing is visible until [`Upload::finish`].
    pub async fn upload(&self, path: &Path) -> Result<Upload, StorageError> {
        Upload::start(self.clone(), path.clone()).await
    }

    /// Reads a whole object of at most [`MAX_OBJECT_BYTES`].
    pub async fn get(&self, path: &Path) -> Result<Bytes, StorageError> {
        self.get_within(path, MAX_OBJECT_BYTES).await
    }

    /// Reads a whole object of at most `limit` bytes: [`StorageError::TooLarge`] if it has more.
    pub async fn get_within(&self, path: &Path, limit: u64) -> Result<Bytes, StorageError> {
        let read = retry::idempotent(&self.inner.options, || {
            self.with_deadline(Operation::Get, path, async {
                let found = self.inner.store.get(path).await?;
                let size = found.meta.size;
                // Limited read.
                if size > limit { Ok(Err(size)) } else { found.bytes().await.map(Ok) }
            })
        });
        let object = || self.name(path);
        read.await?.map_err(|size| StorageError::TooLarge { object: object(), size, limit })
    }

    /// Reads a whole object of at most [`MAX_OBJECT_BYTES`]; `None` when it does not exist.
    pub async fn get_opt(&self, path: &Path) -> Result<Option<Bytes>, StorageError> {
        self.get_opt_within(path, MAX_OBJECT_BYTES).await
    }

    /// As [`get_within`](Self::get_within); `None` when the object does not exist.
    pub async fn get_opt_within(
        &self,
        path: &Path,
        limit: u64,
    ) -> Result<Option<Bytes>, StorageError> {
        match self.get_within(path, limit).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads bytes `range`; an error when the object is shorter.
    pub async fn get_range(&self, path: &Path, range: Range<u64>) -> Result<Bytes, StorageError> {
        let expected = range.end.saturating_sub(range.start);
        let bytes = retry::idempotent(&self.inner.options, || {
            self.with_deadline(
                Operation::Get,
                path,
                self.inner.store.get_range(path, range.clone()),
            )
        })
        .await?;
        self.expect_length(path, expected, &bytes)?;
        Ok(bytes)
    }

    /// Reads several ranges; near ones in one request.
    pub async fn get_ranges(
        &self,
        path: &Path,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>, StorageError> {
        let parts = retry::idempotent(&self.inner.options, || {
            self.with_deadline(Operation::Get, path, self.inner.store.get_ranges(path, ranges))
        })
        .await?;
        for (range, bytes) in ranges.iter().zip(&parts) {
            self.expect_length(path, range.end.saturating_sub(range.start), bytes)?;
        }
        Ok(parts)
    }

    /// Returns size and time of an object.
    pub async fn head(&self, path: &Path) -> Result<ObjectMeta, StorageError> {
        retry::idempotent(&self.inner.options, || {
            self.with_deadline(Operation::Head, path, self.inner.store.head(path))
        })
        .await
    }

    /// Lists all objects below `prefix` with names after `offset`, in order of name.
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
            self.with_deadline(Operation::List, prefix, stream.try_collect::<Vec<_>>())
        })
        .await?;
        objects.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(objects)
    }

    /// Lists the directories directly below `prefix` (`None`: below the root), in order of name,
    /// and counts the objects next to them.
    pub async fn directories(
        &self,
        prefix: Option<&Path>,
    ) -> Result<(Vec<Path>, u64), StorageError> {
        let root = Path::default();
        let listed = retry::idempotent(&self.inner.options, || {
            let list = self.inner.store.list_with_delimiter(prefix);
            self.with_deadline(Operation::List, prefix.unwrap_or(&root), list)
        })
        .await?;
        let mut directories = listed.common_prefixes;
        directories.sort();
        Ok((directories, listed.objects.len() as u64))
    }

    /// Deletes an object; a missing object counts as deleted.
    pub async fn delete(&self, path: &Path) -> Result<(), StorageError> {
        let deleted = retry::idempotent(&self.inner.options, || {
            self.with_deadline(Operation::Delete, path, self.inner.store.delete(path))
        })
        .await;
        match deleted {
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        }
    }

    async fn with_deadline<T>(
        &self,
        operation: Operation,
        path: &Path,
        call: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, StorageError> {
        match tokio::time::timeout(self.inner.options.deadline, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(source)) => Err(StorageError::store(operation, self.name(path), source)),
            Err(_) => {
                Err(StorageError::deadline(operation, self.name(path), self.inner.options.deadline))
            }
        }
    }

    fn expect_length(&self, path: &Path, expected: u64, bytes: &Bytes) -> Result<(), StorageError> {
        if u64::try_from(bytes.len()).ok() == Some(expected) {
            return Ok(());
        }
        Err(StorageError::Short { object: self.name(path), expected, actual: bytes.len() })
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Storage").field(&self.inner.location).finish()
    }
}

#[cfg(test)]
mod tests;
