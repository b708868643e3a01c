//! Replicated time.

use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::Term;
use tidewater_proto::v1;

use super::nodes;
use crate::catalog::{CatalogChange, Header, MetaState, OUTCOME_KEPT_MS, TICK_INTERVAL_MS};

/// Maximum number of request ids, and of compactors, that expire in one tick, so that ticks stay small.
const MAX_EXPIRED_PER_TICK: usize = 1_000;

/// Advances replicated time. Time never decreases, and advances by at most two tick intervals a tick,
/// so that one fast clock cannot expire everything; further only to a time on which several clocks agree,
/// after an outage. `term`: of the entry.
pub(super) fn advance(state: &MetaState, term: Term, command: &v1::AdvanceTime) -> CatalogChange {
    let now = state.header().time_ms;
    let latest = now.saturating_add(2 * TICK_INTERVAL_MS);
    let time_ms = command.now_ms.clamp(now, latest).max(command.agreed_ms);
    let forgotten =
        state.outcomes_before(time_ms.saturating_sub(OUTCOME_KEPT_MS), MAX_EXPIRED_PER_TICK);
    let forgotten_before = time_ms.saturating_sub(OUTCOME_KEPT_MS);
    let procedure_deletes = state.procedures().ended_before(forgotten_before, MAX_EXPIRED_PER_TICK);
    let node_deletes = nodes::expired_compactors(state, time_ms, MAX_EXPIRED_PER_TICK);
    let header = state.header();
    let is_agreed = command.agreed_ms != 0 && header.feature_level >= FeatureLevel::EXACT_EVENTS;
    let agreed_term = if is_agreed { term } else { header.agreed_term };
    let header = Header { time_ms, agreed_term, ..header.clone() };
    CatalogChange {
        header: Some(header),
        node_deletes,
        procedure_deletes,
        forgotten,
        ..CatalogChange::default()
    }
}
