//! Alteration of a table: every region takes schema and options. The table has them once all regions do.

use bytes::Bytes;
use prost::Message;
use tidewater_common::agreed_limits::CHANGE_STEP;
use tidewater_common::schema::{TableOptions, TableSchema};
use tidewater_proto::v1::{self, LockMode};

use super::kind::{AfterStep, KindFacts, ProcedureBegin, ProcedureKind, RegionCall, StepRegion};
use super::{FIRST_KINDS, active_table, decoded, regions_of};
use crate::catalog::{CatalogChange, MetaState, OutcomeKind, Procedure, Table, TableLock};
use crate::commands::{CommandError, alter_table};

/// Alteration of a table. Its arguments are a [`v1::AlterTableRequest`], its plan is a [`v1::AlterPlan`].
pub(super) struct AlterTable;

impl ProcedureKind for AlterTable {
    fn facts(&self) -> KindFacts {
        KindFacts {
            number: v1::ProcedureKind::Alter as u32,
            name: "alter",
            verb: "altered",
            level: FIRST_KINDS,
            earlier_outcome: Some(OutcomeKind::AlterTable),
        }
    }

    fn begin(&self, state: &MetaState, arguments: Bytes) -> Result<ProcedureBegin, CommandError> {
        let request: v1::AlterTableRequest = decoded(arguments)?;
        let of = active_table(state, &request.name)?;
        let (schema, options) = alter_table::altered(of, &request)?;
        let locks = vec![TableLock { table: of.id, mode: LockMode::Exclusive }];
        Ok(ProcedureBegin { plan: plan(&schema, &options), ..ProcedureBegin::new(of.id, locks) })
    }

    fn published(&self, procedure: &Procedure) -> Option<v1::TableChange> {
        let v1::AlterPlan { schema, options } = decoded(procedure.plan.clone()).ok()?;
        Some(v1::TableChange { schema, options, ..v1::TableChange::default() })
    }

    fn regions(&self, state: &MetaState, procedure: &Procedure) -> Vec<StepRegion> {
        regions_of(state, procedure.table)
    }

    fn call(&self, _: &MetaState, procedure: &Procedure, at: StepRegion) -> Option<RegionCall> {
        let v1::AlterPlan { schema, options } = decoded(procedure.plan.clone()).ok()?;
        Some(RegionCall::Alter(v1::AlterRegionRequest {
            header: None,
            group_id: at.group.get(),
            region_id: at.region.get(),
            schema,
            options,
            step: Some(v1::ProcedureStep { number: procedure.number, step: CHANGE_STEP }),
        }))
    }

    fn completed(
        &self,
        state: &MetaState,
        procedure: &Procedure,
    ) -> Result<AfterStep, CommandError> {
        let id = procedure.table;
        let table = state.table(id).ok_or(CommandError::TableIdNotFound(id))?;
        let (schema, options) = planned(procedure)?;
        let altered = Table { schema, options, ..table.as_ref().clone() };
        Ok(AfterStep::End(CatalogChange { tables: vec![altered], ..CatalogChange::default() }))
    }

    // Regions that have another schema cannot return to the one before.
    fn abandoned(&self, _: &MetaState, _: &Procedure) -> Option<AfterStep> {
        None
    }

    fn ends_with_table(&self, _: &Procedure) -> bool {
        true
    }
}

/// Returns the plan of an alteration.
pub(super) fn plan(schema: &TableSchema, options: &TableOptions) -> Bytes {
    let plan = v1::AlterPlan { schema: Some(schema.into()), options: Some(options.into()) };
    plan.encode_to_vec().into()
}

/// Returns schema and options after the alteration.
fn planned(procedure: &Procedure) -> Result<(TableSchema, TableOptions), CommandError> {
    let plan: v1::AlterPlan = decoded(procedure.plan.clone())?;
    let damaged = || CommandError::Malformed("the plan of an alteration is damaged".to_owned());
    let schema = plan.schema.as_ref().ok_or_else(damaged)?;
    let options = plan.options.as_ref().ok_or_else(damaged)?;
    let schema = TableSchema::try_from(schema).map_err(|_| damaged())?;
    let options = TableOptions::try_from(options).map_err(|_| damaged())?;
    Ok((schema, options))
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::TableId;
    use tidewater_proto::v1::column_change::Change;

    use super::*;
    use crate::commands::procedures::testing::{begin, complete, of, with_tables};
    use crate::commands::testing::{directory, run};

    fn request(number: u64, change: Change) -> v1::AlterTableRequest {
        v1::AlterTableRequest {
            request_id: directory(number),
            name: "t".to_owned(),
            columns: vec![v1::ColumnChange { change: Some(change) }],
            ttl_ms: None,
        }
    }

    fn addition(name: &str) -> Change {
        let (name, r#type) = (name.to_owned(), "int8".to_owned());
        Change::Add(v1::NewColumn { name, r#type, nullable: true, default: None })
    }

    #[test]
    fn altered_schema_takes_effect_when_all_regions_have_it() {
        let mut state = with_tables();
        let alter = request(10, addition("x"));
        run(&mut state, begin(v1::ProcedureKind::Alter, 10, &alter)).unwrap();
        let before = state.table(TableId(1)).unwrap().schema.clone();
        assert!(before.column_named("x").is_none());
        let procedure = of(&state, 10);
        let regions = AlterTable.regions(&state, procedure);
        let Some(RegionCall::Alter(call)) = AlterTable.call(&state, procedure, regions[0]) else {
            panic!("no alteration");
        };
        let published = procedure.published.clone().unwrap();
        assert_eq!((published.number, published.schema), (2, call.schema));
        complete(&mut state, 10);
        let after = &state.table(TableId(1)).unwrap().schema;
        assert_eq!(after.version().get(), before.version().get() + 1);
        assert!(after.column_named("x").is_some());
    }

    #[test]
    fn invalid_alteration_begins_nothing() {
        let mut state = with_tables();
        let before = state.clone();
        let wrong =
            [addition("a"), Change::Drop("nowhere".to_owned()), Change::Drop("a".to_owned())];
        for change in wrong {
            let alter = request(10, change);
            run(&mut state, begin(v1::ProcedureKind::Alter, 10, &alter)).unwrap_err();
            assert_eq!(state, before);
        }
    }

    #[test]
    fn damaged_plan_leaves_the_alteration_running() {
        let mut state = with_tables();
        let alter = request(10, addition("x"));
        run(&mut state, begin(v1::ProcedureKind::Alter, 10, &alter)).unwrap();
        for plan in [&b"\xff\xff"[..], b""] {
            let plan = Bytes::copy_from_slice(plan);
            let damaged = Procedure { plan, ..of(&state, 10).clone() };
            let refused = AlterTable.completed(&state, &damaged);
            assert!(matches!(refused, Err(CommandError::Malformed(_))), "{refused:?}");
        }
    }
}
