//! Work of the refresh manager that is due (pure).

use std::collections::BTreeSet;
use std::sync::Arc;

use tidewater_proto::v1::Reason;
use uuid::Uuid;

use crate::catalog::{MetaState, Procedure, Refreshes};
use crate::commands::procedures::refresh::{is_refresh, is_refresh_at, running_of, steps};

/// Maximum number of refreshes that begin by themselves in one check.
const MAX_BEGUN: usize = 16;

/// Work of this term for a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// Has the source loaded.
    Load,
    /// Publishes the merged rows.
    Publish,
    /// Takes the refresh back: its load was begun before, and the files that it has staged are unknown.
    TakeBack,
    /// Takes the refresh back: its merge cannot succeed.
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
        steps::LOAD if begun.contains(&procedure.id) => Some(Work::TakeBack),
        steps::LOAD => Some(Work::Load),
        steps::PUBLISH => Some(Work::Publish),
        steps::MERGE if cannot_succeed(procedure) => Some(Work::Fail),
        _ => None,
    };
    let running = state.procedures().running();
    running.filter_map(|procedure| Some((Arc::clone(procedure), work(procedure)?))).collect()
}

/// Returns whether the merge fails whenever it is tried: the staged rows are wrong.
fn cannot_succeed(procedure: &Procedure) -> bool {
    let reason = procedure.failure.as_ref().map(|failure| failure.reason);
    reason == Some(Reason::SourceMismatch.into())
}

/// Returns the refreshes that are due by themselves, those that have waited longest first.
pub(super) fn due_refreshes(state: &MetaState) -> Vec<Arc<Refreshes>> {
    let now_ms = state.header().time_ms;
    let is_due = |refreshes: &&Arc<Refreshes>| {
        !refreshes.paused
            && refreshes.next_ms.is_some_and(|next_ms| next_ms <= now_ms)
            && running_of(state, refreshes.table).is_none()
    };
    let mut due: Vec<_> = state.refreshes().filter(is_due).cloned().collect();
    due.sort_by_key(|refreshes| (refreshes.next_ms, refreshes.table));
    due.truncate(MAX_BEGUN);
    due
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::TableId;
    use tidewater_proto::v1::meta_command::Kind;
    use tidewater_proto::v1::{self, AbandonCause};

    use super::*;
    use crate::commands::procedures::testing::{abandon, begin, complete, of, report, with_tables};
    use crate::commands::testing::{directory, pass, run, table};

    /// A state with the refreshable table of id 3, and this interval of its refreshes.
    fn with_refreshable(interval_ms: u64) -> MetaState {
        let mut state = with_tables();
        let settings = v1::RefreshSettings { interval_ms, ..v1::RefreshSettings::default() };
        let refresh =
            v1::RefreshDefinition { settings: Some(settings), ..v1::RefreshDefinition::default() };
        let request = v1::CreateTableRequest { refresh: Some(refresh), ..table(5, "r") };
        run(&mut state, begin(v1::ProcedureKind::Create, 5, &request)).unwrap();
        complete(&mut state, 5);
        state
    }

    fn start(state: &mut MetaState, number: u64) {
        let request = v1::RefreshRequest {
            request_id: directory(number),
            table_id: 3,
            ..v1::RefreshRequest::default()
        };
        run(state, begin(v1::ProcedureKind::Refresh, number, &request)).unwrap();
    }

    fn works(state: &MetaState, begun: &BTreeSet<Uuid>) -> Vec<Work> {
        due_work(state, begun).into_iter().map(|(_, work)| work).collect()
    }

    #[test]
    fn load_is_begun_once_and_taken_back_otherwise() {
        let mut state = with_refreshable(0);
        start(&mut state, 10);
        let none = BTreeSet::new();
        assert_eq!(works(&state, &none), []);
        complete(&mut state, 10);
        assert_eq!(works(&state, &none), [Work::Load]);
        let begun = loading(&state);
        assert_eq!(begun, BTreeSet::from([of(&state, 10).id]));
        assert_eq!(works(&state, &begun), [Work::TakeBack]);
        let back = abandon(&state, 10, AbandonCause::Failed);
        run(&mut state, back).unwrap();
        assert_eq!(works(&state, &begun), []);
    }

    #[test]
    fn merge_of_wrong_rows_fails_its_refresh() {
        let mut state = with_refreshable(0);
        start(&mut state, 10);
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
        start(&mut state, 10);
        assert_eq!(due(&state), []);
        let on_request = with_refreshable(0);
        assert_eq!(due(&on_request), []);
    }
}
