//! Replicated time.

use tidewater_proto::v1;

use super::nodes;
use crate::catalog::{Change, Header, MetaState, OUTCOME_KEPT_MS, TICK_INTERVAL_MS};

/// Request ids, and compactors, forgotten in one tick: a tick stays small whatever has piled up.
const FORGOTTEN_PER_TICK: usize = 1_000;

/// Time never goes back, and advances by at most two tick intervals a tick, so that one fast clock
/// cannot expire everything.
pub(super) fn advance(state: &MetaState, command: &v1::AdvanceTime) -> Change {
    let now = state.header().time_ms;
    let latest = now.saturating_add(2 * TICK_INTERVAL_MS);
    let time_ms = command.now_ms.clamp(now, latest);
    let forgotten =
        state.outcomes_before(time_ms.saturating_sub(OUTCOME_KEPT_MS), FORGOTTEN_PER_TICK);
    let node_deletes = nodes::long_gone(state, time_ms, FORGOTTEN_PER_TICK);
    let header = Header { time_ms, ..state.header().clone() };
    Change { header: Some(header), node_deletes, forgotten, ..Change::default() }
}
