//! Opening of a clone's regions, by reference to the files of the source's regions.

use std::sync::Arc;

use tidewater_common::agreed_limits::CLONE_STEP;
use tidewater_common::ids::TableId;
use tidewater_common::keys::global_key;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason};

use super::leader_term::LeaderTerm;
use super::tables::row_key;
use crate::catalog::{RouteDescriptor, Table};

/// Distance between the source's flushed sequence and the first sequence of the clone: leaves room for
/// 2^28 log entries that the source may write until its files are adopted.
const SEQUENCE_GAP: u64 = 1 << 44;

impl LeaderTerm {
    /// Flushes the source region with the same keys, opens this region above the source's sequences,
    /// and adopts the same files by reference. The clone has the rows of that flush, and possibly
    /// later ones: a snapshot of each region, not of the table.
    pub(super) async fn open_clone(
        &self,
        table: &Table,
        source: TableId,
        route: &RouteDescriptor,
        region: v1::RegionDescriptor,
    ) -> Result<(), Refusal> {
        let from = self.route_like(route, source)?;
        let flush = v1::FlushRegionRequest {
            group_id: from.group_id.get(),
            region_id: from.route_id.get(),
        };
        let flushed =
            self.at_leader(from.group_id, |node| self.control.flush_region(node, flush)).await?;
        self.open(route, region, flushed.flushed_sequence.saturating_add(SEQUENCE_GAP)).await?;
        let copy = copy_request(table, route, source, &from);
        self.at_leader(route.group_id, |node| self.control.copy_region(node, copy.clone())).await
    }

    /// The route of another table that starts at the same row key.
    fn route_like(
        &self,
        route: &RouteDescriptor,
        other: TableId,
    ) -> Result<Arc<RouteDescriptor>, Refusal> {
        let start = global_key(other, row_key(&route.start));
        let found = self.group.view.read().route_starting_at(&start).cloned();
        found.ok_or_else(|| {
            let text =
                format!("table {other} has no region with the start of region {}", route.route_id);
            Refusal::new(Reason::RegionNotFound, text)
        })
    }
}

/// Returns the request that copies a region of the source table. The cluster may have been restored since
/// the source was made: each region's directory is named by the incarnation of its own creation.
fn copy_request(
    table: &Table,
    route: &RouteDescriptor,
    source: TableId,
    from: &RouteDescriptor,
) -> v1::CopyRegionRequest {
    v1::CopyRegionRequest {
        header: None,
        group_id: route.group_id.get(),
        region_id: route.route_id.get(),
        source_table_id: source.get(),
        source_region_id: from.route_id.get(),
        source_incarnation: from.incarnation.get(),
        step: Some(v1::ProcedureStep { number: table.changes, step: CLONE_STEP.1 }),
    }
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::Incarnation;
    use tidewater_proto::v1::meta_command::Kind;

    use super::*;
    use crate::catalog::{CatalogChange, Header, MetaState};
    use crate::commands::apply_change;
    use crate::commands::testing::{directory, run, table, with_groups};

    #[test]
    fn clone_refers_to_the_sources_own_incarnation() {
        let mut state = with_groups(1, 1);
        run(&mut state, Kind::CreateTable(table(1, "old"))).unwrap();
        run(&mut state, Kind::ActivateTable(v1::ActivateTable { table_id: 1 })).unwrap();
        let restored = Header { incarnation: Incarnation(2), ..state.header().clone() };
        let change = CatalogChange { header: Some(restored), ..CatalogChange::default() };
        apply_change(&mut state, change).unwrap();
        let clone = v1::CloneTableRequest {
            request_id: directory(2),
            name: "old".into(),
            new_name: "new".into(),
        };
        run(&mut state, Kind::CloneTable(clone)).unwrap();
        // Also after a restart.
        let state = MetaState::from_rows(state.rows().unwrap()).unwrap();
        let route = |id| state.routes_of(TableId(id)).next().unwrap().as_ref().clone();
        assert_eq!(route(2).incarnation, Incarnation(2));
        let clone = state.table(TableId(2)).unwrap();
        let request = copy_request(clone, &route(2), TableId(1), &route(1));
        assert_eq!((request.source_region_id, request.source_incarnation), (1, 1));
    }
}
