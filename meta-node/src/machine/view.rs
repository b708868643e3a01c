//! The state as readers see it.

use std::sync::Arc;

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tidewater_common::ids::{Incarnation, Revision};
use tokio::sync::watch;

use crate::catalog::MetaState;

/// A shared look at the state: clones see the same. Readers hold its lock briefly and never across
/// an await.
#[derive(Debug, Clone)]
pub struct CatalogView {
    state: Arc<RwLock<MetaState>>,
    // Incarnation and revision: a restored cluster may show a smaller revision.
    published: Arc<watch::Sender<(Incarnation, Revision)>>,
}

impl CatalogView {
    pub(crate) fn new(state: MetaState) -> Self {
        let at = (state.header().incarnation, state.header().revision);
        Self { state: Arc::new(RwLock::new(state)), published: Arc::new(watch::channel(at).0) }
    }

    /// The state as of now.
    pub fn read(&self) -> RwLockReadGuard<'_, MetaState> {
        self.state.read()
    }

    /// A copy that stays as it is; copies pointers only.
    pub fn frozen(&self) -> Arc<MetaState> {
        Arc::new(self.state.read().clone())
    }

    /// Tells when the revision grows.
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
