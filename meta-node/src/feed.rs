//! The catalog as it is sent to watchers: encoded once, whatever their number.
//!
//! - *Feed*: the encoded snapshot of the newest revision that a watcher needed, and the encoded deltas of the
//!   last revisions. Both are made when the first watcher needs them.
//! - *Encoded message*: one gRPC message in shared pieces.
//!
//! # Layout
//!
//! - `topics`: the kinds of records that a watcher asks for (pure); `messages`: encoding (pure).

mod messages;
mod topics;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tidewater_common::ids::{Incarnation, Revision};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{CatalogDelta, Reason};
use tokio::sync::Semaphore;

use self::messages::EncodedDelta;
pub(crate) use self::messages::{
    EncodedMessage, EncodedSnapshot, PIECE_BYTES, current_revision, length_of,
};
pub(crate) use self::topics::TopicSet;
use crate::catalog::{DELTAS_KEPT, MetaState};
use crate::machine::CatalogView;

/// Maximum memory of encoded deltas, in bytes. Older ones are encoded again for the watchers that need them.
const DELTA_BYTES: usize = 16 * 1024 * 1024;

/// Watchers that prepare their events at the same time. A change wakes all watchers: without turns, the tasks of
/// Raft would wait for as long as all of them take.
const MAX_TURNS: usize = 2;

/// Encoded events of the catalog of one meta node.
#[derive(Debug)]
pub(crate) struct CatalogFeed {
    view: CatalogView,
    /// The last encoded snapshot. Locked while a snapshot is encoded: one at a time, for all that wait for it.
    snapshot: Arc<tokio::sync::Mutex<Option<Arc<EncodedSnapshot>>>>,
    deltas: Mutex<DeltaCache>,
    turns: Semaphore,
}

impl CatalogFeed {
    pub(crate) fn new(view: CatalogView) -> Self {
        Self {
            view,
            snapshot: Arc::default(),
            deltas: Mutex::default(),
            turns: Semaphore::new(MAX_TURNS),
        }
    }

    /// Prepares a watcher's events when it is its turn, then lets other tasks run before the next watcher's
    /// turn. No turn is held while events are sent: a slow watcher delays no other.
    ///
    /// # Errors
    /// The node is stopping.
    pub(crate) async fn in_turn<T>(&self, prepare: impl FnOnce() -> T) -> Result<T, Refusal> {
        let _turn =
            self.turns.acquire().await.map_err(|_| stopping("the catalog feed has ended"))?;
        let events = prepare();
        tokio::task::yield_now().await;
        Ok(events)
    }

    /// Returns a snapshot of the current state or of a later one. Encodes it off the runtime's threads, unless
    /// another caller has done so since the last change.
    ///
    /// # Errors
    /// The node is stopping.
    pub(crate) async fn snapshot(&self) -> Result<Arc<EncodedSnapshot>, Refusal> {
        let state = self.view.read();
        let needed = (state.header().incarnation, state.header().revision);
        let mut last = Arc::clone(&self.snapshot).lock_owned().await;
        let known = last.as_ref().filter(|known| (known.incarnation, known.revision) >= needed);
        if let Some(known) = known {
            return Ok(Arc::clone(known));
        }
        // The newest state: it serves all that have waited. If the caller ends before it, the lock is held
        // until the snapshot is encoded, and the next caller finds it.
        let state = self.view.read();
        let encoded = tokio::task::spawn_blocking(move || {
            let encoded = Arc::new(EncodedSnapshot::new(&state));
            *last = Some(Arc::clone(&encoded));
            encoded
        });
        encoded.await.map_err(|error| stopping(&format!("the catalog was not encoded: {error}")))
    }

    /// Returns the events of these topics after a revision, at most `limit`, and the revision that they lead
    /// to. `None` when some of them are no longer kept.
    pub(crate) fn deltas_since(
        &self,
        state: &MetaState,
        revision: Revision,
        topics: TopicSet,
        limit: usize,
    ) -> Option<(EncodedMessage, Revision)> {
        let stored = state.deltas_since(revision, limit)?;
        let reached = stored.last().map_or(revision, |last| Revision(last.revision));
        let mut cache = self.deltas.lock();
        cache.enter(state.header().incarnation);
        let events = stored.iter().map(|delta| cache.get(delta, state).event(topics));
        Some((events.collect(), reached))
    }
}

fn stopping(why: &str) -> Refusal {
    Refusal::new(Reason::ShuttingDown, why)
}

/// Encoded deltas of the last revisions.
#[derive(Debug, Default)]
struct DeltaCache {
    incarnation: Option<Incarnation>,
    deltas: BTreeMap<u64, Arc<EncodedDelta>>,
    bytes: usize,
}

impl DeltaCache {
    /// Forgets the deltas of another incarnation: a restored catalog counts its revisions anew.
    fn enter(&mut self, incarnation: Incarnation) {
        if self.incarnation != Some(incarnation) {
            *self = Self { incarnation: Some(incarnation), ..Self::default() };
        }
    }

    fn get(&mut self, stored: &CatalogDelta, state: &MetaState) -> Arc<EncodedDelta> {
        if let Some(known) = self.deltas.get(&stored.revision) {
            return Arc::clone(known);
        }
        let encoded = Arc::new(EncodedDelta::new(stored, state));
        self.bytes += encoded.bytes();
        self.deltas.insert(stored.revision, Arc::clone(&encoded));
        while self.deltas.len() > DELTAS_KEPT || self.bytes > DELTA_BYTES {
            let Some((_, oldest)) = self.deltas.pop_first() else { break };
            self.bytes -= oldest.bytes();
        }
        encoded
    }
}

#[cfg(test)]
mod tests;
