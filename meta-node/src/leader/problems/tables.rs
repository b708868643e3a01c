//! Problems of tables in intermediate states, and of garbage collection.

use std::collections::BTreeSet;
use std::time::Duration;

use tidewater_common::ids::{RegionId, TableId};
use tidewater_common::problem::Problem;
use tidewater_common::quote::cut_at;
use tidewater_proto::v1::{self, LoadPhase, ProblemKind, TableState};

use super::ClusterKnowledge;
use crate::catalog::{MetaState, Procedure, Table, TableChange};
use crate::commands::procedures::{earlier, kind_of};

/// Time in which an operation on a table usually completes.
const OPERATION_LIMIT: Duration = Duration::from_secs(10);
/// Time in which the failure of a step usually passes that waits for the work of another component.
const WAITING_LIMIT: Duration = Duration::from_secs(5 * 60);
/// Maximum length of an error, in characters.
pub(super) const MAX_ERROR: usize = 500;

pub(super) fn problems(known: &ClusterKnowledge<'_>) -> Vec<Problem> {
    let mut problems: Vec<Problem> =
        earlier::tables(known.state).filter_map(|table| unfinished(known, table)).collect();
    let running = known.state.procedures().running();
    problems.extend(running.filter_map(|procedure| unfinished_procedure(known.state, procedure)));
    let garbage = &known.observed.garbage;
    if let Some((age, error)) = &garbage.failing {
        let detail = format!("garbage collection fails: {}", cut_at(error, MAX_ERROR));
        let problem = Problem::new(ProblemKind::GarbageCollectionFailing, detail);
        problems.push(problem.lasting(*age));
    }
    problems.extend(garbage.unreadable.iter().map(|manifest| spared(known, manifest)));
    problems
}

/// An operation on a table: the table, its state, and the number of its last change.
pub(crate) type TableOperation = (TableId, TableState, u64);

/// Returns the operations on tables that earlier releases have begun and that are in progress.
pub(super) fn operations(state: &MetaState) -> BTreeSet<TableOperation> {
    let tables = earlier::tables(state).filter(|table| operation(table).is_some());
    tables.map(|table| (table.id, table.state, table.changes)).collect()
}

/// Returns the past participle of the operation that is in progress on a table.
fn operation(table: &Table) -> Option<&'static str> {
    match (table.state, &table.change) {
        (TableState::Creating, _) => Some("created"),
        (TableState::Dropping, _) => Some("dropped"),
        // The loader is staging files, until its deadline at most.
        (_, Some(TableChange::Load(load))) if load.phase == LoadPhase::Staging => None,
        (_, change) => change.as_ref().map(TableChange::verb),
    }
}

/// Returns the problem of a table on which an operation takes too long.
fn unfinished(known: &ClusterKnowledge<'_>, table: &Table) -> Option<Problem> {
    let name = &table.name;
    let operation = operation(table)?;
    let in_progress = known.operations.get(&(table.id, table.state, table.changes));
    let mut age = in_progress.copied().unwrap_or_default();
    if table.state == TableState::Creating {
        let created_ms = known.state.header().time_ms.saturating_sub(table.created_ms);
        age = age.max(Duration::from_millis(created_ms));
    }
    if age <= OPERATION_LIMIT {
        return None;
    }
    let detail = match known.observed.table_errors.get(&table.id) {
        Some(error) => {
            format!("table {name:?} is being {operation}: {}", cut_at(error, MAX_ERROR))
        }
        None => {
            format!("table {name:?} is being {operation} for {} s", age.as_secs())
        }
    };
    let problem = Problem::new(ProblemKind::TableUnfinished, detail);
    Some(problem.of_table(name).lasting(age))
}

