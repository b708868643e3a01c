//! What was read of immutable objects, kept in memory within one limit for all regions of a process.
//!
//! An object is kept in *pieces*, named by the offsets at which they begin: the pages of data files.
//! What is decoded again and again is kept decoded, too: see [`values`].
//! Only bytes that were checked are kept. Of several readers who miss a piece at once, the first
//! fetches it and the others wait for it; when the first gives up, by an error or because it is
//! dropped, one of the others goes on. So a fetch must run by itself: not at the pace at which
//! somebody takes rows.
//!
//! A read that is large against the cache looks into it, but leaves nothing behind: it would drive
//! out what point reads need, and be gone itself when it comes again.

pub(crate) mod lru;
pub(crate) mod values;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use bytes::Bytes;
use metrics::counter;
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

use self::lru::Lru;
use self::values::Place;

/// What an entry weighs beside its bytes.
const OVERHEAD: usize = 160;

/// A piece of an object, by the object's id and the offset at which it begins.
type PieceId = (Uuid, u64);

/// What is held is named by an object's id: these never come again, so nothing held is ever stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum HeldId {
    Piece(PieceId),
    Values(Uuid, Place),
}

#[derive(Debug, Clone)]
enum Held {
    Piece(Bytes),
    Values(ArrayRef),
}

type Arrival = watch::Receiver<Option<Bytes>>;

/// See the module's head.
#[derive(Debug)]
pub struct ObjectCache {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    held: Lru<HeldId, Held>,
    /// Pieces that somebody is fetching.
    arriving: HashMap<PieceId, Arrival>,
}

/// Where the pieces of one read are.
#[derive(Debug)]
pub(crate) struct Found {
    /// In memory.
    pub(crate) held: Vec<(u64, Bytes)>,
    /// Being fetched by others.
    pub(crate) arriving: Vec<(u64, Arrival)>,
    /// For the caller to fetch.
    pub(crate) missing: Missing,
}

/// Pieces that the holder has taken upon itself to fetch; others may be waiting for them. Dropped, it
/// leaves those that are still missing to others.
#[derive(Debug)]
#[must_use = "others wait for these pieces"]
pub(crate) struct Missing {
    cache: Option<Arc<ObjectCache>>,
    object: Uuid,
    pieces: Vec<u64>,
    senders: HashMap<u64, watch::Sender<Option<Bytes>>>,
}

impl ObjectCache {
    /// Holds at most `capacity` bytes; 0 holds nothing.
    pub fn new(capacity: usize) -> Self {
        let inner = Inner { held: Lru::new(capacity), arriving: HashMap::new() };
        Self { inner: Mutex::new(inner) }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.inner.lock().held.weight()
    }

    /// Bytes that may be held.
    pub fn capacity(&self) -> usize {
        self.inner.lock().held.capacity()
    }

    /// Looks for some pieces of an object. `keep`: what the caller fetches shall be kept, and shared
    /// with who looks for it meanwhile.
    pub(crate) fn find(self: &Arc<Self>, object: Uuid, pieces: &[u64], keep: bool) -> Found {
        let mut inner = self.inner.lock();
        let keep = keep && inner.held.capacity() > 0;
        let mut found = Found {
            held: Vec::new(),
            arriving: Vec::new(),
            missing: Missing {
                cache: keep.then(|| self.clone()),
                object,
                pieces: Vec::new(),
                senders: HashMap::new(),
            },
        };
        for piece in pieces {
            let id = (object, *piece);
            if let Some(Held::Piece(bytes)) = inner.held.get(&HeldId::Piece(id)) {
                found.held.push((*piece, bytes));
                continue;
            }
            if keep {
                if let Some(arrival) = inner.arriving.get(&id) {
                    found.arriving.push((*piece, arrival.clone()));
                    continue;
                }
                let (sender, receiver) = watch::channel(None);
                inner.arriving.insert(id, receiver);
                found.missing.senders.insert(*piece, sender);
            }
            found.missing.pieces.push(*piece);
        }
        drop(inner);
        let shared = found.held.len() + found.arriving.len();
        counter!("tidewater_object_cache_hits_total").increment(shared as u64);
        counter!("tidewater_object_cache_misses_total")
            .increment(found.missing.pieces.len() as u64);
        found
    }
}

impl Missing {
    /// Their numbers, in the order asked for.
    pub(crate) fn pieces(&self) -> &[u64] {
        &self.pieces
    }

