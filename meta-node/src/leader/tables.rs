//! Procedures on tables: open all regions, then activate the table; apply a change in all regions, then
//! finish the change; drop all regions, then delete the table.
//!
//! The table's record holds the state of the procedure: creating, changing or dropping. Every step is
//! idempotent, so a new leader restarts at the first step.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::agreed_limits::CHANGE_STEP;
use tidewater_common::ids::{GroupId, NodeId, RegionId, TableId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, LoadPhase, Reason, TableState, meta_command::Kind};

use super::leader_term::LeaderTerm;
use super::table_attempts::TablePhase;
use crate::catalog::{DroppedRegion, MetaState, RouteDescriptor, Table, TableChange, table_bounds};
use crate::commands::is_overdue;

/// Maximum number of calls that follow leader hints.
const MAX_HOPS: usize = 3;

/// Returns the tables with a procedure in progress, and its phase.
pub(super) fn unfinished(state: &MetaState) -> Vec<(TableId, TablePhase)> {
    state
        .tables_in_progress()
        .filter(|table| match &table.change {
            _ if table.state != TableState::Active => true,
            // The loader is staging files.
            Some(TableChange::Load(load)) if load.phase == LoadPhase::Staging => {
                is_overdue(state, load)
            }
            change => change.is_some(),
        })
        .map(|table| (table.id, TablePhase::from(table.as_ref())))
        .collect()
}

impl LeaderTerm {
    /// Makes one attempt to complete the procedure of a table.
    pub(super) async fn finish_table(&self, id: TableId) -> Result<(), Refusal> {
        let Some(table) = self.group.view.read().table(id).cloned() else { return Ok(()) };
        match table.state {
            TableState::Creating => self.open_all(&table).await,
            TableState::Dropping => self.drop_all(&table).await,
            TableState::Active => match &table.change {
                Some(TableChange::Load(load)) => self.advance_load(&table, load).await,
                Some(change) => self.change_all(&table, change).await,
                None => Ok(()),
            },
            TableState::Unspecified => Ok(()),
        }
    }

    async fn open_all(&self, table: &Table) -> Result<(), Refusal> {
        self.each_route(table, |route| async move {
            let region = region(table, &route);
            match table.clone_of {
                None => self.open(&route, region, 0).await,
                Some(source) => self.open_clone(table, source, &route, region).await,
            }
        })
        .await?;
        let activate = v1::ActivateTable { table_id: table.id.get() };
        self.table_command(Kind::ActivateTable(activate)).await?;
        tracing::info!(table = %table.name, id = %table.id, "table activated");
        Ok(())
    }

    /// Calls `work` for every route of a table that has not completed the table's phase.
    pub(super) async fn each_route<F>(
        &self,
        table: &Table,
        work: impl Fn(Arc<RouteDescriptor>) -> F,
    ) -> Result<(), Refusal>
    where
        F: Future<Output = Result<(), Refusal>>,
    {
        let routes: Vec<_> = self.group.view.read().routes_of(table.id).cloned().collect();
        let regions = routes.into_iter().map(|route| (route.route_id, route));
        self.for_each_region(table, regions, work).await
    }

    pub(super) async fn open(
        &self,
        route: &RouteDescriptor,
        region: v1::RegionDescriptor,
        base: u64,
    ) -> Result<(), Refusal> {
        self.at_leader(route.group_id, |node| {
            let request = v1::OpenRegionRequest {
                header: None,
                group_id: route.group_id.get(),
                region: Some(region.clone()),
                base,
            };
            self.control.open_region(node, request)
        })
        .await
    }

    async fn change_all(&self, table: &Table, change: &TableChange) -> Result<(), Refusal> {
        self.each_route(table, async |route| self.change_one(table, &route, change).await).await?;
        self.finish_change(table).await
    }

    /// Finishes a change that all regions have applied.
    pub(super) async fn finish_change(&self, table: &Table) -> Result<(), Refusal> {
        let table_id = table.id.get();
        let number = table.changes;
        let finish = v1::FinishTableChange { table_id, number };
        self.table_command(Kind::FinishTableChange(finish)).await?;
        tracing::info!(table = %table.name, id = %table.id, change = number, "table changed");
        Ok(())
    }

    async fn change_one(
        &self,
        table: &Table,
        route: &RouteDescriptor,
        change: &TableChange,
    ) -> Result<(), Refusal> {
        let group_id = route.group_id.get();
        let region_id = route.route_id.get();
        let step = Some(v1::ProcedureStep { number: table.changes, step: CHANGE_STEP });
        match change {
            TableChange::Alter { schema, options } => {
                let request = v1::AlterRegionRequest {
                    header: None,
                    group_id,
                    region_id,
                    schema: Some(schema.as_ref().into()),
                    options: Some(options.into()),
                    step,
                };
                self.at_leader(route.group_id, |node| {
                    self.control.alter_region(node, request.clone())
                })
                .await
            }
            TableChange::Truncate => {
                let request = v1::TruncateRegionRequest { header: None, group_id, region_id, step };
                self.at_leader(route.group_id, |node| {
                    self.control.truncate_region(node, request.clone())
                })
                .await
            }
            // Loads have their own steps.
            TableChange::Load(_) => Ok(()),
        }
    }

