//! Storage of cursors in the meta service.

use tidewater_common::ids::{ClusterId, GroupId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{
    AdvanceCursorsRequest, CursorAdvance, HookCursor, ListCursorsRequest, ListedCursor,
};
use tidewater_rpc::MetaLink;

/// Storage of cursors.
pub trait CursorStore: Send + Sync + 'static {
    /// Returns the cursors of all regions of these groups.
    fn list(
        &self,
        groups: &[GroupId],
    ) -> impl Future<Output = Result<Vec<ListedCursor>, Refusal>> + Send;

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
    async fn list(&self, groups: &[GroupId]) -> Result<Vec<ListedCursor>, Refusal> {
        let mut request = ListCursorsRequest {
            cluster_id: self.cluster.to_string(),
            group_ids: groups.iter().map(|group| group.get()).collect(),
            from_region_id: 0,
        };
        let mut cursors = Vec::new();
        loop {
            let page = self.link.list_cursors(&request).await?;
            cursors.extend(page.cursors);
            match page.next_region_id {
                Some(next) if next > request.from_region_id => request.from_region_id = next,
                _ => return Ok(cursors),
            }
        }
    }

    async fn advance(&self, advances: Vec<CursorAdvance>) -> Result<Vec<HookCursor>, Refusal> {
        let request = AdvanceCursorsRequest { cluster_id: self.cluster.to_string(), advances };
        Ok(self.link.advance_cursors(&request).await?.cursors)
    }
}
