//! Problems of tables whose read policy is empty, and which exports or capabilities keep from being dropped.
//!
//! A hold does not keep such a table: its drop keeps the rows until the last hold ends. The state has no time of a
//! policy, so that a problem begins when the leader first finds it, and is reported after the grace of its kind.

use tidewater_collections::{Capabilities, ReadPolicy};
use tidewater_common::ids::TableId;
use tidewater_common::problem::Problem;
use tidewater_common::quote::quoted;
use tidewater_proto::v1::ProblemKind;

use crate::catalog::{Collection, MetaState};

pub(super) fn problems(state: &MetaState) -> Vec<Problem> {
    state.collections().filter_map(|record| waiting_drop(state, record)).collect()
}

/// Returns the problem of a table that its policy drops once nothing else keeps it.
fn waiting_drop(state: &MetaState, record: &Collection) -> Option<Problem> {
    if record.policy != ReadPolicy::Empty {
        return None;
    }
    let table = state.table(record.table).filter(|table| table.is_named())?;
    let name = &table.name;
    let exports = kept_by_exports(state, table.id);
    let capabilities = kept_by_capabilities(&record.capabilities, name);
    let keepers: Vec<String> = exports.into_iter().chain(capabilities).collect();
    if keepers.is_empty() {
        return None;
    }
    let keepers = keepers.join("; ");
    let table = quoted(name);
    let detail = format!("table {table} has the empty read policy, and is not dropped: {keepers}");
    Some(Problem::new(ProblemKind::TableDropWaits, detail).of_table(name))
}

/// Returns a text about the exports of a table, if it has any.
fn kept_by_exports(state: &MetaState, table: TableId) -> Option<String> {
    let mut exports = state.exports().for_table(table);
    let first = exports.next()?;
    let first = quoted(&first.name);
    let keepers = match exports.count() {
        0 => format!("export {first} keeps it"),
        1 => format!("export {first} and 1 other export keep it"),
        others => format!("export {first} and {others} other exports keep it"),
    };
    Some(format!("{keepers} (`tidewater export drop {first}`)"))
}

