//! Problems of refreshable tables whose last refreshes have failed.

use tidewater_common::problem::Problem;
use tidewater_common::quote::cut_at;
use tidewater_proto::v1::{ProblemKind, RefreshOutcome, RefreshRun};

use super::tables::MAX_ERROR;
use crate::catalog::{MetaState, Refreshes};

pub(super) fn problems(state: &MetaState) -> Vec<Problem> {
    state.refreshes().filter_map(|refreshes| failing(state, refreshes)).collect()
}

/// Returns the problem of a table whose rows are older than its source. Cancelled refreshes do not count, and refreshes that
/// are paused fail no more.
fn failing(state: &MetaState, refreshes: &Refreshes) -> Option<Problem> {
    let counts = |run: &&RefreshRun| run.outcome() != RefreshOutcome::Cancelled;
    let last = refreshes.history.iter().find(counts)?;
    if last.outcome() != RefreshOutcome::Failed || refreshes.paused {
        return None;
    }
    let name = &state.table(refreshes.table)?.name;
    let error = last.error.as_str();
    let times = match refreshes.failures {
        0 | 1 => "has failed".to_owned(),
        times => format!("has failed {times} times in a row"),
    };
    let error = cut_at(error, MAX_ERROR);
    let detail = format!("the refresh of table {name:?} {times}: {error}");
    Some(Problem::new(ProblemKind::RefreshFailing, detail).of_table(name))
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::{self, AbandonCause, Reason, meta_command::Kind};

    use super::*;
    use crate::commands::procedures::refresh::testing::{
        carry_out, fail, start, start_by_itself, with_refreshable,
    };
    use crate::commands::procedures::testing::{abandon, complete};
    use crate::commands::testing::run;

    fn pause(state: &mut MetaState, paused: bool) {
        let request =
            v1::AlterRefreshRequest { table: "r".into(), paused: Some(paused), settings: None };
        run(state, Kind::AlterRefresh(request)).unwrap();
    }

    #[test]
    fn failing_refreshes_are_a_problem_until_one_succeeds() {
        let mut state = with_refreshable(60_000);
        assert_eq!(problems(&state), []);
        for (number, words) in
            [(10, "has failed: no source"), (11, "has failed 2 times in a row: ")]
        {
            run(&mut state, start_by_itself(number)).unwrap();
            fail(&mut state, number, Reason::SourceUnreadable);
            let found = problems(&state);
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].kind, ProblemKind::RefreshFailing);
            assert_eq!(found[0].subject.table.as_deref(), Some("r"));
            assert!(found[0].detail.contains(words), "{}", found[0].detail);
        }
        pause(&mut state, true);
        assert_eq!(problems(&state), []);
        pause(&mut state, false);
        assert_eq!(problems(&state).len(), 1);
        run(&mut state, start(12)).unwrap();
        assert_eq!(problems(&state).len(), 1, "its rows are still old");
        carry_out(&mut state, 12, 1_000, 500);
        assert_eq!(problems(&state), []);
    }

    #[test]
    fn cancelled_refresh_does_not_end_the_problem() {
        let mut state = with_refreshable(60_000);
        run(&mut state, start_by_itself(10)).unwrap();
        fail(&mut state, 10, Reason::SourceUnreadable);
        run(&mut state, start(11)).unwrap();
        let cancel = abandon(&state, 11, AbandonCause::Operator);
        run(&mut state, cancel).unwrap();
        complete(&mut state, 11);
        let found = problems(&state);
        assert_eq!(found.len(), 1);
        assert!(found[0].detail.ends_with("has failed: no source"), "{}", found[0].detail);
    }
}
