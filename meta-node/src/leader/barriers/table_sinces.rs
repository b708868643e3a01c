//! Oldest readable epochs that a barrier names (pure).

use std::collections::{BTreeMap, BTreeSet};

use tidewater_common::ids::{Epoch, GroupId, NodeId};
use tidewater_proto::v1::TableSince;

use crate::catalog::MetaState;

/// Returns the oldest readable epochs of tables whose own they are, as of an epoch, for the leaders of the groups of their
/// regions. A leader of which nothing is known gets them with a later barrier: a table that is not named keeps its own.
pub(super) fn table_sinces(
    state: &MetaState,
    led: &[(GroupId, NodeId)],
    at: Epoch,
) -> BTreeMap<NodeId, Vec<TableSince>> {
    let leaders: BTreeMap<GroupId, NodeId> = led.iter().copied().collect();
    let mut sinces: BTreeMap<NodeId, Vec<TableSince>> = BTreeMap::new();
    for collection in state.collections() {
        let Some(since) = state.since_at(collection.table, at) else { continue };
        let groups = state.routes_of(collection.table).map(|route| route.group_id);
        let nodes: BTreeSet<NodeId> = groups.filter_map(|of| leaders.get(&of).copied()).collect();
        let named = TableSince { table_id: collection.table.get(), since: since.get() };
        for node in nodes {
            sinces.entry(node).or_default().push(named);
        }
    }
    sinces
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::TableId;
    use tidewater_proto::v1::meta_command::Kind;
    use tidewater_proto::v1::{self, change_collections::Change};

    use super::*;
    use crate::commands::collections::testing::{acquire, change, with_tables};
    use crate::commands::testing::run;

    #[test]
    fn leaders_get_the_sinces_of_their_tables() {
        let mut state = with_tables();
        run(&mut state, change(20, acquire(1, "h", &["t"], 0))).unwrap();
        let groups: Vec<GroupId> = state.groups().map(|group| group.id).collect();
        let led: Vec<_> = groups.iter().map(|group| (*group, NodeId(100 + group.get()))).collect();
        let of_table = |table: TableId| -> BTreeSet<NodeId> {
            state.routes_of(table).map(|route| NodeId(100 + route.group_id.get())).collect()
        };
        let table = state.table_named("t").unwrap().id;
        let named = [TableSince { table_id: table.get(), since: 20 }];
        let sinces = table_sinces(&state, &led, Epoch(30));
        assert_eq!(sinces.keys().copied().collect::<BTreeSet<_>>(), of_table(table));
        assert!(sinces.values().all(|of| of[..] == named));
        // No leader is known.
        assert!(table_sinces(&state, &[], Epoch(30)).is_empty());
        // The hold has ended.
        let release = v1::ReleaseReadHoldsRequest { names: vec!["h".to_owned()] };
        let release: Kind = change(30, Change::Release(release));
        run(&mut state, release).unwrap();
        let sinces = table_sinces(&state, &led, Epoch(40));
        assert!(sinces.values().all(|of| of[0].since == 40));
    }
}