/// Returns a text about the capabilities of a table, if it has any.
fn kept_by_capabilities(capabilities: &Capabilities, table: &str) -> Option<String> {
    let least = capabilities.least()?;
    let counts = capabilities.counts().map(|(_, count)| count.get());
    let number = counts.fold(0, u64::saturating_add);
    let keepers = match number {
        1 => format!("1 capability at epoch {least} keeps it"),
        number => format!("{number} capabilities from epoch {least} on keep it"),
    };
    let table = quoted(table);
    Some(format!(
        "{keepers} (if their program has ended: `tidewater collection capabilities {table} --remove {least}`)"
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};

    use tidewater_common::ids::NodeId;
    use tidewater_common::problem::ProblemHistory;
    use tidewater_proto::v1::meta_command::Kind;
    use tidewater_proto::v1::read_policy::Policy;

    use super::*;
    use crate::commands::collections::testing::{
        acquire, capabilities, change, create_export, drop_export, policy, with_tables,
    };
    use crate::commands::procedures::testing::{complete, drop_by_id, drop_named};
    use crate::commands::testing::run;
    use crate::leader::ObservedCluster;
    use crate::leader::problems::{ClusterKnowledge, find_problems};

    fn empty(table: &str) -> Kind {
        change(20, policy(table, Some(Policy::Empty(true))))
    }

    /// Creates an export of a table. `number`: number of its request.
    fn export(state: &mut MetaState, number: u64, name: &str, table: &str) {
        run(state, change(20, create_export(number, name, table, 0))).unwrap();
    }

    fn details(state: &MetaState) -> Vec<String> {
        problems(state).into_iter().map(|problem| problem.detail).collect()
    }

    /// A state whose table "t" has the empty policy, and an export.
    fn with_waiting_drop() -> MetaState {
        let mut state = with_tables();
        run(&mut state, empty("t")).unwrap();
        export(&mut state, 20, "x", "t");
        state
    }

    #[test]
    fn table_with_the_empty_policy_waits_for_its_exports() {
        let mut state = with_tables();
        export(&mut state, 20, "x", "t");
        export(&mut state, 21, "of_u", "u");
        assert_eq!(problems(&state), [], "other policies drop no table");
        run(&mut state, empty("t")).unwrap();
        let begin = "table \"t\" has the empty read policy, and is not dropped: export \"x\"";
        let command = "(`tidewater export drop \"x\"`)";
        let expected =
            Problem::new(ProblemKind::TableDropWaits, format!("{begin} keeps it {command}"));
        assert_eq!(problems(&state), [expected.of_table("t")]);
        for (number, text) in [(22, "and 1 other export"), (23, "and 2 other exports")] {
            export(&mut state, number, &format!("y{number}"), "t");
            assert_eq!(details(&state), [format!("{begin} {text} keep it {command}")]);
        }
        for name in ["x", "y22", "y23"] {
            assert_eq!(problems(&state).len(), 1);
            run(&mut state, change(20, drop_export(name))).unwrap();
        }
        assert_eq!(problems(&state), [], "the table is dropped now");
    }

    #[test]
    fn table_with_the_empty_policy_waits_for_its_capabilities() {
        let mut state = with_tables();
        run(&mut state, empty("u")).unwrap();
        assert_eq!(problems(&state), []);
        let begin = "table \"u\" has the empty read policy, and is not dropped: ";
        let command = |epoch: u64| {
            let program = "if their program has ended";
            format!("({program}: `tidewater collection capabilities \"u\" --remove {epoch}`)")
        };
        for (changes, expected) in [
            (&[(20, 1)][..], format!("1 capability at epoch 20 keeps it {}", command(20))),
            (&[(25, 2)][..], format!("3 capabilities from epoch 20 on keep it {}", command(20))),
            (&[(20, -1)][..], format!("2 capabilities from epoch 25 on keep it {}", command(25))),
        ] {
            run(&mut state, change(20, capabilities("u", changes))).unwrap();
            assert_eq!(details(&state), [format!("{begin}{expected}")]);
        }
        export(&mut state, 20, "x", "u");
        let both = details(&state).remove(0);
        let exports = format!("{begin}export \"x\" keeps it (`tidewater export drop \"x\"`); ");
        assert!(both.starts_with(&format!("{exports}2 capabilities")), "{both}");
        run(&mut state, change(20, policy("u", None))).unwrap();
        assert_eq!(problems(&state), [], "the table is not to be dropped any more");
    }

    #[test]
    fn drop_that_holds_or_regions_delay_is_no_problem() {
        let mut state = with_tables();
        run(&mut state, change(20, acquire(1, "h", &["t"], 0))).unwrap();
        run(&mut state, drop_named(10, "t")).unwrap();
        assert_eq!(problems(&state), []);
        complete(&mut state, 10);
        assert_eq!(problems(&state), []);
        run(&mut state, empty("u")).unwrap();
        run(&mut state, drop_by_id(11, 2)).unwrap();
        assert_eq!(problems(&state), []);
    }

    #[test]
    fn waiting_drop_is_reported_after_ten_minutes() {
        let state = with_waiting_drop();
        let begun = Instant::now();
        let mut history = ProblemHistory::default();
        for (seconds, expected) in [(0, 0), (599, 0), (600, 1)] {
            let at = begun + Duration::from_secs(seconds);
            let reported = history.record(problems(&state), at, 0);
            assert_eq!(reported.len(), expected, "{seconds} s");
        }
    }

    #[test]
    fn waiting_drop_is_a_problem_of_the_cluster() {
        let state = with_waiting_drop();
        let found = find_problems(&ClusterKnowledge {
            state: &state,
            observed: &ObservedCluster::default(),
            members: &[],
            leader: NodeId(1),
            of_process: &[],
            differing_clocks: &[],
            operations: &BTreeMap::new(),
            failure_timeout: Duration::from_secs(5),
        });
        let waiting = found.iter().filter(|problem| problem.kind == ProblemKind::TableDropWaits);
        assert_eq!(waiting.count(), 1, "{found:?}");
    }
}
