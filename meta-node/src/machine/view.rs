//! Shared view of the state for readers.

use std::sync::Arc;

use parking_lot::RwLock;
use tidewater_common::ids::{Incarnation, Revision};
use tokio::sync::watch;

use crate::catalog::MetaState;

/// Shared view of the state: all clones see the same state. Readers get frozen states, so that a long
/// read delays neither commands nor other readers.
#[derive(Debug, Clone)]
pub struct CatalogView {
    state: Arc<RwLock<Arc<MetaState>>>,
    // Incarnation and revision: after a restore, the revision may be smaller.
    published: Arc<watch::Sender<(Incarnation, Revision)>>,
}

impl CatalogView {
    pub(crate) fn new(state: MetaState) -> Self {
        let at = (state.header().incarnation, state.header().revision);
        Self {
            state: Arc::new(RwLock::new(Arc::new(state))),
            published: Arc::new(watch::channel(at).0),
        }
    }

    /// The current state.
    pub fn read(&self) -> Arc<MetaState> {
        Arc::clone(&self.state.read())
    }

    /// Returns a channel that notifies of new revisions.
    pub fn subscribe(&self) -> watch::Receiver<(Incarnation, Revision)> {
        self.published.subscribe()
    }

    /// Replaces the state that readers get.
    pub(crate) fn publish(&self, state: MetaState) {
        let at = (state.header().incarnation, state.header().revision);
        let state = Arc::new(state);
        // The previous state is dropped without the lock.
        let _previous = std::mem::replace(&mut *self.state.write(), state);
        self.published.send_if_modified(|seen| std::mem::replace(seen, at) != at);
    }
}
