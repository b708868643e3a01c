//! Object cache: pieces of immutable objects in memory, within one limit for all regions of a
//! process.
//!
//! - **Piece**: a part of an object, identified by its offset: a page of a data file. Only verified
//!   bytes are cached, until they are evicted.
//! - **Values**: decoded columns of data files, which are cached, too: see [`values`].
//!
//! If several readers miss a piece at the same time, the first fetches it and the others wait. When
//! the first ends, by an error or by a drop, one of the others fetches the piece. A fetch must
//! therefore run in a task of its own, and not depend on the progress of a consumer of rows.
//!
//! A read that is large compared to the cache uses cached pieces but adds none: it would evict the
//! pieces of point reads, and its own would be evicted before its next run.

pub(crate) mod lru;
pub(crate) mod values;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

use self::lru::Lru;
use self::values::BlockColumn;
use crate::meters;

/// Bytes of an entry in addition to its value.
const OVERHEAD: usize = 160;

/// Id of a piece: the object's id and the offset at which the piece begins.
type PieceId = (Uuid, u64);

/// Key of a cached value. Object ids are never reused, so no cached value is ever stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum CacheKey {
    Piece(PieceId),
    Values(Uuid, BlockColumn),
}

#[derive(Debug, Clone)]
enum CachedValue {
    Piece(Bytes),
    Values(ArrayRef),
}

/// Receives a piece that another reader fetches.
type PendingPiece = watch::Receiver<Option<Bytes>>;

/// Cache of pieces and decoded values.
#[derive(Debug)]
pub struct ObjectCache {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    cached: Lru<CacheKey, CachedValue>,
    /// Pieces that readers are fetching.
    pending: HashMap<PieceId, PendingPiece>,
}

/// State of the pieces of one read.
#[derive(Debug)]
pub(crate) struct CacheLookup {
    /// Cached pieces.
    pub(crate) cached: Vec<(u64, Bytes)>,
    /// Pieces that other readers are fetching.
    pub(crate) pending: Vec<(u64, PendingPiece)>,
    /// Pieces that the caller must fetch.
    pub(crate) missing: MissingPieces,
}

/// Pieces that the holder must fetch; other readers may wait for them. When this is dropped, the
/// pieces that are still missing are left to other readers.
#[derive(Debug)]
#[must_use = "other readers wait for these pieces"]
pub(crate) struct MissingPieces {
    cache: Option<Arc<ObjectCache>>,
    object: Uuid,
    pieces: Vec<u64>,
    senders: HashMap<u64, watch::Sender<Option<Bytes>>>,
}

impl ObjectCache {
    /// Creates a cache of at most `capacity` bytes; 0 disables it.
    pub fn new(capacity: usize) -> Self {
        let inner = Inner { cached: Lru::new(capacity), pending: HashMap::new() };
        Self { inner: Mutex::new(inner) }
    }

    /// Bytes in the cache.
    pub fn bytes(&self) -> usize {
        self.inner.lock().cached.weight()
    }

    /// Maximum bytes of the cache.
    pub fn capacity(&self) -> usize {
        self.inner.lock().cached.capacity()
    }

    /// Looks up some pieces of an object. `keep`: pieces that the caller fetches are cached, and
    /// shared with concurrent readers.
    pub(crate) fn find(self: &Arc<Self>, object: Uuid, pieces: &[u64], keep: bool) -> CacheLookup {
        let mut inner = self.inner.lock();
        let keep = keep && inner.cached.capacity() > 0;
        let mut found = CacheLookup {
            cached: Vec::new(),
            pending: Vec::new(),
            missing: MissingPieces {
                cache: keep.then(|| self.clone()),
                object,
                pieces: Vec::new(),
                senders: HashMap::new(),
            },
        };
        for piece in pieces {
            let id = (object, *piece);
            if let Some(CachedValue::Piece(bytes)) = inner.cached.get(&CacheKey::Piece(id)) {
                found.cached.push((*piece, bytes));
                continue;
            }
            if keep {
                if let Some(piece_receiver) = inner.pending.get(&id) {
                    found.pending.push((*piece, piece_receiver.clone()));
                    continue;
                }
                let (sender, receiver) = watch::channel(None);
                inner.pending.insert(id, receiver);
                found.missing.senders.insert(*piece, sender);
            }
            found.missing.pieces.push(*piece);
        }
        drop(inner);
        let shared = found.cached.len() + found.pending.len();
        meters::record_piece_lookup(shared, found.missing.pieces.len());
        found
    }
}

impl MissingPieces {
    /// Offsets of the pieces, in the order of the lookup.
    pub(crate) fn pieces(&self) -> &[u64] {
        &self.pieces
    }

