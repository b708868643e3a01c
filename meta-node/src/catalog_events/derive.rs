//! Events of one change of the catalog. Pure: they follow from the records that the change has replaced and from the state
//! after it, so that every replica derives the same ones.

mod nodes;
mod procedures;
mod routes;
mod subject;

use tidewater_events::Event;
use tidewater_proto::v1::ProcedureKind;

use crate::catalog::{MetaState, Procedure, ReplacedRecords};
use crate::commands::procedures::kind_of;

/// Returns the events of a change. `state`: after the change.
pub(super) fn derive(replaced: &ReplacedRecords, state: &MetaState) -> Vec<Box<dyn Event>> {
    let mut events = nodes::events(replaced, state);
    for (id, before) in &replaced.procedures {
        if let Some(after) = state.procedures().get(*id) {
            events.extend(procedures::events(before.as_deref(), after, state));
        }
    }
    events
}

/// Names of a procedure in its events.
#[derive(Debug, Clone)]
struct ProcedureNames {
    id: String,
    kind: String,
    table: Option<String>,
}

impl ProcedureNames {
    fn of(procedure: &Procedure, state: &MetaState) -> Self {
        let kind = kind_of(procedure.kind).map(|kind| kind.facts().name.to_owned());
        let table = state.table(procedure.table).map(|table| &table.name);
        // The table of a drop has a reserved name as soon as it has begun, or no record at its end.
        let table = table.filter(|_| known_kind(procedure) != Some(ProcedureKind::Drop));
        let table = table.unwrap_or(&procedure.table_name);
        Self {
            id: procedure.id.to_string(),
            kind: kind.unwrap_or_else(|| procedure.kind.to_string()),
            table: (!table.is_empty()).then(|| table.clone()),
        }
    }
}

/// Kind of a procedure; `None`: a later release has it.
fn known_kind(procedure: &Procedure) -> Option<ProcedureKind> {
    ProcedureKind::try_from(i32::try_from(procedure.kind).ok()?).ok()
}

#[cfg(test)]
mod tests;