    async fn drop_all(&self, table: &Table) -> Result<(), Refusal> {
        let regions = table.dropping.iter().map(|region| (region.region_id, *region));
        let drop_one =
            async |region: DroppedRegion| self.drop_one(region.group_id, region.region_id).await;
        self.for_each_region(table, regions, drop_one).await?;
        let finish = v1::FinishDropTable { table_id: table.id.get() };
        self.table_command(Kind::FinishDropTable(finish)).await?;
        tracing::info!(table = %table.name, id = %table.id, "table dropped");
        Ok(())
    }

    async fn drop_one(&self, group: GroupId, region: RegionId) -> Result<(), Refusal> {
        let dropped = self
            .at_leader(group, |node| {
                let request = v1::DropRegionRequest {
                    header: None,
                    group_id: group.get(),
                    region_id: region.get(),
                };
                self.control.drop_region(node, request)
            })
            .await;
        match dropped {
            // Never opened, or dropped by an earlier attempt.
            Err(refusal) if refusal.reason == Reason::RegionNotFound => Ok(()),
            other => other,
        }
    }

    /// Calls the group's leader, with a permit of the group, and follows leader hints.
    pub(super) async fn at_leader<F, T>(
        &self,
        group: GroupId,
        mut call: impl FnMut(NodeId) -> F,
    ) -> Result<T, Refusal>
    where
        F: Future<Output = Result<T, Refusal>>,
    {
        let _permit = self.group_permits.acquire(group).await?;
        let mut leader = self.leader_of(group)?;
        for _ in 0..MAX_HOPS {
            match call(leader).await {
                Err(refusal) if refusal.reason == Reason::NotLeader => {
                    let hint = refusal.leader.as_ref().map(|hint| hint.node_id);
                    match hint.filter(|node| node.get() != 0 && *node != leader) {
                        Some(node) => leader = node,
                        None => return Err(refusal),
                    }
                }
                other => return other,
            }
        }
        Err(Refusal::new(Reason::NotLeader, format!("the leader of group {group} is changing"))
            .retry_after(Duration::from_millis(500)))
    }

    pub(super) fn leader_of(&self, group: GroupId) -> Result<NodeId, Refusal> {
        // Heartbeats report a new leader before the catalog records it.
        let observed = self.observations.leader_of(group);
        let recorded = || self.group.view.read().group(group).and_then(|group| group.leader);
        observed.or_else(recorded).ok_or_else(|| {
            Refusal::new(Reason::NotLeader, format!("group {group} has no leader"))
                .retry_after(Duration::from_millis(500))
        })
    }
}

/// Returns the row key of a global key, which starts with the table's id.
pub(super) fn row_key(key: &[u8]) -> &[u8] {
    key.get(size_of::<u32>()..).unwrap_or_default()
}

/// Builds the descriptor of a region for data nodes.
fn region(table: &Table, route: &RouteDescriptor) -> v1::RegionDescriptor {
    let end_of_table = table_bounds(table.id).map(|(_, end)| end);
    let end = route.end.as_deref().filter(|end| Some(*end) != end_of_table.as_deref());
    v1::RegionDescriptor {
        region_id: route.route_id.get(),
        table_id: table.id.get(),
        table_name: table.name.clone(),
        start: row_key(&route.start).to_vec().into(),
        end: end.map(|end| row_key(end).to_vec().into()),
        schema: Some((&table.schema).into()),
        options: Some((&table.options).into()),
        incarnation: route.incarnation.get(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::{run, table, with_groups};

    #[test]
    fn region_descriptor_bounds_omit_the_table_id() {
        let mut state = with_groups(1, 1);
        let request = v1::CreateTableRequest { regions: 2, ..table(1, "t") };
        run(&mut state, Kind::CreateTable(request)).unwrap();
        let table = state.table(TableId(1)).unwrap();
        let regions: Vec<_> =
            state.routes_of(TableId(1)).map(|route| region(table, route)).collect();
        assert!(regions[0].start.is_empty());
        assert_eq!(regions[0].end.as_deref(), Some(&[0x80, 0][..]));
        assert_eq!(regions[1].start, [0x80, 0].as_slice());
        assert_eq!(regions[1].end, None);
        let ids: Vec<TableId> = unfinished(&state).into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, [TableId(1)]);
    }
}
