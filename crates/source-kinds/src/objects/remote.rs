//! Objects of a source in a remote store.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt};
use tokio::io::AsyncWriteExt;

use super::format::ObjectFormat;
use super::listing::ObjectList;
use super::pin::{Pin, changed};
use super::spool::{CHECK_EVERY_BYTES, Spool};
use super::store_error::{object_error, store_error};
use crate::{Listing, SourceError, Split};

/// Maximum number of objects below a prefix, including those that do not belong to the source: a store needs up to half a
/// second for each thousand.
const MAX_EXAMINED: usize = 100_000;

/// Timeout of a listing, with the versions of its objects. A data node waits a little longer for it.
const LIST_TIMEOUT: Duration = Duration::from_secs(55);

/// Concurrent requests for the versions of objects.
const VERSION_REQUESTS: usize = 16;

/// Timeout of a request until its response begins, and of each part of a response.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(90);

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
        tokio::time::timeout(LIST_TIMEOUT, self.list_all()).await.map_err(|_| {
            SourceError::Unreadable(format!(
                "{} was not listed within {} s: name a prefix with fewer objects, or check the store",
                self.name,
                LIST_TIMEOUT.as_secs()
            ))
        })?
    }

    async fn list_all(&self) -> Result<Listing, SourceError> {
        let mut list = ObjectList::new(self.name.clone(), MAX_EXAMINED);
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
        let mut file = tokio::fs::File::from_std(self.spool.create(name, size).await?);
        let mut copied = 0_u64;
        let mut next_check = CHECK_EVERY_BYTES;
        while let Some(part) = self.within(name, parts.next()).await? {
            let part = part.map_err(|error| object_error(name, &error))?;
            copied = copied.saturating_add(part.len() as u64);
            if copied > size {
                return Err(changed(name, "has grown"));
            }
            if copied >= next_check {
                // With this part, which is not yet written.
                self.spool.check_space(name, size - copied + part.len() as u64).await?;
                next_check = copied.saturating_add(CHECK_EVERY_BYTES);
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

fn path(name: &str, object: &str) -> Result<Path, SourceError> {
    Path::parse(object).map_err(|error| SourceError::Unreadable(format!("{name}: {error}")))
}

#[cfg(test)]
#[path = "remote_tests.rs"]
mod tests;
