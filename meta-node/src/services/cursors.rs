//! Implementation of the proto service `HookCursors`: positions of durable hooks, for region owners.

use std::collections::BTreeSet;

use tidewater_common::agreed_limits::CURSOR_VERSIONS_PER_MOVE;
use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::quote::quoted;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::hook_cursors_server::{HookCursors, HookCursorsServer};
use tidewater_proto::v1::{self, CursorState, Reason, meta_command::Kind};
use tonic::{Request, Response, Status};

use super::refused_calls::RefusedCalls;
use super::{MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, ReplicaSlot, RunningReplica};
use crate::catalog::MetaState;
use crate::commands::MAX_ADVANCES;

/// Number of cursors after which a page ends, at the end of a region.
const PAGE_SIZE: usize = 5_000;

/// Lists and moves the cursors of durable hooks.
#[derive(Debug, Clone)]
pub(crate) struct CursorService {
    slot: ReplicaSlot,
    refused: RefusedCalls,
}

impl CursorService {
    pub(crate) fn new(slot: ReplicaSlot) -> Self {
        Self { slot, refused: RefusedCalls::new() }
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
        check_distances(&request.advances)?;
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

/// Refuses moves that no delivery makes: the hook would never receive the versions between. A cursor above
/// its manifest that passes is found by the region's owner, which sends the hook a snapshot instead.
///
/// It is no part of the command: replaying a log of an earlier release gives the same cursors.
fn check_distances(advances: &[v1::CursorAdvance]) -> Result<(), Refusal> {
    for advance in advances {
        let follows = [advance.expected_state(), advance.state()] == [CursorState::Tail; 2];
        let limit = advance.expected_version.saturating_add(CURSOR_VERSIONS_PER_MOVE);
        if follows && !advance.done && advance.version > limit {
            return Err(Refusal::new(
                Reason::InvalidArgument,
                format!(
                    "no delivery moves the cursor of hook {} in region {} from version {} to {}",
                    quoted(&advance.hook),
                    advance.region_id,
                    advance.expected_version,
                    advance.version
                ),
            ));
        }
    }
    Ok(())
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
    let regions = regions_of(state, &groups, RegionId(request.from_region_id));
    for (visited, region) in regions.enumerate() {
        // A region may have cursors of removed hooks only.
        if response.cursors.len() >= page_size || visited >= page_size {
            response.next_region_id = Some(region.get());
            break;
        }
        let cursors = state.cursors().in_region(region);
        // Those of a removed hook are yet to be deleted.
        let requested = cursors
            .filter(|cursor| groups.contains(&cursor.group) && state.hook(&cursor.hook).is_some());
        response.cursors.extend(requested.map(|cursor| v1::ListedCursor {
            cursor: Some(cursor.into()),
            dropped: state.table(cursor.table).is_none(),
        }));
    }
    response
}

/// Returns the ids, of `from` or above and ascending, of the regions with cursors of these groups. Takes time
/// for the regions that are taken, not for those of other groups.
fn regions_of(
    state: &MetaState,
    groups: &BTreeSet<GroupId>,
    from: RegionId,
) -> impl Iterator<Item = RegionId> {
    let of_groups = groups.iter().map(|group| state.cursors().regions_of_group(*group, from));
    let mut rest: Vec<_> = of_groups.collect();
    let heads = rest.iter_mut().enumerate();
    let mut heads: BTreeSet<(RegionId, usize)> =
        heads.filter_map(|(at, regions)| Some((regions.next()?, at))).collect();
    let mut merged = std::iter::from_fn(move || {
        let (region, at) = heads.pop_first()?;
        heads.extend(rest.get_mut(at).and_then(Iterator::next).map(|next| (next, at)));
        Some(region)
    });
    // The cursors of one region may be of different groups.
    let mut last = None;
    std::iter::from_fn(move || {
        let next = merged.find(|region| last != Some(*region));
        last = next.or(last);
        next
    })
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
        let from = request.remote_addr();
        let answer = self.advance(request.into_inner()).await;
        let answer =
            answer.inspect_err(|problem| self.refused.record("advance_cursors", problem, from));
        Ok(Response::new(answer?))
    }
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::NodeId;

    use super::*;
    use crate::catalog::{CatalogChange, HookCursor};
    use crate::commands::testing::{
        command, directory, drop_table, durable_hook, raise, run, run_command, table, with_groups,
    };

    /// A state with one table, and with the durable hooks "a" and "b".
    fn with_hooks(groups: u64, regions: u32) -> MetaState {
        let mut state = with_groups(1, groups);
        let table = v1::CreateTableRequest { regions, ..table(1, "t") };
        run(&mut state, Kind::CreateTable(table)).unwrap();
        for (request, name) in [(2, "a"), (3, "b")] {
            run(&mut state, Kind::AddHook(durable_hook(request, name))).unwrap();
        }
        state
    }

    #[test]
    fn page_holds_complete_regions_of_the_requested_groups() {
        let mut state = with_hooks(2, 4);
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
        assert_eq!(shown(&state, &[1], 0), (vec![1, 1, 3, 3], None, false));
        assert_eq!(shown(&state, &[1], 4), (vec![], None, false));
        run(&mut state, drop_table(9, "t")).unwrap();
        assert!(!shown(&state, &[1, 2], 0).2, "its regions are being removed");
        run(&mut state, Kind::FinishDropTable(v1::FinishDropTable { table_id: 1 })).unwrap();
        assert!(shown(&state, &[1, 2], 0).2);
    }

    #[test]
    fn region_with_cursors_of_two_groups_is_listed_once() {
        let mut state = with_hooks(2, 3);
        // Region 1 is served by group 2 now, and its second cursor is not.
        let moved = state.cursors().get(RegionId(1), "a").cloned().unwrap();
        let moved = HookCursor { group: GroupId(2), ..moved };
        let change = CatalogChange { cursors: vec![moved], ..CatalogChange::default() };
        let prepared = state.prepare(change).unwrap();
        state.absorb(prepared);
        let listed = |group_ids: &[u64]| -> Vec<(u64, String)> {
            let group_ids = group_ids.to_vec();
            let request = v1::ListCursorsRequest { group_ids, ..Default::default() };
            let page = page(&state, &request, PAGE_SIZE);
            let cursors = page.cursors.into_iter().flat_map(|listed| listed.cursor);
            cursors.map(|cursor| (cursor.region_id, cursor.hook)).collect()
        };
        let cursors = |expected: &[(u64, &str)]| -> Vec<(u64, String)> {
            expected.iter().map(|(region, hook)| (*region, (*hook).to_owned())).collect()
        };
        let all = [(1, "a"), (1, "b"), (2, "a"), (2, "b"), (3, "a"), (3, "b")];
        assert_eq!(listed(&[1, 2]), cursors(&all));
        assert_eq!(listed(&[1]), cursors(&[(1, "b"), (3, "a"), (3, "b")]));
        assert_eq!(listed(&[2]), cursors(&[(1, "a"), (2, "a"), (2, "b")]));
    }

    #[test]
    fn cursors_of_a_removed_hook_are_not_listed() {
        let mut state = with_hooks(1, 4);
        raise(&mut state, 2, &[(NodeId(101), 0)]);
        let shown = |state: &MetaState, page_size| {
            let request = v1::ListCursorsRequest { group_ids: vec![1], ..Default::default() };
            let page = page(state, &request, page_size);
            (page.cursors.len(), page.next_region_id)
        };
        let mut remove = |request: u64, name: &str| {
            let request =
                v1::RemoveHookRequest { request_id: directory(request), name: name.to_owned() };
            let remove = v1::MetaCommand { rules: 2, ..command(Kind::RemoveHook(request)) };
            run_command(&mut state, remove).unwrap();
            (shown(&state, 100), shown(&state, 3))
        };
        assert_eq!(remove(4, "a"), ((4, None), (3, Some(4))));
        assert_eq!(remove(5, "b"), ((0, None), (0, Some(4))), "a page has few regions");
        assert_eq!(state.cursors().iter().count(), 8);
    }

    #[test]
    fn cursor_moves_as_far_as_one_delivery() {
        use CursorState::{Lagged, Now, Tail};
        let limit = CURSOR_VERSIONS_PER_MOVE;
        let cases = [
            ((1_000, Tail), (1_001, Tail), false, true),
            ((1_000, Tail), (1_000 + limit, Tail), false, true),
            ((1_000, Tail), (1_001 + limit, Tail), false, false),
            ((5, Tail), (1_000_000_000, Tail), false, false),
            ((u64::MAX, Tail), (u64::MAX, Tail), false, true),
            // The position at which a hook starts, and the end of a region, have no limit.
            ((0, Now), (1_000_000, Tail), false, true),
            ((1_000, Lagged), (1_000_000, Tail), false, true),
            ((1_000, Tail), (3, Lagged), false, true),
            ((1_000, Tail), (u64::MAX, Tail), true, true),
        ];
        for (from, to, done, allowed) in cases {
            let advance = v1::CursorAdvance {
                expected_version: from.0,
                expected_state: from.1.into(),
                version: to.0,
                state: to.1.into(),
                done,
                ..v1::CursorAdvance::default()
            };
            let checked = check_distances(&[v1::CursorAdvance::default(), advance]);
            let reason = checked.err().map(|refusal| refusal.reason);
            assert_eq!(reason, (!allowed).then_some(Reason::InvalidArgument), "{from:?} {to:?}");
        }
    }
}
