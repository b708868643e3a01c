//! Work of the refresh manager that is due (pure).

use std::collections::BTreeSet;
use std::sync::Arc;

use tidewater_common::ids::TableId;
use tidewater_proto::v1::{LockMode, Reason, TableState};
use uuid::Uuid;

use crate::catalog::{MetaState, Procedure, Refreshes, TableLock, lock_conflict};
use crate::commands::procedures::kind_of;
use crate::commands::procedures::refresh::{is_refresh, is_refresh_at, steps};

/// Maximum number of refreshes that begin by themselves in one check.
const MAX_BEGUN: usize = 16;

/// Work of this term for a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// Has the source loaded.
    Load,
    /// Publishes the merged rows.
    Publish,
    /// Abandons the refresh: its load was begun before, and the files that it has staged are unknown.
    Abandon,
    /// Abandons the refresh: its merge cannot succeed.
    Fail,
}

/// Returns whether a procedure is still at its step.
pub(super) fn is_at(state: &MetaState, procedure: &Procedure) -> bool {
    let current = state.procedures().get(procedure.id);
    current.is_some_and(|current| {
        current.is_running() && (current.step, current.state) == (procedure.step, procedure.state)
    })
}

/// Returns the refreshes whose sources are being loaded.
pub(super) fn loading(state: &MetaState) -> BTreeSet<Uuid> {
    let loading =
        state.procedures().running().filter(|procedure| is_refresh_at(procedure, steps::LOAD));
    loading.map(|procedure| procedure.id).collect()
}

/// Returns the refreshes in progress that need this manager, with its work.
pub(super) fn due_work(state: &MetaState, begun: &BTreeSet<Uuid>) -> Vec<(Arc<Procedure>, Work)> {
    let work = |procedure: &Procedure| match procedure.step {
        _ if !is_refresh(procedure) => None,
        steps::LOAD if !is_refresh_at(procedure, steps::LOAD) => None,
        steps::LOAD if begun.contains(&procedure.id) => Some(Work::Abandon),
        steps::LOAD => Some(Work::Load),
        steps::PUBLISH => Some(Work::Publish),
        steps::MERGE if cannot_succeed(procedure) => Some(Work::Fail),
        _ => None,
    };
    let running = state.procedures().running();
    running.filter_map(|procedure| Some((Arc::clone(procedure), work(procedure)?))).collect()
}

/// Returns whether the merge fails whenever it is attempted.
fn cannot_succeed(procedure: &Procedure) -> bool {
    let reason = procedure.failure.as_ref().and_then(|of| Reason::try_from(of.reason).ok());
    let kind = kind_of(procedure.kind);
    reason.is_some_and(|reason| kind.is_some_and(|kind| kind.cannot_succeed(procedure, reason)))
}

/// Returns whether a refresh would get its lock. Tables that wait for other changes keep no others from their turn.
fn can_begin(state: &MetaState, table: TableId) -> bool {
    let lock = TableLock { table, mode: LockMode::Exclusive };
    let is_active = state.table(table).is_some_and(|table| table.state == TableState::Active);
    is_active && lock_conflict(state, &[lock], &[]).is_none()
}

/// Returns the refreshes that are due by themselves, those that have waited longest first.
pub(super) fn due_refreshes(state: &MetaState) -> Vec<Arc<Refreshes>> {
    let now_ms = state.header().time_ms;
    let is_due = |refreshes: &&Arc<Refreshes>| {
        !refreshes.paused
            && refreshes.next_ms.is_some_and(|next_ms| next_ms <= now_ms)
            && can_begin(state, refreshes.table)
    };
    let mut due: Vec<_> = state.refreshes().filter(is_due).cloned().collect();
    due.sort_by_key(|refreshes| (refreshes.next_ms, refreshes.table));
    due.truncate(MAX_BEGUN);
    due
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::meta_command::Kind;
    use tidewater_proto::v1::{self, AbandonCause};

    use super::*;
    use crate::commands::procedures::refresh::testing::{start, with_refreshable};
    use crate::commands::procedures::testing::{abandon, complete, of, report};
    use crate::commands::testing::{pass, run};

    fn works(state: &MetaState, begun: &BTreeSet<Uuid>) -> Vec<Work> {
        due_work(state, begun).into_iter().map(|(_, work)| work).collect()
    }

    #[test]
    fn load_is_begun_once_and_abandoned_otherwise() {
        let mut state = with_refreshable(0);
        run(&mut state, start(10)).unwrap();
        let none = BTreeSet::new();
        assert_eq!(works(&state, &none), []);
        complete(&mut state, 10);
        assert_eq!(works(&state, &none), [Work::Load]);
        let begun = loading(&state);
        assert_eq!(begun, BTreeSet::from([of(&state, 10).id]));
        assert_eq!(works(&state, &begun), [Work::Abandon]);
        let back = abandon(&state, 10, AbandonCause::Failed);
        run(&mut state, back).unwrap();
        assert_eq!(works(&state, &begun), []);
    }

    #[test]
    fn merge_of_wrong_rows_fails_its_refresh() {
        let mut state = with_refreshable(0);
        run(&mut state, start(10)).unwrap();
        complete(&mut state, 10);
        complete(&mut state, 10);
        assert!(is_refresh_at(of(&state, 10), steps::MERGE));
        for (reason, expected) in
            [(Reason::NotLeader, vec![]), (Reason::SourceMismatch, vec![Work::Fail])]
        {
            let failure = v1::ProcedureFailure { reason: reason.into(), ..Default::default() };
            let failed = v1::AdvanceProcedure { failure: Some(failure), ..report(&state, 10) };
            run(&mut state, Kind::AdvanceProcedure(failed)).unwrap();
            assert_eq!(works(&state, &BTreeSet::new()), expected, "{reason:?}");
        }
        complete(&mut state, 10);
        assert_eq!(works(&state, &BTreeSet::new()), [Work::Publish]);
    }

    #[test]
    fn refresh_is_due_by_itself_at_its_interval() {
        let mut state = with_refreshable(60_000);
        let due = |state: &MetaState| -> Vec<TableId> {
            due_refreshes(state).iter().map(|refreshes| refreshes.table).collect()
        };
        pass(&mut state, 1);
        assert_eq!(due(&state), [TableId(3)], "the first one is due at once");
        run(&mut state, start(10)).unwrap();
        assert_eq!(due(&state), []);
        let on_request = with_refreshable(0);
        assert_eq!(due(&on_request), []);
    }
}