    /// Caches a piece that was fetched and verified, and passes it to waiting readers.
    pub(crate) fn insert_fetched(&mut self, piece: u64, bytes: &[u8]) {
        let (Some(cache), Some(sender)) = (&self.cache, self.senders.remove(&piece)) else {
            return;
        };
        // A separate copy: a slice would keep the whole response in memory.
        let bytes = Bytes::copy_from_slice(bytes);
        let id = (self.object, piece);
        let mut inner = cache.inner.lock();
        inner.pending.remove(&id);
        let weight = bytes.len() + OVERHEAD;
        inner.cached.insert(CacheKey::Piece(id), CachedValue::Piece(bytes.clone()), weight);
        drop(inner);
        sender.send_replace(Some(bytes));
    }
}

impl Drop for MissingPieces {
    fn drop(&mut self) {
        if let (Some(cache), false) = (&self.cache, self.senders.is_empty()) {
            let mut inner = cache.inner.lock();
            for piece in self.senders.keys() {
                inner.pending.remove(&(self.object, *piece));
            }
        }
    }
}

/// Waits for a piece that another reader fetches; `None` when that reader ended without it.
pub(crate) async fn wait_for_piece(mut pending: PendingPiece) -> Option<Bytes> {
    pending.wait_for(Option::is_some).await.ok().and_then(|bytes| bytes.clone())
}

/// Returns whether the pieces that a read fetches are cached. The read needs `planned` bytes of one
/// file; the files of its scan have `scanned` bytes in total.
pub(crate) fn should_cache(planned: u64, scanned: u64, capacity: usize) -> bool {
    let capacity = capacity as u64;
    scanned <= capacity / 2 || planned <= capacity / 32
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: Uuid = Uuid::from_u128(7);

    fn cache(capacity: usize) -> Arc<ObjectCache> {
        Arc::new(ObjectCache::new(capacity))
    }

    fn numbers(found: &[(u64, Bytes)]) -> Vec<u64> {
        found.iter().map(|(piece, _)| *piece).collect()
    }

    #[tokio::test]
    async fn first_reader_fetches_a_piece_and_others_wait() {
        let cache = cache(10_000);
        let mut first = cache.find(OBJECT, &[1, 2], true);
        assert_eq!(first.missing.pieces(), [1, 2]);
        let mut second = cache.find(OBJECT, &[2, 3], true);
        assert_eq!(second.missing.pieces(), [3]);
        let (number, pending) = second.pending.pop().unwrap();
        assert_eq!(number, 2);
        first.missing.insert_fetched(2, b"two");
        assert_eq!(wait_for_piece(pending).await.unwrap(), "two");
        let third = cache.find(OBJECT, &[1, 2], true);
        assert_eq!(numbers(&third.cached), [2]);
        assert_eq!((third.pending.len(), third.missing.pieces().len()), (1, 0));
        // Pieces of another object have other ids.
        assert_eq!(cache.find(Uuid::from_u128(8), &[2], true).missing.pieces(), [2]);
    }

    #[tokio::test]
    async fn dropped_fetch_is_left_to_other_readers() {
        let cache = cache(10_000);
        let first = cache.find(OBJECT, &[1], true);
        let mut second = cache.find(OBJECT, &[1], true);
        drop(first);
        assert_eq!(wait_for_piece(second.pending.pop().unwrap().1).await, None);
        assert_eq!(cache.find(OBJECT, &[1], true).missing.pieces(), [1]);
        assert!(cache.inner.lock().pending.is_empty());
    }

    #[test]
    fn uncached_read_uses_pieces_but_adds_none() {
        let cache = cache(10_000);
        cache.find(OBJECT, &[1], true).missing.insert_fetched(1, b"one");
        let mut found = cache.find(OBJECT, &[1, 2], false);
        assert_eq!((numbers(&found.cached), found.missing.pieces()), (vec![1], &[2][..]));
        found.missing.insert_fetched(2, b"two");
        assert_eq!(cache.find(OBJECT, &[2], false).missing.pieces(), [2]);
        assert_eq!(cache.bytes(), 3 + OVERHEAD);
    }

    #[test]
    fn object_cache_stays_below_its_limit() {
        let cache = cache(1_000);
        for piece in 0..20 {
            cache.find(OBJECT, &[piece], true).missing.insert_fetched(piece, &[0; 100]);
            assert!(cache.bytes() <= 1_000);
        }
        assert_eq!(numbers(&cache.find(OBJECT, &[0, 18, 19], false).cached), [18, 19]);
        let none = super::ObjectCache::new(0);
        Arc::new(none).find(OBJECT, &[1], true).missing.insert_fetched(1, b"x");
    }

    #[test]
    fn large_scans_are_not_cached() {
        // planned, scanned, capacity
        let cases = [
            ((10, 500, 1_000), true),
            ((600, 600, 1_000), false),
            ((31, 90_000, 1_000), true),
            ((32, 90_000, 1_000), false),
            ((0, 1, 0), true),
            ((1, 1, 0), false),
        ];
        for ((planned, scanned, capacity), expected) in cases {
            assert_eq!(should_cache(planned, scanned, capacity), expected, "{planned} {scanned}");
        }
    }
}