/// Returns the problem of a procedure that takes too long. A step that may last for hours is one only while it fails.
fn unfinished_procedure(state: &MetaState, procedure: &Procedure) -> Option<Problem> {
    let kind = kind_of(procedure.kind);
    let since = |begun_ms| Duration::from_millis(state.header().time_ms.saturating_sub(begun_ms));
    let failing = procedure.failure.as_ref().map(|failure| since(failure.since_ms));
    let (age, limit) = match kind {
        Some(kind) if kind.is_waiting(procedure) => (failing?, WAITING_LIMIT),
        Some(kind) if kind.takes_long(procedure) => (failing?, OPERATION_LIMIT),
        _ => (since(procedure.step_begun_ms), OPERATION_LIMIT),
    };
    if age <= limit {
        return None;
    }
    let (name, id) = (&procedure.table_name, procedure.id);
    let verb = kind.map_or("changed by a later release", |kind| kind.facts().verb);
    let cause = match &procedure.failure {
        Some(failure) => cut_at(&failure.message, MAX_ERROR).into_owned(),
        None => format!("for {} s", age.as_secs()),
    };
    let detail = format!("table {name:?} is being {verb} (procedure {id}): {cause}");
    let problem = Problem::new(ProblemKind::TableUnfinished, detail);
    Some(problem.of_table(name).lasting(age))
}

fn spared(known: &ClusterKnowledge<'_>, manifest: &v1::UnreadableManifest) -> Problem {
    let region = RegionId(manifest.region_id);
    let table = known.state.table(TableId(manifest.table_id)).map(|table| table.name.clone());
    let of = table.as_ref().map(|name| format!(" of table {name:?}")).unwrap_or_default();
    let error = cut_at(&manifest.error, MAX_ERROR);
    let detail = format!("garbage collection has left region {region}{of} alone: {error}");
    let problem = Problem::new(ProblemKind::GarbageSpared, detail).of_region(region);
    match table {
        Some(name) => problem.of_table(name),
        None => problem,
    }
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::{Reason, meta_command::Kind};

    use super::*;
    use crate::commands::procedures::refresh::testing::{
        finish, loaded, merged, start, with_refreshable,
    };
    use crate::commands::procedures::testing::{complete, of, report};
    use crate::commands::testing::{pass, run};

    /// Reports the failure of the step, or that it does not fail any more.
    fn report_failure(state: &mut MetaState, failure: Option<&str>) {
        let failure = failure.map(|message| v1::ProcedureFailure {
            reason: Reason::NotLeader.into(),
            message: message.to_owned(),
            since_ms: 0,
        });
        let advance = v1::AdvanceProcedure { failure, ..report(state, 10) };
        run(state, Kind::AdvanceProcedure(advance)).unwrap();
    }

    fn age(state: &MetaState) -> Option<u64> {
        let problem = unfinished_procedure(state, of(state, 10))?;
        assert!(problem.detail.ends_with("no leader"), "{}", problem.detail);
        problem.age.map(|age| age.as_secs())
    }

    #[test]
    fn waiting_step_is_a_problem_after_failing_for_minutes() {
        let mut state = with_refreshable(0);
        run(&mut state, start(10)).unwrap();
        complete(&mut state, 10);
        pass(&mut state, 1_000);
        report_failure(&mut state, Some("no leader"));
        pass(&mut state, 300);
        assert_eq!(age(&state), None);
        pass(&mut state, 1);
        assert_eq!(age(&state), Some(301));
        report_failure(&mut state, None);
        assert_eq!(age(&state), None);
        // A publication is such a step, too.
        finish(&mut state, 10, &loaded(5)).unwrap();
        complete(&mut state, 10);
        report_failure(&mut state, Some("no leader"));
        pass(&mut state, 301);
        assert_eq!(age(&state), Some(301));
        finish(&mut state, 10, &merged(500)).unwrap();
        assert_eq!(age(&state), None);
    }

    #[test]
    fn merge_is_a_problem_while_it_fails() {
        let mut state = with_refreshable(0);
        run(&mut state, start(10)).unwrap();
        complete(&mut state, 10);
        finish(&mut state, 10, &loaded(5)).unwrap();
        pass(&mut state, 1_000);
        report_failure(&mut state, Some("no leader"));
        assert_eq!(age(&state), None);
        pass(&mut state, 11);
        assert_eq!(age(&state), Some(11));
        report_failure(&mut state, None);
        assert_eq!(age(&state), None);
    }
}
