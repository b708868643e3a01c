//! Drops tables whose read policy is empty, and that have no capabilities. A drop of a held table sets the policy, too.
//!
//! A held table keeps its rows under a reserved name. When its last hold has ended, it is dropped once more, by its id, which
//! removes the regions. At most [`MAX_REMOVALS`] of these tables are being removed at a time.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tidewater_collections::ReadPolicy;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::TableId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, ProcedureKind, TableState};
use tokio::time::{MissedTickBehavior, interval};

use super::leader_term::LeaderTerm;
use crate::catalog::{Collection, MetaState, Table};
use crate::commands::procedures::can_drop;

/// Time between two looks for tables.
const INTERVAL: Duration = Duration::from_secs(1);
/// Greatest number of tables of the empty frontier that are being removed. Those that do not end are problems of the cluster, and
/// hold up the others only when they are as many.
const MAX_REMOVALS: usize = 16;

/// Returns the tables that are to be dropped, by id, as many as may be removed in addition.
pub(crate) fn due(state: &MetaState) -> Vec<TableId> {
    let is_due = |record: &&Arc<Collection>| is_empty(record) && is_droppable(state, record.table);
    let due = state.collections().filter(is_due);
    due.map(|record| record.table).take(removals_left(state)).collect()
}

/// Returns the number of tables whose removal may begin.
fn removals_left(state: &MetaState) -> usize {
    let is_removed = |table: &&Arc<Table>| {
        let record = state.collection(table.id);
        table.state == TableState::Dropping && record.is_some_and(|of| is_empty(of))
    };
    MAX_REMOVALS.saturating_sub(state.tables_in_progress().filter(is_removed).count())
}

/// Returns whether policy and capabilities keep no epoch.
fn is_empty(record: &Collection) -> bool {
    record.policy == ReadPolicy::Empty && record.capabilities.least().is_none()
}

/// Returns whether the command that drops a table would be accepted: neither holds of a dropped table, nor exports, nor other
/// operations forbid it.
fn is_droppable(state: &MetaState, table: TableId) -> bool {
    let is_active = state.table(table).is_some_and(|of| of.state == TableState::Active);
    is_active && can_drop(state, table)
}

impl LeaderTerm {
    /// Drops tables of the empty frontier until the term ends.
    pub(super) async fn drop_empty_collections(self: Arc<Self>) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let state = self.group.view.read();
            if state.header().feature_level < FeatureLevel::HELD_DROPS {
                continue;
            }
            for table in due(&state) {
                let name = state.table(table).map(|of| of.original_name().to_owned());
                let name = name.unwrap_or_default();
                match self.begin_drop(table).await {
                    Ok(()) => {
                        tracing::info!(name, %table, "the drop of a table with the empty read policy has begun")
                    }
                    // The table is being changed, or was held again; the next look decides.
                    Err(problem) => {
                        tracing::debug!(name, %table, %problem, "table not dropped yet")
                    }
                }
            }
        }
    }

    async fn begin_drop(&self, table: TableId) -> Result<(), Refusal> {
        let request = |request_id| v1::DropTableRequest {
            request_id,
            name: String::new(),
            table_id: table.get(),
        };
        self.begin_procedure(ProcedureKind::Drop, |id| request(id).encode_to_vec()).await
    }
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::meta_command::Kind;
    use tidewater_proto::v1::read_policy::Policy;

    use super::*;
    use crate::commands::collections::testing::{
        acquire, capabilities, change, create_export, drop_export, policy, release, with_tables,
    };
    use crate::commands::procedures::testing::{complete, drop_by_id, drop_named};
    use crate::commands::testing::run;

    const T: TableId = TableId(1);
    const U: TableId = TableId(2);

    fn empty(table: &str) -> Kind {
        change(20, policy(table, Some(Policy::Empty(true))))
    }

    #[test]
    fn dropped_table_is_due_after_its_last_hold() {
        let mut state = with_tables();
        run(&mut state, change(20, acquire(1, "h", &["t", "u"], 0))).unwrap();
        run(&mut state, drop_named(10, "t")).unwrap();
        assert_eq!(due(&state), []);
        complete(&mut state, 10);
        assert_eq!(due(&state), []);
        run(&mut state, change(20, release("h"))).unwrap();
        assert_eq!(due(&state), [T]);
        run(&mut state, drop_by_id(11, 1)).unwrap();
        assert_eq!(due(&state), []);
    }

    #[test]
    fn empty_policy_is_due_without_capabilities_and_exports() {
        let mut state = with_tables();
        for kind in [empty("t"), empty("u"), change(20, capabilities("u", &[(20, 1)]))] {
            run(&mut state, kind).unwrap();
        }
        assert_eq!(due(&state), [T]);
        // The drop keeps its rows.
        run(&mut state, change(20, acquire(1, "h", &["t"], 0))).unwrap();
        assert_eq!(due(&state), [T]);
        run(&mut state, change(20, create_export(20, "x", "t", 0))).unwrap();
        assert_eq!(due(&state), []);
        run(&mut state, change(20, capabilities("u", &[(20, -1)]))).unwrap();
        assert_eq!(due(&state), [U]);
        run(&mut state, change(20, drop_export("x"))).unwrap();
        run(&mut state, change(20, policy("u", None))).unwrap();
        assert_eq!(due(&state), [T]);
    }

    #[test]
    fn removals_are_bounded() {
        let mut state = with_tables();
        for (number, name) in (30..).zip(["t", "u"]) {
            run(&mut state, empty(name)).unwrap();
            let table = state.table_named(name).unwrap().id;
            run(&mut state, drop_by_id(number, table.get())).unwrap();
        }
        assert_eq!(removals_left(&state), MAX_REMOVALS - 2);
    }
}
