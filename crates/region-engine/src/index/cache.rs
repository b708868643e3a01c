//! Indexes that were read, for all regions of a process.

use std::sync::Arc;

use metrics::counter;
use parking_lot::Mutex;
use uuid::Uuid;

use super::{PointIndex, kind};
use crate::cache::lru::Lru;
use crate::file_meta::{FileMeta, IndexMeta};
use crate::storage::Storage;

/// What an entry weighs beside the index.
const OVERHEAD: usize = 200;

/// See the module's head. An index that cannot be used is remembered, too: it is looked at, and
/// complained of, once for as long as it is remembered.
#[derive(Debug)]
pub struct IndexCache(Mutex<Lru<Uuid, Option<Arc<dyn PointIndex>>>>);

impl IndexCache {
    /// Holds indexes of at most `capacity` bytes together; 0 holds none, and none is used.
    pub fn new(capacity: usize) -> Self {
        Self(Mutex::new(Lru::new(capacity)))
    }

    /// The index of a file, from memory or the store; `None` when there is none that can be used.
    pub(crate) async fn load(
        &self,
        storage: &Storage,
        file: &FileMeta,
        index: &IndexMeta,
    ) -> Option<Arc<dyn PointIndex>> {
        if let Some(known) = self.0.lock().get(&index.index_id) {
            return known;
        }
        // What does not stay in memory costs more than the pages that it spares.
        if usize::try_from(index.size).unwrap_or(usize::MAX) >= self.0.lock().capacity() {
            return None;
        }
        let path = file.origin.index(index.index_id, &index.kind);
        let read = match storage.get(&path).await {
            Ok(bytes) if crc32c::crc32c(&bytes) != index.checksum => {
                Err("its checksum is another one".to_owned())
            }
            Ok(bytes) => match kind(&index.kind) {
                Some(kind) => kind.open(file, &bytes),
                None => Err("this release does not know its kind".to_owned()),
            },
            Err(error) if error.is_not_found() => Err("it is missing".to_owned()),
            // The store may answer the next time.
            Err(error) => {
                tracing::debug!(object = %storage.name(&path), %error, "an index was not read");
                return None;
            }
        };
        let usable = match read {
            Ok(usable) => Some(usable),
            Err(why) => {
                counter!("tidewater_indexes_unusable_total").increment(1);
                tracing::warn!(
                    object = %storage.name(&path),
                    why,
                    "an index cannot be used: its file is read without it"
                );
                None
            }
        };
        let weight = OVERHEAD + usable.as_ref().map_or(0, |index| index.weight());
        self.0.lock().insert(index.index_id, usable.clone(), weight);
        usable
    }
}
