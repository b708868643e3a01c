//! Objects of a source in a remote store.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, GetOptions, ObjectStore, ObjectStoreExt};
use tidewater_common::quote::cut_at;
use tokio::io::AsyncWriteExt;

use super::blocking;
use super::format::ObjectFormat;
use super::listing::{ObjectList, size_text};
use super::pin::{Pin, changed};
use crate::{Listing, SourceError, Split};

/// Maximum size of an object in bytes: the free disk space that a read needs.
const MAX_OBJECT_BYTES: u64 = 4 << 30;

/// Concurrent requests for the versions of objects.
const VERSION_REQUESTS: usize = 16;

/// Timeout of a request until its response begins, and of each part of a response.
const TIMEOUT: Duration = Duration::from_secs(90);

/// Characters of a store's error that a message repeats: it may be a whole page.
const MAX_ERROR_CHARS: usize = 500;

/// Objects of one format below a prefix.
pub(super) struct RemoteObjects {
    /// The store below the prefix.
    pub(super) store: Arc<dyn ObjectStore>,
    /// URL of the prefix.
    pub(super) name: String,
    /// Format of the objects.
    pub(super) format: ObjectFormat,
    /// Place of temporary files.
    pub(super) spool: Spool,
}

impl RemoteObjects {
    /// Lists and pins the objects.
    pub(super) async fn list(&self) -> Result<Listing, SourceError> {
        let mut list = ObjectList::new(self.name.clone());
        let mut objects = self.store.list(None);
        while let Some(meta) = self.within(&self.name, objects.next()).await? {
            list.examine()?;
            let meta = meta.map_err(|error| store_error(&self.name, &error))?;
            let object = meta.location.as_ref();
            if self.format.includes(object) {
                self.spool.check_size(&self.object_name(object), meta.size)?;
                list.add(Pin::of_object(object, &meta))?;
            }
        }
        list.pins = self.with_versions(std::mem::take(&mut list.pins)).await?;
        list.finish()
    }

    /// Adds the versions of objects, which listings lack, if the store has versions.
    async fn with_versions(&self, pins: Vec<Pin>) -> Result<Vec<Pin>, SourceError> {
        match pins.first() {
            Some(first) if self.pin(&first.object).await?.version.is_some() => {}
            _ => return Ok(pins),
        }
        stream::iter(pins)
            .map(|pin| async move { self.pin(&pin.object).await })
            .buffered(VERSION_REQUESTS)
            .try_collect()
            .await
    }

    /// Requests the pin of an object.
    async fn pin(&self, object: &str) -> Result<Pin, SourceError> {
        let name = self.object_name(object);
        let path = path(&name, object)?;
        let found = self.within(&name, self.store.head(&path)).await?;
        let meta = found.map_err(|error| object_error(&name, &error))?;
        self.spool.check_size(&name, meta.size)?;
        Ok(Pin::of_object(object, &meta))
    }

    /// Copies the pinned content of a split to a temporary file.
    pub(super) async fn fetch(&self, split: &Split) -> Result<File, SourceError> {
        let pin = Pin::of_split(split)?;
        let name = &split.name;
        self.spool.check_size(name, pin.size)?;
        let path = path(name, &pin.object)?;
        let options = GetOptions {
            // A weak tag equals none in this condition. It is compared below.
            if_match: pin.e_tag.clone().filter(|tag| !tag.starts_with("W/")),
            version: pin.version.clone(),
            ..GetOptions::default()
        };
        let found = self.within(name, self.store.get_opts(&path, options)).await?;
        let found = found.map_err(|error| object_error(name, &error))?;
        if !pin.is_content_of(&Pin::of_object(&pin.object, &found.meta)) {
            return Err(changed(name, "was replaced"));
        }
        self.copy(name, pin.size, found.into_stream()).await
    }

    async fn copy(
        &self,
        name: &str,
        size: u64,
        mut parts: BoxStream<'static, object_store::Result<Bytes>>,
    ) -> Result<File, SourceError> {
        let mut file = tokio::fs::File::from_std(self.spool.create().await?);
        let mut copied = 0_u64;
        while let Some(part) = self.within(name, parts.next()).await? {
            let part = part.map_err(|error| object_error(name, &error))?;
            copied = copied.saturating_add(part.len() as u64);
            if copied > size {
                return Err(changed(name, "has grown"));
            }
            file.write_all(&part).await.map_err(|error| self.spool.error(&error))?;
        }
        file.flush().await.map_err(|error| self.spool.error(&error))?;
        if copied < size {
            return Err(SourceError::Unreadable(format!(
                "{name}: the store sent {copied} of {size} bytes"
            )));
        }
        Ok(file.into_std().await)
    }

    async fn within<T>(&self, name: &str, call: impl Future<Output = T>) -> Result<T, SourceError> {
        tokio::time::timeout(TIMEOUT, call).await.map_err(|_| {
            SourceError::Unreadable(format!("{name}: no response within {} s", TIMEOUT.as_secs()))
        })
    }

    fn object_name(&self, object: &str) -> String {
        format!("{}/{object}", self.name)
    }
}

/// Place of temporary files.
#[derive(Debug, Clone)]
pub(super) struct Spool {
    directory: PathBuf,
    max_bytes: u64,
}

impl Spool {
    /// Creates the place. The directory is created when it is used.
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, max_bytes: MAX_OBJECT_BYTES }
    }

    fn check_size(&self, name: &str, size: u64) -> Result<(), SourceError> {
        if size <= self.max_bytes {
            return Ok(());
        }
        Err(SourceError::Unreadable(format!(
            "{name} has {}, the maximum of an object is {}: write smaller objects",
            size_text(size),
            size_text(self.max_bytes)
        )))
    }

    /// Creates a file without a name: it disappears with its last handle, also if the process is killed.
    async fn create(&self) -> Result<File, SourceError> {
        let spool = self.clone();
        blocking(move || {
            std::fs::create_dir_all(&spool.directory)
                .and_then(|()| tempfile::tempfile_in(&spool.directory))
                .map_err(|error| spool.error(&error))
        })
        .await
    }

    fn error(&self, error: &std::io::Error) -> SourceError {
        SourceError::Unreadable(format!(
            "an object cannot be copied to a temporary file in {}: {error}",
            self.directory.display()
        ))
    }
}

fn path(name: &str, object: &str) -> Result<Path, SourceError> {
    Path::parse(object).map_err(|error| SourceError::Unreadable(format!("{name}: {error}")))
}

/// Returns the error of a read of a listed object.
fn object_error(name: &str, error: &Error) -> SourceError {
    match error {
        Error::NotFound { .. } => changed(name, "was deleted"),
        Error::Precondition { .. } | Error::NotModified { .. } => changed(name, "was replaced"),
        error => store_error(name, error),
    }
}

fn store_error(name: &str, error: &Error) -> SourceError {
    let text = error.to_string();
    let text = cut_at(&text, MAX_ERROR_CHARS);
    SourceError::Unreadable(format!("{name}: {text}"))
}

#[cfg(test)]
#[path = "remote_tests.rs"]
mod tests;
