//! Truncation of a table: every region deletes its rows.

use bytes::Bytes;
use tidewater_common::agreed_limits::CHANGE_STEP;
use tidewater_proto::v1::{self, LockMode};

use super::kind::{AfterStep, KindFacts, ProcedureBegin, ProcedureKind, RegionCall, StepRegion};
use super::{FIRST_KINDS, active_table, decoded, regions_of};
use crate::catalog::{CatalogChange, MetaState, OutcomeKind, Procedure, TableLock};
use crate::commands::{CommandError, collections, refreshes};

/// Truncation of a table. Its arguments are a [`v1::TruncateTableRequest`].
pub(super) struct TruncateTable;

impl ProcedureKind for TruncateTable {
    fn facts(&self) -> KindFacts {
        KindFacts {
            number: v1::ProcedureKind::Truncate as u32,
            name: "truncate",
            verb: "truncated",
            level: FIRST_KINDS,
            earlier_outcome: Some(OutcomeKind::TruncateTable),
        }
    }

    fn begin(&self, state: &MetaState, arguments: Bytes) -> Result<ProcedureBegin, CommandError> {
        let request: v1::TruncateTableRequest = decoded(arguments)?;
        let table = active_table(state, &request.name)?;
        refreshes::check_written_by_clients(state, table, "truncated")?;
        collections::check_not_held(state, table, "truncated")?;
        let table = table.id;
        let change = CatalogChange {
            collections: collections::with_unknown_since(state, table).into_iter().collect(),
            ..CatalogChange::default()
        };
        let begin =
            ProcedureBegin::new(table, vec![TableLock { table, mode: LockMode::Exclusive }]);
        Ok(ProcedureBegin { change, ..begin })
    }

    fn published(&self, _: &Procedure) -> Option<v1::TableChange> {
        Some(v1::TableChange::default())
    }

    fn regions(&self, state: &MetaState, procedure: &Procedure) -> Vec<StepRegion> {
        regions_of(state, procedure.table)
    }

    fn call(&self, _: &MetaState, procedure: &Procedure, at: StepRegion) -> Option<RegionCall> {
        Some(RegionCall::Truncate(v1::TruncateRegionRequest {
            header: None,
            group_id: at.group.get(),
            region_id: at.region.get(),
            step: Some(v1::ProcedureStep { number: procedure.number, step: CHANGE_STEP }),
        }))
    }

    fn completed(&self, _: &MetaState, _: &Procedure) -> Result<AfterStep, CommandError> {
        Ok(AfterStep::End(CatalogChange::default()))
    }

    // Regions that have truncated their rows cannot restore them.
    fn abandoned(&self, _: &MetaState, _: &Procedure) -> Option<AfterStep> {
        None
    }

    fn ends_with_table(&self, _: &Procedure) -> bool {
        true
    }
}
