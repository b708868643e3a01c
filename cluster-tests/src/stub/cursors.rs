//! Cursors of durable hooks, as the leaders of groups list and move them.
//!
//! The manifests of a stub's regions never change, so that a new cursor moves to its end once.

use std::time::Duration;

use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{
    AdvanceCursorsRequest, CursorAdvance, CursorState, ListCursorsRequest, ListedCursor,
};
use tokio::time::{MissedTickBehavior, interval};

use super::counters::StubCounters;
use super::node_core::NodeCore;

/// Interval of lists, as of a data node without changes of its groups.
const LIST_INTERVAL: Duration = Duration::from_secs(2);
/// Most moves in one call.
const MAX_ADVANCES: usize = 1_000;

/// Lists and moves the cursors of the groups that a node leads, while there are durable hooks.
pub(super) async fn follow(node: &NodeCore) {
    let mut ticks = interval(LIST_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !node.has_durable_hooks() {
            continue;
        }
        if let Ok(listed) = list(node).await {
            // A move that fails is found again by the next list.
            let _ = advance(node, &listed).await;
        }
    }
}

async fn list(node: &NodeCore) -> Result<Vec<ListedCursor>, Refusal> {
    let led = node.world.led_by(node.node);
    let mut cursors = Vec::new();
    if led.is_empty() {
        return Ok(cursors);
    }
    let mut request = ListCursorsRequest {
        cluster_id: node.cluster.to_string(),
        group_ids: led.iter().map(|group| group.get()).collect(),
        from_region_id: 0,
    };
    loop {
        let page = node.link.list_cursors(&request).await?;
        StubCounters::add(&node.world.counters.cursor_pages);
        cursors.extend(page.cursors);
        match page.next_region_id {
            Some(next) if next > request.from_region_id => request.from_region_id = next,
            _ => return Ok(cursors),
        }
    }
}

async fn advance(node: &NodeCore, listed: &[ListedCursor]) -> Result<(), Refusal> {
    let moves: Vec<CursorAdvance> = listed.iter().filter_map(next_move).collect();
    for advances in moves.chunks(MAX_ADVANCES) {
        let request = AdvanceCursorsRequest {
            cluster_id: node.cluster.to_string(),
            advances: advances.to_vec(),
        };
        node.link.advance_cursors(&request).await?;
    }
    Ok(())
}

/// Returns the move of a cursor: to the end of an unchanged manifest, or its deletion with the region.
fn next_move(listed: &ListedCursor) -> Option<CursorAdvance> {
    let cursor = listed.cursor.as_ref()?;
    let is_moved = cursor.state() == CursorState::Tail;
    if is_moved && !listed.dropped {
        return None;
    }
    Some(CursorAdvance {
        hook: cursor.hook.clone(),
        generation: cursor.generation,
        region_id: cursor.region_id,
        expected_version: cursor.version,
        expected_state: cursor.state,
        version: cursor.version.max(1),
        state: CursorState::Tail.into(),
        done: listed.dropped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidewater_proto::v1::HookCursor;

    #[test]
    fn cursors_move_to_the_end_once() {
        let cursor = |state: CursorState, dropped| ListedCursor {
            cursor: Some(HookCursor { version: 3, state: state.into(), ..HookCursor::default() }),
            dropped,
        };
        assert_eq!(next_move(&cursor(CursorState::Tail, false)), None);
        let moved = next_move(&cursor(CursorState::Now, false)).unwrap();
        assert_eq!((moved.expected_state(), moved.state()), (CursorState::Now, CursorState::Tail));
        assert!(!moved.done && moved.version == 3);
        assert!(next_move(&cursor(CursorState::Tail, true)).unwrap().done);
    }
}
