//! An opened target.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use object_store::path::Path;
use object_store::{Error, GetOptions, ObjectStore, ObjectStoreExt, PutMode};

use super::writer_store::WriterStore;
use super::{ObjectWriter, TargetError, blocking, directory};
use crate::error::causes;
use crate::objects::{TIMEOUT, store_error};

/// Size of the parts of an object in bytes. S3 accepts 10,000 parts of at least 5 MiB.
pub(super) const PART_BYTES: usize = 8 << 20;
/// Parts of a writer that are sent at a time.
const CONCURRENT_PARTS: usize = 4;

/// An opened target: the directory or prefix below which an export writes objects. Cheap to clone.
///
/// Names of objects are relative to it, with `/` between their parts. They have no `#`, which marks temporary files
/// of local targets: listings hide those, and a process that was killed leaves them.
#[derive(Clone)]
pub struct Target {
    url: Arc<str>,
    pub(super) store: Arc<dyn ObjectStore>,
    /// Directory of a local target, without symbolic links.
    directory: Option<Arc<std::path::Path>>,
    /// Timeout of a request.
    pub(super) timeout: Duration,
}

impl fmt::Debug for Target {
    // A store shows its keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Target").field(&self.url).finish()
    }
}

impl Target {
    /// Creates a target with a store, whose root is the directory or prefix. `directory`: that of a local target.
    pub(super) fn new(url: &str, store: Arc<dyn ObjectStore>, directory: Option<PathBuf>) -> Self {
        Self { url: url.into(), store, directory: directory.map(Into::into), timeout: TIMEOUT }
    }

    /// URL of the directory or prefix for people, without a slash at its end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns whether the target is a directory of the node.
    pub fn is_local(&self) -> bool {
        self.directory.is_some()
    }

