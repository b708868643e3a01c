//! Locks of procedures on tables and routes (pure).
//!
//! | held | exclusive | source | routes |
//! |---|---|---|---|
//! | exclusive | conflict | conflict | conflict |
//! | source | conflict | | conflict |
//! | routes | conflict | conflict | |
//!
//! A route has one procedure at a time. Changes and clones that releases without procedures have begun count
//! as locks, too.

use std::sync::Arc;

use tidewater_common::ids::{RegionId, TableId};
use tidewater_proto::v1::{LockMode, TableState};
use uuid::Uuid;

use super::{MetaState, Procedure, Table, TableLock};

/// Operation that holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockHolder {
    /// A procedure.
    Procedure {
        /// Its id.
        id: Uuid,
        /// Number of its kind.
        kind: u32,
        /// The locked table; `None`: the procedure changes the route.
        table: Option<TableId>,
    },
    /// A change of the table that was begun without a procedure.
    Change {
        /// Past participle of the operation, e.g. "altered".
        verb: &'static str,
    },
    /// A table that is being created from the table.
    Clone {
        /// Name of the new table.
        target: String,
    },
}

/// Returns the table and the operation that forbid these locks; `None`: they can be taken. Takes
/// time for the procedures of these tables.
pub fn lock_conflict(
    state: &MetaState,
    wanted: &[TableLock],
    routes: &[RegionId],
) -> Option<(TableId, LockHolder)> {
    let of_table = |lock: &TableLock| {
        let holder = table_conflict(state, *lock)?;
        Some((lock.table, holder))
    };
    let of_route = |route: &RegionId| {
        let held = state.procedures().of_route(*route)?;
        Some((held.table, LockHolder::Procedure { id: held.id, kind: held.kind, table: None }))
    };
    wanted.iter().find_map(of_table).or_else(|| routes.iter().find_map(of_route))
}

/// Returns the procedure that forbids a lock on a table.
pub fn procedure_conflict(state: &MetaState, wanted: TableLock) -> Option<LockHolder> {
    let is_held =
        |lock: &TableLock| lock.table == wanted.table && conflicts(lock.mode, wanted.mode);
    let holds = |held: &Procedure| held.locks.iter().any(is_held);
    let held = state.procedures().of_table(wanted.table).find(|held| holds(held))?;
    Some(LockHolder::Procedure { id: held.id, kind: held.kind, table: Some(wanted.table) })
}

/// Returns the operation that forbids a lock on a table. The table's state counts only for operations of earlier
/// releases: procedures have their locks.
fn table_conflict(state: &MetaState, wanted: TableLock) -> Option<LockHolder> {
    if let Some(holder) = procedure_conflict(state, wanted) {
        return Some(holder);
    }
    let table = state.table(wanted.table)?;
    if let Some(verb) = earlier_verb(table) {
        return Some(LockHolder::Change { verb });
    }
    let is_clone = |target: &&Arc<Table>| target.clone_of == Some(wanted.table);
    let target = state.tables_in_progress().find(is_clone)?;
    conflicts(LockMode::Source, wanted.mode)
        .then_some(LockHolder::Clone { target: target.name.clone() })
}

/// Returns the past participle of the operation on a table that is in progress without a procedure.
fn earlier_verb(table: &Table) -> Option<&'static str> {
    match table.state {
        TableState::Creating => Some("created"),
        TableState::Dropping => Some("dropped"),
        TableState::Active | TableState::Reserved | TableState::Unspecified => {
            table.change.as_ref().map(|change| change.verb())
        }
    }
}

/// Returns whether two procedures must not hold these locks on one table at the same time.
pub(super) fn conflicts(held: LockMode, wanted: LockMode) -> bool {
    match (held, wanted) {
        (LockMode::Source, LockMode::Source) | (LockMode::Routes, LockMode::Routes) => false,
        (LockMode::Unspecified | LockMode::Exclusive | LockMode::Source | LockMode::Routes, _) => {
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_conflict_cell_by_cell() {
        use LockMode::{Exclusive, Routes, Source, Unspecified};
        let modes = [Unspecified, Exclusive, Source, Routes];
        let table: Vec<Vec<bool>> = modes
            .iter()
            .map(|held| modes.iter().map(|wanted| conflicts(*held, *wanted)).collect())
            .collect();
        let expected = [
            [true, true, true, true],
            [true, true, true, true],
            [true, true, false, true],
            [true, true, true, false],
        ];
        assert_eq!(table, expected.map(Vec::from));
    }
}
