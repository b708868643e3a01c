//! Cursors of durable hooks in the meta service.

use tidewater_common::ids::{ClusterId, GroupId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::hook_cursors_client::HookCursorsClient;
use tidewater_proto::v1::{
    AdvanceCursorsRequest, CursorAdvance, HookCursor, ListCursorsRequest, ListCursorsResponse,
    ListedCursor,
};
use tonic::transport::Channel;

use super::MetaLink;
use crate::attempt::timed;
use crate::connect::MESSAGE_BYTES;

/// Cursors of all regions of some groups.
#[derive(Debug, Clone, PartialEq)]
pub struct CursorList {
    /// The cursors, ordered by region.
    pub cursors: Vec<ListedCursor>,
    /// Fingerprint of the list; `None` from a meta node of an earlier release.
    pub fingerprint: Option<u64>,
}

impl MetaLink {
    /// Returns the cursors of durable hooks in all regions of some groups. `known`: fingerprint of the list of
    /// the same groups that the caller has. Returns `None` when the meta service still has that list; positions
    /// may differ.
    ///
    /// # Errors
    /// As [`MetaLink::heartbeat`].
    pub async fn list_cursors(
        &self,
        cluster: ClusterId,
        groups: &[GroupId],
        known: Option<u64>,
    ) -> Result<Option<CursorList>, Refusal> {
        let mut request = ListCursorsRequest {
            cluster_id: cluster.to_string(),
            group_ids: groups.iter().map(|group| group.get()).collect(),
            from_region_id: 0,
            known_fingerprint: known,
        };
        let first = self.page_of_cursors(&request).await?;
        if known.is_some() && first.unchanged {
            return Ok(None);
        }
        // A list that changes between two pages has another fingerprint than its first page.
        let mut list = CursorList { cursors: first.cursors, fingerprint: first.fingerprint };
        let mut next = first.next_region_id;
        request.known_fingerprint = None;
        while let Some(from) = next.filter(|next| *next > request.from_region_id) {
            request.from_region_id = from;
            let page = self.page_of_cursors(&request).await?;
            list.cursors.extend(page.cursors);
            next = page.next_region_id;
        }
        Ok(Some(list))
    }

    async fn page_of_cursors(
        &self,
        request: &ListCursorsRequest,
    ) -> Result<ListCursorsResponse, Refusal> {
        self.call(|channel, limit| {
            let mut client = client(channel);
            let request = timed(request.clone(), limit);
            async move { client.list_cursors(request).await }
        })
        .await
    }

    /// Moves the cursors that are at their expected version and state. Returns the current state of all
    /// cursors that were named and still exist. After an error they may have been moved; a retry finds that.
    ///
    /// # Errors
    /// As [`MetaLink::heartbeat`].
    pub async fn advance_cursors(
        &self,
        cluster: ClusterId,
        advances: Vec<CursorAdvance>,
    ) -> Result<Vec<HookCursor>, Refusal> {
        let request = AdvanceCursorsRequest { cluster_id: cluster.to_string(), advances };
        let moved = self.call(|channel, limit| {
            let mut client = client(channel);
            let request = timed(request.clone(), limit);
            async move { client.advance_cursors(request).await }
        });
        Ok(moved.await?.cursors)
    }
}

fn client(channel: Channel) -> HookCursorsClient<Channel> {
    HookCursorsClient::new(channel).max_decoding_message_size(MESSAGE_BYTES)
}

#[cfg(test)]
mod tests;