    /// Writes an object if none has the name, and returns whether it did. `false`: an object has the name. It may be that
    /// of this call, because stores repeat requests: compare its content.
    ///
    /// # Errors
    /// [`TargetError`].
    pub async fn put_new(&self, path: &str, bytes: Bytes) -> Result<bool, TargetError> {
        let path = self.object(path)?;
        self.check(&path).await?;
        let put = self.store.put_opts(&path, bytes.into(), PutMode::Create.into());
        match self.within(&path, put).await? {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. }) => self.check_exists(&path).await.map(|()| false),
            Err(error) => Err(self.error(&path, &error)),
        }
    }

    /// Checks that an object exists which a write has found: stores also answer so when another write of the name is in
    /// progress, which may fail.
    async fn check_exists(&self, path: &Path) -> Result<(), TargetError> {
        match self.within(path, self.store.head(path)).await? {
            Ok(_) => Ok(()),
            Err(Error::NotFound { .. }) => Err(TargetError::Unavailable(format!(
                "{}: another write of the object is in progress, or it was deleted: retry",
                self.name(path)
            ))),
            Err(error) => Err(self.error(path, &error)),
        }
    }

    /// Reads an object of at most `limit` bytes; `None`: no object has the name.
    ///
    /// # Errors
    /// [`TargetError::Invalid`] if it is larger, and other [`TargetError`]s.
    pub async fn get(&self, path: &str, limit: u64) -> Result<Option<Bytes>, TargetError> {
        let path = self.object(path)?;
        self.check(&path).await?;
        let get = self.store.get_opts(&path, GetOptions::default());
        let found = match self.within(&path, get).await? {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.error(&path, &error)),
        };
        let size = found.meta.size;
        let too_large = |size: u64| {
            let name = self.name(&path);
            TargetError::Invalid(format!("{name} has {size} bytes, the maximum is {limit}"))
        };
        if size > limit {
            return Err(too_large(size));
        }
        let mut parts = found.into_stream();
        let mut bytes = BytesMut::new();
        while let Some(part) = self.within(&path, parts.next()).await? {
            let part = part.map_err(|error| self.error(&path, &error))?;
            bytes.extend_from_slice(&part);
            if bytes.len() as u64 > limit {
                return Err(too_large(bytes.len() as u64));
            }
        }
        if (bytes.len() as u64) < size {
            let name = self.name(&path);
            let sent = bytes.len();
            let text = format!("{name}: the store sent {sent} of {size} bytes: retry");
            return Err(TargetError::Unavailable(text));
        }
        Ok(Some(bytes.freeze()))
    }

    /// Returns the names of objects below a path (`""`: all), relative to the target, in any order. Ends after `limit`
    /// names.
    ///
    /// # Errors
    /// [`TargetError`].
    pub async fn list(&self, below: &str, limit: usize) -> Result<Vec<String>, TargetError> {
        let below = parse(below)?;
        let mut objects = self.store.list(Some(&below));
        let mut names = Vec::new();
        while names.len() < limit
            && let Some(object) = self.within(&below, objects.next()).await?
        {
            let object = object.map_err(|error| self.error(&below, &error))?;
            names.push(object.location.into());
        }
        Ok(names)
    }

    /// Deletes an object, if one has the name. A deleted file of a local target may reappear after a power cut.
    ///
    /// # Errors
    /// [`TargetError`].
    pub async fn delete(&self, path: &str) -> Result<(), TargetError> {
        let path = self.object(path)?;
        self.check(&path).await?;
        match self.within(&path, self.store.delete(&path)).await? {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.error(&path, &error)),
        }
    }

    /// Returns the writer of a large object. The object becomes visible, and replaces one of the same name, when the
    /// writer is shut down; it is durable when the shutdown returns.
    ///
    /// # Errors
    /// [`TargetError::Invalid`] if the name is invalid. Nothing is sent before the first write.
    pub fn writer(&self, path: &str) -> Result<ObjectWriter, TargetError> {
        let path = self.object(path)?;
        let store = Arc::new(WriterStore::new(self.clone()));
        let writer = ObjectWriter::with_capacity(store, path, PART_BYTES);
        Ok(writer.with_max_concurrency(CONCURRENT_PARTS))
    }

    /// Name of an object for people.
    fn name(&self, path: &Path) -> String {
        if path.as_ref().is_empty() { self.url.to_string() } else { format!("{}/{path}", self.url) }
    }

    fn object(&self, path: &str) -> Result<Path, TargetError> {
        let parsed = parse(path)?;
        if parsed.as_ref().is_empty() || path.contains('#') {
            let text = format!("{}: {path:?} is not the name of an object", self.url);
            return Err(TargetError::Invalid(text));
        }
        Ok(parsed)
    }

    /// Checks the file of an object of a local target.
    pub(super) async fn check(&self, path: &Path) -> Result<(), TargetError> {
        let Some(root) = self.directory.clone() else { return Ok(()) };
        let name: &str = path.as_ref();
        let file = root.join(name);
        self.within(path, blocking(move || directory::check_file(&root, &file))).await?
    }

    /// Returns the result of a request, within its timeout.
    pub(super) async fn request<T>(
        &self,
        path: &Path,
        call: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, TargetError> {
        self.within(path, call).await?.map_err(|error| self.error(path, &error))
    }

    async fn within<T>(
        &self,
        path: &Path,
        call: impl Future<Output = T>,
    ) -> Result<T, TargetError> {
        tokio::time::timeout(self.timeout, call).await.map_err(|_| {
            TargetError::Unavailable(format!(
                "{}: no response within {} s: check the store",
                self.name(path),
                self.timeout.as_secs()
            ))
        })
    }

    fn error(&self, path: &Path, error: &Error) -> TargetError {
        let name = self.name(path);
        if self.directory.is_some() {
            let problem = io_problem(error);
            let text = format!("{name}: {problem}: check the directory and its disk");
            return TargetError::Unavailable(text);
        }
        match (error, TargetError::from(store_error(&name, error))) {
            (
                Error::PermissionDenied { .. } | Error::Unauthenticated { .. },
                TargetError::Unavailable(text),
            ) => TargetError::Unavailable(format!(
                "{text}: check credentials_file, and the permissions of its keys"
            )),
            (_, error) => error,
        }
    }
}

fn parse(path: &str) -> Result<Path, TargetError> {
    Path::parse(path).map_err(|error| TargetError::Invalid(error.to_string()))
}

/// Returns the error of the file system, without the names of the library's errors.
fn io_problem(error: &Error) -> String {
    let found = causes(error).find_map(|cause| cause.downcast_ref::<io::Error>());
    found.map_or_else(|| error.to_string(), ToString::to_string)
}
