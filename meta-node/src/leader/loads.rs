//! The procedure of an atomic load: open a staging area in every region; when its loader says so,
//! have every region publish it, or give it up.

use std::sync::Arc;

use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, LoadPhase, meta_command::Kind};

use super::stewardship::Stewardship;
use crate::catalog::{Load, RouteDescriptor, Table};
use crate::commands::is_overdue;

/// Steps of a load, as regions see them.
const OPEN: u32 = 1;
const CLOSE: u32 = 2;

impl Stewardship {
    /// One attempt to bring a load to its next phase.
    pub(super) async fn advance_load(&self, table: &Table, load: &Load) -> Result<(), Refusal> {
        let advance = v1::AdvanceLoad { table_id: table.id.get(), number: table.changes };
        if is_overdue(&self.group.view.read(), load) {
            self.command(Kind::ExpireLoad(advance)).await?;
            tracing::warn!(
                table = %table.name, area = %load.area,
                "the loader was not heard of in time: its load is given up"
            );
            return Ok(());
        }
        match load.phase {
            LoadPhase::Opening => {
                let open = |route: Arc<RouteDescriptor>| async move {
                    self.open_area(table, &route, load).await
                };
                self.each_route(table.id, open).await?;
                self.command(Kind::LoadOpened(advance)).await?;
                tracing::info!(table = %table.name, area = %load.area, "a load has begun");
            }
            LoadPhase::Publishing | LoadPhase::Abandoning => {
                let publish = load.phase == LoadPhase::Publishing;
                let close = |route: Arc<RouteDescriptor>| async move {
                    self.close_area(table, &route, load, publish).await
                };
                self.each_route(table.id, close).await?;
                self.finish_change(table).await?;
            }
            // Its loader is at work.
            LoadPhase::Staging | LoadPhase::Unspecified => {}
        }
        Ok(())
    }

    async fn open_area(
        &self,
        table: &Table,
        route: &RouteDescriptor,
        load: &Load,
    ) -> Result<(), Refusal> {
        let request = v1::OpenAreaRequest {
            header: None,
            group_id: route.group_id.get(),
            region_id: route.route_id.get(),
            area_id: load.area.as_bytes().to_vec().into(),
            deadline_ms: load.latest_ms,
            step: Some(v1::ProcedureStep { number: table.changes, step: OPEN }),
        };
        self.at_leader(route.group_id, |node| self.control.open_area(node, request.clone())).await
    }

    async fn close_area(
        &self,
        table: &Table,
        route: &RouteDescriptor,
        load: &Load,
        publish: bool,
    ) -> Result<(), Refusal> {
        let request = v1::CloseAreaRequest {
            header: None,
            group_id: route.group_id.get(),
            region_id: route.route_id.get(),
            area_id: load.area.as_bytes().to_vec().into(),
            publish,
            step: Some(v1::ProcedureStep { number: table.changes, step: CLOSE }),
        };
        self.at_leader(route.group_id, |node| self.control.close_area(node, request.clone())).await
    }
}
