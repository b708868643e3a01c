//! The catalog as it is sent to watchers: encoded once, whatever their number.
//!
//! - *Feed*: the encoded snapshot of the newest revision that a watcher needed, and the encoded deltas of the
//!   last revisions. Both are made when the first watcher needs them.
//! - *Frame*: one gRPC message in shared pieces.
//!
//! # Layout
//!
//! - `topics`: the kinds of records that a watcher asks for (pure); `frames`: encoding (pure).

mod frames;
mod topics;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tidewater_common::ids::{Incarnation, Revision};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{CatalogDelta, Reason};

use self::frames::EncodedDelta;
pub(crate) use self::frames::{EncodedSnapshot, Frame, current_revision, length_of};
pub(crate) use self::topics::TopicSet;
use crate::catalog::{DELTAS_KEPT, MetaState};
use crate::machine::CatalogView;

/// Maximum memory of encoded deltas, in bytes. Older ones are encoded again for the watchers that need them.
const DELTA_BYTES: usize = 16 * 1024 * 1024;

/// Encoded events of the catalog of one meta node.
#[derive(Debug)]
pub(crate) struct CatalogFeed {
    view: CatalogView,
    snapshot: Mutex<Option<Arc<EncodedSnapshot>>>,
    /// Held while a snapshot is encoded: one at a time, for all that wait for it.
    encoding: tokio::sync::Mutex<()>,
    deltas: Mutex<DeltaCache>,
}

impl CatalogFeed {
    pub(crate) fn new(view: CatalogView) -> Self {
        Self {
            view,
            snapshot: Mutex::default(),
            encoding: tokio::sync::Mutex::default(),
            deltas: Mutex::default(),
        }
    }

    /// Returns a snapshot of the current state or of a later one. Encodes it off the runtime's threads, unless
    /// another caller has done so since the last change.
    ///
    /// # Errors
    /// The node is stopping.
    pub(crate) async fn snapshot(&self) -> Result<Arc<EncodedSnapshot>, Refusal> {
        let state = self.view.read();
        let needed = (state.header().incarnation, state.header().revision);
        let known = || {
            let known = self.snapshot.lock().clone();
            known.filter(|known| (known.incarnation, known.revision) >= needed)
        };
        if let Some(known) = known() {
            return Ok(known);
        }
        let _encoding = self.encoding.lock().await;
        if let Some(known) = known() {
            return Ok(known);
        }
        // The newest state: it serves all that have waited.
        let state = self.view.read();
        let encoded = tokio::task::spawn_blocking(move || Arc::new(EncodedSnapshot::new(&state)));
        let encoded = encoded.await.map_err(|error| {
            Refusal::new(Reason::ShuttingDown, format!("the catalog was not encoded: {error}"))
        })?;
        *self.snapshot.lock() = Some(Arc::clone(&encoded));
        Ok(encoded)
    }

    /// Returns the events of these topics after a revision, at most `limit`, and the revision that they lead
    /// to. `None` when some of them are no longer kept.
    pub(crate) fn deltas_since(
        &self,
        state: &MetaState,
        revision: Revision,
        topics: TopicSet,
        limit: usize,
    ) -> Option<(Frame, Revision)> {
        let stored = state.deltas_since(revision, limit)?;
        let reached = stored.last().map_or(revision, |last| Revision(last.revision));
        let mut cache = self.deltas.lock();
        cache.enter(state.header().incarnation);
        let events = stored.iter().map(|delta| cache.get(delta, state).event(topics));
        Some((events.collect(), reached))
    }
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
