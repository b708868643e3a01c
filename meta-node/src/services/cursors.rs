//! Implementation of the proto service `HookCursors`: positions of durable hooks, for region owners.

use std::collections::BTreeSet;

use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::hook_cursors_server::{HookCursors, HookCursorsServer};
use tidewater_proto::v1::{self, Reason, meta_command::Kind};
use tonic::{Request, Response, Status};

use super::{MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, ReplicaSlot, RunningReplica};
use crate::catalog::MetaState;
use crate::commands::MAX_ADVANCES;

/// Number of cursors after which a page ends, at the end of a region.
const PAGE_SIZE: usize = 5_000;

/// Lists and moves the cursors of durable hooks.
#[derive(Debug, Clone)]
pub(crate) struct CursorService {
    slot: ReplicaSlot,
}

impl CursorService {
    pub(crate) fn new(slot: ReplicaSlot) -> Self {
        Self { slot }
    }

    pub(crate) fn into_server(self) -> HookCursorsServer<Self> {
        HookCursorsServer::new(self)
            .max_decoding_message_size(MAX_REQUEST_BYTES)
            .max_encoding_message_size(MAX_RESPONSE_BYTES)
    }

    fn running(&self, cluster_id: &str) -> Result<RunningReplica, Refusal> {
        let running = self.slot.get()?;
        running.group.check_leading()?;
        let ours = running.group.cluster_id.to_string();
        if cluster_id != ours {
            return Err(Refusal::new(
                Reason::WrongCluster,
                format!("the caller belongs to cluster {cluster_id:?}, this is {ours}"),
            ));
        }
        Ok(running)
    }

    async fn list(
        &self,
        request: v1::ListCursorsRequest,
    ) -> Result<v1::ListCursorsResponse, Refusal> {
        let running = self.running(&request.cluster_id)?;
        // A stale cursor would make the hook receive versions again.
        running.group.linearize().await?;
        let state = running.group.view.read();
        Ok(page(&state, &request, PAGE_SIZE))
    }

    async fn advance(
        &self,
        request: v1::AdvanceCursorsRequest,
    ) -> Result<v1::AdvanceCursorsResponse, Refusal> {
        let running = self.running(&request.cluster_id)?;
        let count = request.advances.len();
        if count > MAX_ADVANCES {
            return Err(Refusal::new(
                Reason::InvalidArgument,
                format!("{count} cursors in one request are too many (maximum {MAX_ADVANCES})"),
            ));
        }
        let advances = request.advances.clone();
        running.group.propose(Kind::AdvanceCursors(v1::AdvanceCursors { advances })).await?;
        let state = running.group.view.read();
        let named = request.advances.iter().filter_map(|advance| {
            let cursor = state.cursors().get(RegionId(advance.region_id), &advance.hook)?;
            (cursor.generation.get() == advance.generation).then(|| cursor.into())
        });
        Ok(v1::AdvanceCursorsResponse { cursors: named.collect() })
    }
}

/// Returns the cursors of complete regions, from the requested region on, until the page has at least
/// `page_size` cursors.
fn page(
    state: &MetaState,
    request: &v1::ListCursorsRequest,
    page_size: usize,
) -> v1::ListCursorsResponse {
    let groups: BTreeSet<GroupId> = request.group_ids.iter().copied().map(GroupId).collect();
    let mut response = v1::ListCursorsResponse::default();
    for (region, cursors) in state.cursors().regions_from(RegionId(request.from_region_id)) {
        if response.cursors.len() >= page_size {
            response.next_region_id = Some(region.get());
            break;
        }
        let requested = cursors.filter(|cursor| groups.contains(&cursor.group));
        response.cursors.extend(requested.map(|cursor| v1::ListedCursor {
            cursor: Some(cursor.into()),
            dropped: state.table(cursor.table).is_none(),
        }));
    }
    response
}

#[tonic::async_trait]
impl HookCursors for CursorService {
    async fn list_cursors(
        &self,
        request: Request<v1::ListCursorsRequest>,
    ) -> Result<Response<v1::ListCursorsResponse>, Status> {
        Ok(Response::new(self.list(request.into_inner()).await?))
    }

    async fn advance_cursors(
        &self,
        request: Request<v1::AdvanceCursorsRequest>,
    ) -> Result<Response<v1::AdvanceCursorsResponse>, Status> {
        Ok(Response::new(self.advance(request.into_inner()).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::{directory, drop_table, run, table, with_groups};

    #[test]
    fn page_holds_complete_regions_of_the_requested_groups() {
        let mut state = with_groups(1, 2);
        let four = v1::CreateTableRequest { regions: 4, ..table(1, "t") };
        run(&mut state, Kind::CreateTable(four)).unwrap();
        for (request, name) in [(2, "a"), (3, "b")] {
            let hook = v1::AddHookRequest {
                request_id: directory(request),
                name: name.into(),
                kind: "jsonl".into(),
                config: "{}".into(),
                durable: true,
                ..v1::AddHookRequest::default()
            };
            run(&mut state, Kind::AddHook(hook)).unwrap();
        }
        let shown = |state: &MetaState, group_ids: &[u64], from_region_id| {
            let group_ids = group_ids.to_vec();
            let request =
                v1::ListCursorsRequest { group_ids, from_region_id, ..Default::default() };
            let page = page(state, &request, 3);
            let cursors = page.cursors.iter().flat_map(|listed| &listed.cursor);
            let regions: Vec<u64> = cursors.map(|cursor| cursor.region_id).collect();
            (regions, page.next_region_id, page.cursors.iter().any(|listed| listed.dropped))
        };
        assert_eq!(shown(&state, &[1, 2], 0), (vec![1, 1, 2, 2], Some(3), false));
        assert_eq!(shown(&state, &[1, 2], 3), (vec![3, 3, 4, 4], None, false));
        assert_eq!(shown(&state, &[1], 0), (vec![1, 1, 3, 3], Some(4), false));
        assert_eq!(shown(&state, &[1], 4), (vec![], None, false));
        run(&mut state, drop_table(9, "t")).unwrap();
        assert!(!shown(&state, &[1, 2], 0).2, "its regions are being removed");
        run(&mut state, Kind::FinishDropTable(v1::FinishDropTable { table_id: 1 })).unwrap();
        assert!(shown(&state, &[1, 2], 0).2);
    }
}
