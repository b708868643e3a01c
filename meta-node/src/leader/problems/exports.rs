//! Problems of exports whose steps fail.

use std::collections::BTreeMap;
use std::time::Duration;

use tidewater_common::ids::TableId;
use tidewater_common::problem::Problem;
use tidewater_common::quote::cut_at;
use tidewater_proto::v1::ProblemKind;
use uuid::Uuid;

use super::tables::MAX_ERROR;
use crate::catalog::{Export, MetaState};

/// Time in which the failure of a step often passes: a data node or the store of the target is started again.
const FAILING_LIMIT: Duration = Duration::from_secs(30);

/// Export whose step fails.
struct FailingExport<'a> {
    export: &'a Export,
    age: Duration,
    error: &'a str,
}

/// Returns the problems of exports. `failing`: time since the failure of their steps, and the last error.
pub(super) fn problems(
    state: &MetaState,
    failing: &BTreeMap<Uuid, (Duration, String)>,
) -> Vec<Problem> {
    let mut of_tables: BTreeMap<TableId, Vec<FailingExport<'_>>> = BTreeMap::new();
    for (id, (age, error)) in failing {
        if let Some(export) = state.exports().by_id(*id)
            && *age >= FAILING_LIMIT
        {
            let failing = FailingExport { export, age: *age, error };
            of_tables.entry(export.table).or_default().push(failing);
        }
    }
    of_tables.iter().filter_map(|(table, failing)| table_problem(state, *table, failing)).collect()
}

/// Returns the problem of the exports of a table, of which the status lists one.
fn table_problem(
    state: &MetaState,
    table: TableId,
    failing: &[FailingExport<'_>],
) -> Option<Problem> {
    let table = &state.table(table)?.name;
    let FailingExport { export, age, error } = failing.iter().max_by_key(|of| of.age)?;
    let others = match failing.len() - 1 {
        0 => String::new(),
        1 => " (1 other export of the table fails, too)".to_owned(),
        others => format!(" ({others} other exports of the table fail, too)"),
    };
    let name = &export.name;
    let error = cut_at(error, MAX_ERROR);
    let detail = format!("export {name:?} of table {table:?} fails: {error}{others}");
    Some(Problem::new(ProblemKind::ExportFailing, detail).of_table(table).lasting(*age))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::collections::testing::{change, create_export, drop_export, with_export};
    use crate::commands::procedures::testing::id;
    use crate::commands::testing::run;

    /// Failures of the exports that requests with these numbers have created, for these numbers of seconds.
    fn failing(exports: &[(u64, u64)]) -> BTreeMap<Uuid, (Duration, String)> {
        let failure = |(number, seconds): &(u64, u64)| {
            (id(*number), (Duration::from_secs(*seconds), format!("bucket {number} is full")))
        };
        exports.iter().map(failure).collect()
    }

    fn problem(table: &str, detail: &str, seconds: u64) -> Problem {
        let problem = Problem::new(ProblemKind::ExportFailing, detail).of_table(table);
        problem.lasting(Duration::from_secs(seconds))
    }

    #[test]
    fn export_that_fails_for_long_is_a_problem() {
        let mut state = with_export();
        assert_eq!(problems(&state, &failing(&[])), []);
        assert_eq!(problems(&state, &failing(&[(20, 29)])), []);
        let expected = "export \"x\" of table \"t\" fails: bucket 20 is full";
        let expected = problem("t", expected, 30);
        assert_eq!(problems(&state, &failing(&[(20, 30)])), [expected]);
        run(&mut state, change(0, drop_export("x"))).unwrap();
        assert_eq!(problems(&state, &failing(&[(20, 30)])), []);
    }

    #[test]
    fn failing_exports_of_a_table_are_one_problem() {
        let mut state = with_export();
        for (number, name, table) in [(21, "y", "t"), (22, "z", "t"), (23, "of_u", "u")] {
            run(&mut state, change(30, create_export(number, name, table, 0))).unwrap();
        }
        let of_u = problem("u", "export \"of_u\" of table \"u\" fails: bucket 23 is full", 31);
        for (others, text) in [
            (vec![(20, 40)], " (1 other export of the table fails, too)"),
            (vec![(20, 40), (21, 40)], " (2 other exports of the table fail, too)"),
        ] {
            let all = [others, vec![(22, 60), (23, 31)]].concat();
            let detail = format!("export \"z\" of table \"t\" fails: bucket 22 is full{text}");
            let expected = [problem("t", &detail, 60), of_u.clone()];
            assert_eq!(problems(&state, &failing(&all)), expected);
        }
    }
}
