//! Opening of a clone's regions, by reference to the files of the source's regions.

use std::sync::Arc;

use tidewater_common::agreed_limits::CLONE_STEP;
use tidewater_common::ids::TableId;
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
        let incarnation = region.incarnation;
        self.open(route, region, flushed.flushed_sequence.saturating_add(SEQUENCE_GAP)).await?;
        let copy = v1::CopyRegionRequest {
            header: None,
            group_id: route.group_id.get(),
            region_id: route.route_id.get(),
            source_table_id: source.get(),
            source_region_id: from.route_id.get(),
            source_incarnation: incarnation,
            step: Some(v1::ProcedureStep { number: table.changes, step: CLONE_STEP.1 }),
        };
        self.at_leader(route.group_id, |node| self.control.copy_region(node, copy.clone())).await
    }

    /// The route of another table that starts at the same row key.
    fn route_like(
        &self,
        route: &RouteDescriptor,
        other: TableId,
    ) -> Result<Arc<RouteDescriptor>, Refusal> {
        let state = self.group.view.read();
        let like =
            |candidate: &&Arc<RouteDescriptor>| row_key(&candidate.start) == row_key(&route.start);
        let found = state.routes_of(other).into_iter().find(like).cloned();
        found.ok_or_else(|| {
            let text =
                format!("table {other} has no region with the start of region {}", route.route_id);
            Refusal::new(Reason::RegionNotFound, text)
        })
    }
}
