//! Shared view of the state for readers.

use std::sync::Arc;

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tidewater_common::ids::{Incarnation, Revision};
use tokio::sync::watch;

use crate::catalog::MetaState;

/// Shared view of the state: all clones see the same state. Readers hold its lock briefly and never
/// across an await.
#[derive(Debug, Clone)]
pub struct CatalogView {
    state: Arc<RwLock<MetaState>>,
    // Incarnation and revision: after a restore, the revision may be smaller.
    published: Arc<watch::Sender<(Incarnation, Revision)>>,
}

impl CatalogView {
    pub(crate) fn new(state: MetaState) -> Self {
        let at = (state.header().incarnation, state.header().revision);
        Self { state: Arc::new(RwLock::new(state)), published: Arc::new(watch::channel(at).0) }
    }

    /// The current state, locked for reading.
    pub fn read(&self) -> RwLockReadGuard<'_, MetaState> {
        self.state.read()
    }

    /// Returns an immutable copy; copies pointers only.
    pub fn frozen(&self) -> Arc<MetaState> {
        Arc::new(self.state.read().clone())
    }

    /// Returns a channel that notifies of new revisions.
    pub fn subscribe(&self) -> watch::Receiver<(Incarnation, Revision)> {
        self.published.subscribe()
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, MetaState> {
        self.state.write()
    }

    pub(super) fn publish(&self) {
        let at = {
            let state = self.state.read();
            (state.header().incarnation, state.header().revision)
        };
        self.published.send_if_modified(|seen| std::mem::replace(seen, at) != at);
    }
}
