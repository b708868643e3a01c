//! Cursors of durable hooks, as the leaders of groups list and move them.
//!
//! The manifests of a stub's regions never change, so that a new cursor moves to its end once.

use std::time::Duration;

use tidewater_common::ids::GroupId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{CursorAdvance, CursorState, ListedCursor};
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
    let mut moved = MovedList::default();
    loop {
        ticks.tick().await;
        let led = node.world.led_by(node.node);
        if !node.has_durable_hooks() || led.is_empty() {
            continue;
        }
        // After an error the list is requested as before, and moves that failed are found again by it.
        if let Ok(next) = list_and_move(node, led, &moved).await {
            moved = next;
        }
    }
}

/// List whose cursors were all moved.
#[derive(Debug, Default)]
struct MovedList {
    groups: Vec<GroupId>,
    fingerprint: Option<u64>,
}

async fn list_and_move(
    node: &NodeCore,
    groups: Vec<GroupId>,
    moved: &MovedList,
) -> Result<MovedList, Refusal> {
    let known = moved.fingerprint.filter(|_| moved.groups == groups);
    let listed = node.link.list_cursors(node.cluster, &groups, known).await?;
    StubCounters::add(&node.world.counters.cursor_lists);
    let Some(list) = listed else { return Ok(MovedList { groups, fingerprint: known }) };
    StubCounters::add(&node.world.counters.changed_cursor_lists);
    let moves: Vec<CursorAdvance> = list.cursors.iter().filter_map(next_move).collect();
    for advances in moves.chunks(MAX_ADVANCES) {
        node.link.advance_cursors(node.cluster, advances.to_vec()).await?;
    }
    Ok(MovedList { groups, fingerprint: list.fingerprint })
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