    /// A piece has been fetched and checked.
    pub(crate) fn arrived(&mut self, piece: u64, bytes: &[u8]) {
        let (Some(cache), Some(sender)) = (&self.cache, self.senders.remove(&piece)) else {
            return;
        };
        // A copy of its own: a slice would keep all that came in the same answer.
        let bytes = Bytes::copy_from_slice(bytes);
        let id = (self.object, piece);
        let mut inner = cache.inner.lock();
        inner.arriving.remove(&id);
        let weight = bytes.len() + OVERHEAD;
        inner.held.insert(HeldId::Piece(id), Held::Piece(bytes.clone()), weight);
        drop(inner);
        sender.send_replace(Some(bytes));
    }
}

impl Drop for Missing {
    fn drop(&mut self) {
        if let (Some(cache), false) = (&self.cache, self.senders.is_empty()) {
            let mut inner = cache.inner.lock();
            for piece in self.senders.keys() {
                inner.arriving.remove(&(self.object, *piece));
            }
        }
    }
}

/// Waits for a piece that somebody else fetches; `None` when that one has given up.
pub(crate) async fn arrival(mut arriving: Arrival) -> Option<Bytes> {
    arriving.wait_for(Option::is_some).await.ok().and_then(|bytes| bytes.clone())
}

/// Whether what a read fetches shall be kept, when it reads `planned` bytes of one file, and `scanned`
/// bytes is all that the files of its scan hold.
pub(crate) fn worth_keeping(planned: u64, scanned: u64, capacity: usize) -> bool {
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
    async fn one_fetches_and_the_others_wait() {
        let cache = cache(10_000);
        let mut first = cache.find(OBJECT, &[1, 2], true);
        assert_eq!(first.missing.pieces(), [1, 2]);
        let mut second = cache.find(OBJECT, &[2, 3], true);
        assert_eq!(second.missing.pieces(), [3]);
        let (number, arriving) = second.arriving.pop().unwrap();
        assert_eq!(number, 2);
        first.missing.arrived(2, b"two");
        assert_eq!(arrival(arriving).await.unwrap(), "two");
        let third = cache.find(OBJECT, &[1, 2], true);
        assert_eq!(numbers(&third.held), [2]);
        assert_eq!((third.arriving.len(), third.missing.pieces().len()), (1, 0));
        // Another object's pieces are others.
        assert_eq!(cache.find(Uuid::from_u128(8), &[2], true).missing.pieces(), [2]);
    }

    #[tokio::test]
    async fn who_gives_up_leaves_it_to_others() {
        let cache = cache(10_000);
        let first = cache.find(OBJECT, &[1], true);
        let mut second = cache.find(OBJECT, &[1], true);
        drop(first);
        assert_eq!(arrival(second.arriving.pop().unwrap().1).await, None);
        assert_eq!(cache.find(OBJECT, &[1], true).missing.pieces(), [1]);
        assert!(cache.inner.lock().arriving.is_empty());
    }

    #[test]
    fn a_read_that_keeps_nothing_looks_but_leaves_no_trace() {
        let cache = cache(10_000);
        cache.find(OBJECT, &[1], true).missing.arrived(1, b"one");
        let mut found = cache.find(OBJECT, &[1, 2], false);
        assert_eq!((numbers(&found.held), found.missing.pieces()), (vec![1], &[2][..]));
        found.missing.arrived(2, b"two");
        assert_eq!(cache.find(OBJECT, &[2], false).missing.pieces(), [2]);
        assert_eq!(cache.bytes(), 3 + OVERHEAD);
    }

    #[test]
    fn bytes_stay_below_the_limit() {
        let cache = cache(1_000);
        for piece in 0..20 {
            cache.find(OBJECT, &[piece], true).missing.arrived(piece, &[0; 100]);
            assert!(cache.bytes() <= 1_000);
        }
        assert_eq!(numbers(&cache.find(OBJECT, &[0, 18, 19], false).held), [18, 19]);
        let none = super::ObjectCache::new(0);
        Arc::new(none).find(OBJECT, &[1], true).missing.arrived(1, b"x");
    }

    #[test]
    fn large_scans_are_not_kept() {
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
            assert_eq!(worth_keeping(planned, scanned, capacity), expected, "{planned} {scanned}");
        }
    }
}
