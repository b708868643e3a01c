//! Holds and frontiers in the form of calls.

use std::sync::Arc;

use tidewater_common::ids::Epoch;
use tidewater_proto::v1::{self, CollectionFrontiers, ListedHold};

use crate::catalog::{Collection, MetaState, ReadHold, Since, Table, policy_to_wire};
use crate::commands::CommandError;

/// Default and greatest number of holds in one answer.
const MAX_LISTED: usize = 1_000;
/// Greatest sum of the numbers of their tables.
const MAX_LISTED_TABLES: usize = 50_000;

/// Lists holds, by name.
pub(super) fn holds(
    state: &MetaState,
    request: &v1::ListReadHoldsRequest,
) -> Result<v1::ListReadHoldsResponse, CommandError> {
    let table = match request.table.as_str() {
        "" => None,
        name => {
            let table = state.table_shown_as(name);
            Some(table.ok_or_else(|| CommandError::TableNotFound(name.to_owned()))?.id)
        }
    };
    let limit = match request.limit as usize {
        0 => MAX_LISTED,
        limit => limit.min(MAX_LISTED),
    };
    let is_of = |hold: &&Arc<ReadHold>| table.is_none_or(|id| hold.tables.contains(&id));
    let later = state.holds().after(&request.after).filter(is_of);
    let mut later = later.peekable();
    let mut tables = 0;
    let mut holds = Vec::new();
    while holds.len() < limit
        && let Some(hold) = later.next_if(|hold| tables + hold.tables.len() <= MAX_LISTED_TABLES)
    {
        tables += hold.tables.len();
        holds.push(listed(state, hold));
    }
    Ok(v1::ListReadHoldsResponse { holds, more: later.peek().is_some() })
}

fn listed(state: &MetaState, hold: &ReadHold) -> ListedHold {
    let name = |id| state.table(id).map(|table| table.name.clone()).unwrap_or_default();
    ListedHold {
        hold: Some(hold.into()),
        tables: hold.tables.iter().copied().map(name).collect(),
        left_ms: hold.lease_end_ms.saturating_sub(state.header().time_ms),
    }
}

/// Returns the frontiers of tables, in the order of the request, or of all tables, by id. `since` and `upper`:
/// those of the last barrier.
pub(super) fn frontiers(
    state: &MetaState,
    (since, upper): (Epoch, Epoch),
    request: &v1::GetCollectionFrontiersRequest,
) -> Result<Vec<CollectionFrontiers>, CommandError> {
    let named = |name: &String| {
        let table = state.table_shown_as(name);
        table.ok_or_else(|| CommandError::TableNotFound(name.clone()))
    };
    let is_listed = |table: &&Arc<Table>| table.is_live();
    let tables: Vec<&Arc<Table>> = if request.tables.is_empty() {
        state.tables().filter(is_listed).collect()
    } else {
        request.tables.iter().map(named).collect::<Result<_, CommandError>>()?
    };
    Ok(tables.into_iter().map(|table| describe(state, table, since, upper)).collect())
}

/// Describes a table. `since`: oldest readable epoch of tables without their own. A refreshable table is readable through its
/// complete epoch.
fn describe(state: &MetaState, table: &Table, since: Epoch, last: Epoch) -> CollectionFrontiers {
    let published = state.published_of(table.id);
    let since = published.map_or(since, |published| published.min(since));
    let upper = published.map_or(last, |_| table.complete_through().next());
    let record = state.collection(table.id).map(AsRef::as_ref);
    let own = state.since_at(table.id, last);
    let counts = record.into_iter().flat_map(|record| record.capabilities.counts());
    CollectionFrontiers {
        table_id: table.id.get(),
        table: table.name.clone(),
        since: own.unwrap_or(since).get(),
        upper: upper.get(),
        policy: record.map(|Collection { policy, .. }| policy_to_wire(policy)),
        holds: u32::try_from(state.holds().for_table(table.id).count()).unwrap_or(u32::MAX),
        // Without its tables, which may be many.
        least: state
            .holds()
            .least_of(table.id)
            .map(|hold| v1::ReadHold { table_ids: Vec::new(), ..hold.as_ref().into() }),
        capabilities: counts.map(|(_, count)| count.get()).fold(0, u64::saturating_add),
        dropped_name: table.dropped.as_ref().map(|of| of.name.clone()).unwrap_or_default(),
        dropped_ms: table.dropped.as_ref().map_or(0, |of| of.dropped_ms),
        unheld_since: unheld_since(record, published, last).unwrap_or(since).get(),
    }
}

/// Returns the oldest epoch of a table that could be read without its holds, if it is known.
fn unheld_since(
    record: Option<&Collection>,
    published: Option<Epoch>,
    last: Epoch,
) -> Option<Epoch> {
    match record?.since_at(published, last) {
        Since::Known(since) => Some(since),
        Since::AtLeast(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::collections::testing::{acquire, change, with_tables};
    use crate::commands::procedures::testing::drop_named;
    use crate::commands::testing::run;

    fn names(listed: &v1::ListReadHoldsResponse) -> Vec<&str> {
        let holds = listed.holds.iter().filter_map(|of| of.hold.as_ref());
        holds.map(|hold| hold.name.as_str()).collect()
    }

    #[test]
    fn holds_are_listed_in_pages() {
        let mut state = with_tables();
        for (number, name, tables) in
            [(1, "c", &["t"][..]), (2, "a", &["t", "u"]), (3, "b", &["u"])]
        {
            run(&mut state, change(20, acquire(number, name, tables, 0))).unwrap();
        }
        let list = |after: &str, limit, table: &str| {
            let (after, table) = (after.to_owned(), table.to_owned());
            holds(&state, &v1::ListReadHoldsRequest { table, after, limit })
        };
        let first = list("", 2, "").unwrap();
        assert_eq!((names(&first), first.more), (vec!["a", "b"], true));
        assert_eq!(first.holds[0].tables, ["t", "u"]);
        assert_eq!(first.holds[0].left_ms, 60_000);
        let last = list("b", 2, "").unwrap();
        assert_eq!((names(&last), last.more), (vec!["c"], false));
        assert_eq!(names(&list("", 0, "u").unwrap()), ["a", "b"]);
        assert!(list("", 0, "nowhere").is_err());
    }

    #[test]
    fn frontiers_follow_the_holds_of_a_table() {
        let mut state = with_tables();
        run(&mut state, change(20, acquire(1, "h", &["t"], 0))).unwrap();
        let of = |name: &str| {
            let table = state.table_named(name).unwrap();
            describe(&state, table, Epoch(25), Epoch(30))
        };
        let held = of("t");
        assert_eq!((held.since, held.upper, held.holds), (20, 30, 1));
        assert_eq!(held.unheld_since, 30);
        assert_eq!(held.least.unwrap().name, "h");
        assert!(held.policy.is_some());
        let plain = of("u");
        assert_eq!((plain.since, plain.holds, plain.policy), (25, 0, None));
        assert_eq!(plain.unheld_since, 25);
        run(&mut state, drop_named(10, "t")).unwrap();
        let named = |name: &str| v1::GetCollectionFrontiersRequest { tables: vec![name.into()] };
        let shown = |name: &str| frontiers(&state, (Epoch(25), Epoch(30)), &named(name));
        assert_eq!(shown("_tw_dropped_1").unwrap()[0].dropped_name, "t");
        assert!(shown("t").is_err() && shown("_tw_dropped_2").is_err());
    }
}
