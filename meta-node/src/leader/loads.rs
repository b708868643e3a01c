//! Procedure of an atomic load: opens a staging area in every region; at the end of the load, every
//! region publishes or abandons its staging area.

use std::sync::Arc;

use tidewater_common::agreed_limits::{LOAD_CLOSE_STEP, LOAD_OPEN_STEP};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, LoadPhase, meta_command::Kind};
use tokio::time::Instant;

use super::leader_term::LeaderTerm;
use crate::catalog::{AtomicLoad, RouteDescriptor, Table};
use crate::commands::is_overdue;

/// Procedure steps of a load, as sent to regions.
const OPEN_STEP: u32 = LOAD_OPEN_STEP;
const CLOSE_STEP: u32 = LOAD_CLOSE_STEP;

impl LeaderTerm {
    /// Makes one attempt to advance a load to its next phase.
    pub(super) async fn advance_load(
        &self,
        table: &Table,
        load: &AtomicLoad,
    ) -> Result<(), Refusal> {
        let advance = v1::AdvanceLoad { table_id: table.id.get(), number: table.changes };
        let overdue = is_overdue(&self.group.view.read(), load);
        if overdue && self.observations.may_expire_loads(Instant::now()) {
            self.table_command(Kind::ExpireLoad(advance)).await?;
            tracing::warn!(
                table = %table.name, area = %load.area,
                "atomic load timed out without a call from its loader; abandoning it"
            );
            return Ok(());
        }
        match load.phase {
            LoadPhase::Opening => {
                let open = |route: Arc<RouteDescriptor>| async move {
                    self.open_area(table, &route, load).await
                };
                self.each_route(table, open).await?;
                self.table_command(Kind::LoadOpened(advance)).await?;
                tracing::info!(table = %table.name, area = %load.area, "atomic load begun");
            }
            LoadPhase::Publishing | LoadPhase::Abandoning => {
                let publish = load.phase == LoadPhase::Publishing;
                let close = |route: Arc<RouteDescriptor>| async move {
                    self.close_area(table, &route, load, publish).await
                };
                self.each_route(table, close).await?;
                self.finish_change(table).await?;
            }
            // The loader is staging files.
            LoadPhase::Staging | LoadPhase::Unspecified => {}
        }
        Ok(())
    }

    async fn open_area(
        &self,
        table: &Table,
        route: &RouteDescriptor,
        load: &AtomicLoad,
    ) -> Result<(), Refusal> {
        let request = v1::OpenAreaRequest {
            header: None,
            group_id: route.group_id.get(),
            region_id: route.route_id.get(),
            area_id: load.area.as_bytes().to_vec().into(),
            deadline_ms: load.latest_ms,
            step: Some(v1::ProcedureStep { number: table.changes, step: OPEN_STEP }),
        };
        self.at_leader(route.group_id, |node| self.control.open_area(node, request.clone())).await
    }

    async fn close_area(
        &self,
        table: &Table,
        route: &RouteDescriptor,
        load: &AtomicLoad,
        publish: bool,
    ) -> Result<(), Refusal> {
        let request = v1::CloseAreaRequest {
            header: None,
            group_id: route.group_id.get(),
            region_id: route.route_id.get(),
            area_id: load.area.as_bytes().to_vec().into(),
            publish,
            step: Some(v1::ProcedureStep { number: table.changes, step: CLOSE_STEP }),
        };
        self.at_leader(route.group_id, |node| self.control.close_area(node, request.clone())).await
    }
}
