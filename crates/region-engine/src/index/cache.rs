//! Cache of indexes, for all regions of a process.

use std::sync::Arc;

use parking_lot::Mutex;
use uuid::Uuid;

use super::{PointIndex, kind};
use crate::cache::lru::Lru;
use crate::file_meta::{FileMeta, IndexMeta};
use crate::meters;
use crate::storage::{Storage, StorageError};

/// Bytes of an entry in addition to the index.
const OVERHEAD: usize = 200;

/// Cache of indexes. An unusable index is cached, too: it is read, and logged, once while it is
/// cached.
#[derive(Debug)]
pub struct IndexCache(Mutex<Lru<Uuid, Option<Arc<dyn PointIndex>>>>);

impl IndexCache {
    /// Creates a cache of at most `capacity` bytes; with 0, no index is used.
    pub fn new(capacity: usize) -> Self {
        Self(Mutex::new(Lru::new(capacity)))
    }

    /// Returns the index of a file, from memory or the store; `None` when there is no usable one.
    pub(crate) async fn load(
        &self,
        storage: &Storage,
        file: &FileMeta,
        index: &IndexMeta,
    ) -> Option<Arc<dyn PointIndex>> {
        if let Some(known) = self.0.lock().get(&index.index_id) {
            return known;
        }
        // An index that is not cached costs more than the pages that it saves.
        if usize::try_from(index.size).unwrap_or(usize::MAX) >= self.0.lock().capacity() {
            return None;
        }
        let path = file.origin.index(index.index_id, &index.kind);
        let read = match storage.get_within(&path, index.size).await {
            Ok(bytes) if crc32c::crc32c(&bytes) != index.checksum => {
                Err("its checksum does not match".to_owned())
            }
            Ok(bytes) => match kind(&index.kind) {
                Some(kind) => kind.open(file, &bytes),
                None => Err("this release does not know its kind".to_owned()),
            },
            Err(error) if error.is_not_found() => Err("it is missing".to_owned()),
            Err(StorageError::TooLarge { .. }) => Err("it is too large".to_owned()),
            // The next attempt may succeed.
            Err(error) => {
                tracing::debug!(object = %storage.name(&path), %error, "failed to read an index");
                return None;
            }
        };
        let usable = match read {
            Ok(usable) => Some(usable),
            Err(why) => {
                meters::record_unusable_index();
                tracing::warn!(
                    object = %storage.name(&path),
                    why,
                    "index is unusable; reading its file without it"
                );
                None
            }
        };
        let weight = OVERHEAD + usable.as_ref().map_or(0, |index| index.weight());
        self.0.lock().insert(index.index_id, usable.clone(), weight);
        usable
    }
}
