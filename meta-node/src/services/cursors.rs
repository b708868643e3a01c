//! Implementation of the proto service `HookCursors`: positions of durable hooks, for region owners.

use std::collections::BTreeSet;
use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::agreed_limits::CURSOR_VERSIONS_PER_MOVE;
use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::quote::quoted;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::hook_cursors_server::{HookCursors, HookCursorsServer};
use tidewater_proto::v1::{self, CursorState, Reason, meta_command::Kind};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tonic::{Request, Response, Status};
use twox_hash::XxHash64;

use super::refused_calls::RefusedCalls;
use super::{MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, ReplicaSlot, RunningReplica};
use crate::catalog::MetaState;
use crate::commands::MAX_ADVANCES;

/// Number of cursors after which a page ends, at the end of a region.
const PAGE_SIZE: usize = 5_000;

/// Moves that are proposed at the same time. A new hook on all tables makes every region's owner move its cursors
/// at once: other commands wait for the few before them, not for all.
const MOVES_AT_ONCE: usize = 4;
/// Longest wait of a call for its turn: below the first attempt of a caller, who learns that nothing was changed.
const TURN_WITHIN: Duration = Duration::from_millis(800);

/// Lists and moves the cursors of durable hooks.
#[derive(Debug, Clone)]
pub(crate) struct CursorService {
    slot: ReplicaSlot,
    refused: RefusedCalls,
    move_turns: Arc<Semaphore>,
}

impl CursorService {
    pub(crate) fn new(slot: ReplicaSlot) -> Self {
        Self {
            slot,
            refused: RefusedCalls::new(),
            move_turns: Arc::new(Semaphore::new(MOVES_AT_ONCE)),
        }
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
        let _turn = move_turn(&self.move_turns).await?;
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

/// Waits until few other moves are being proposed.
async fn move_turn(turns: &Semaphore) -> Result<SemaphorePermit<'_>, Refusal> {
    match timeout(TURN_WITHIN, turns.acquire()).await {
        Ok(Ok(turn)) => Ok(turn),
        _ => Err(Refusal::new(
            Reason::Overloaded,
            "the moves of cursors of other nodes take too long; nothing was changed",
        )
        .retry_after(Duration::from_millis(500))),
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
    let fingerprint = fingerprint(state, &groups);
    let unchanged = request.known_fingerprint == Some(fingerprint);
    let mut response = v1::ListCursorsResponse {
        fingerprint: Some(fingerprint),
        unchanged,
        ..v1::ListCursorsResponse::default()
    };
    if unchanged {
        return response;
    }
    let regions = regions_of(state, &groups, RegionId(request.from_region_id));
    for (visited, region) in regions.enumerate() {
        // A region may have cursors of removed hooks only.
        if response.cursors.len() >= page_size || visited >= page_size {
            response.next_region_id = Some(region.get());
            break;
        }
        let cursors = state.cursors().in_region(region);
        let requested = cursors
            .filter(|cursor| groups.contains(&cursor.group) && is_listed(state, &cursor.hook));
        response.cursors.extend(requested.map(|cursor| v1::ListedCursor {
            cursor: Some(cursor.into()),
            dropped: state.table(cursor.table).is_none(),
        }));
    }
    response
}

/// Returns whether the cursors of a hook are listed. Those of a removed hook are yet to be deleted. Those of a hook
/// are listed when its addition has ended: before, each step of the addition would change the lists of all owners.
fn is_listed(state: &MetaState, hook: &str) -> bool {
    state.hook(hook).is_some() && state.hook_procedure(hook).is_none()
}

/// Fingerprint of everything that a list of these groups shows, apart from positions.
fn fingerprint(state: &MetaState, groups: &BTreeSet<GroupId>) -> u64 {
    let mut hasher = XxHash64::with_seed(state.cursors().fingerprint(groups));
    let tables = groups.iter().flat_map(|group| state.cursors().tables_of_group(*group));
    for dropped in tables.filter(|table| state.table(*table).is_none()) {
        hasher.write(&dropped.get().to_le_bytes());
    }
    for hook in state.hooks().filter(|hook| hook.durable && is_listed(state, &hook.name)) {
        hasher.write(&hook.generation.get().to_le_bytes());
    }
    hasher.finish()
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
mod tests;
