//! Storage of cursors in the meta service.

use tidewater_common::ids::{ClusterId, GroupId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{CursorAdvance, HookCursor};
use tidewater_rpc::{CursorList, MetaLink};

/// Storage of cursors.
pub trait CursorStore: Send + Sync + 'static {
    /// Returns the cursors of all regions of these groups; `None` when they are the cursors of the list of the
    /// same groups with the fingerprint `known`. Their positions may differ: another leader of a group
    /// may have moved them.
    fn list(
        &self,
        groups: &[GroupId],
        known: Option<u64>,
    ) -> impl Future<Output = Result<Option<CursorList>, Refusal>> + Send;

    /// Moves the cursors that are at their expected version and state. Returns the current state of all
    /// cursors that were named and still exist. After an error they may have been moved.
    fn advance(
        &self,
        advances: Vec<CursorAdvance>,
    ) -> impl Future<Output = Result<Vec<HookCursor>, Refusal>> + Send;
}

/// Cursors in the meta service of a cluster.
#[derive(Debug, Clone)]
pub struct MetaCursorStore {
    link: MetaLink,
    cluster: ClusterId,
}

impl MetaCursorStore {
    /// Creates the store of a cluster, which is reached over `link`.
    pub fn new(link: MetaLink, cluster: ClusterId) -> Self {
        Self { link, cluster }
    }
}

impl CursorStore for MetaCursorStore {
    async fn list(
        &self,
        groups: &[GroupId],
        known: Option<u64>,
    ) -> Result<Option<CursorList>, Refusal> {
        self.link.list_cursors(self.cluster, groups, known).await
    }

    async fn advance(&self, advances: Vec<CursorAdvance>) -> Result<Vec<HookCursor>, Refusal> {
        self.link.advance_cursors(self.cluster, advances).await
    }
}
