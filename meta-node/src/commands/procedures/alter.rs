//! Alteration of a table. All regions check that they can be altered; then each takes schema and options, and the
//! table has them once all regions do. Until then, clients name the version before, which regions continue to
//! serve. The completed check is the point of no return: a region that was altered cannot return to the
//! schema before.

use bytes::Bytes;
use prost::Message;
use tidewater_common::agreed_limits::CHANGE_STEP;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::schema::{TableOptions, TableSchema};
use tidewater_proto::v1::{self, LockMode};

use super::kind::{AfterStep, KindFacts, ProcedureBegin, ProcedureKind, RegionCall, StepRegion};
use super::{FIRST_KINDS, active_table, decoded, regions_of};
use crate::catalog::{CatalogChange, MetaState, OutcomeKind, Procedure, Table, TableLock};
use crate::commands::{CommandError, alter_table};

/// Level from which the regions are checked before the first one is altered.
const CHECKED_FIRST: FeatureLevel = FeatureLevel::new(4);
/// Step in which the regions of an alteration that were checked are altered.
const ALTER_STEP: u32 = 2;

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
        let (schema, options) = alter_table::altered(state, of, &request)?;
        let locks = vec![TableLock { table: of.id, mode: LockMode::Exclusive }];
        let checked_first = state.header().feature_level >= CHECKED_FIRST;
        let plan = plan(&schema, &options, checked_first);
        Ok(ProcedureBegin { plan, ..ProcedureBegin::new(of.id, locks) })
    }

    fn published(&self, procedure: &Procedure) -> Option<v1::TableChange> {
        published_change(procedure)
    }

    fn regions(&self, state: &MetaState, procedure: &Procedure) -> Vec<StepRegion> {
        regions_of(state, procedure.table)
    }

    fn call(&self, _: &MetaState, procedure: &Procedure, at: StepRegion) -> Option<RegionCall> {
        let plan: v1::AlterPlan = decoded(procedure.plan.clone()).ok()?;
        let check_only = is_check(procedure, &plan);
        Some(alter_call(procedure, plan, at, check_only))
    }

    fn completed(
        &self,
        state: &MetaState,
        procedure: &Procedure,
    ) -> Result<AfterStep, CommandError> {
        let id = procedure.table;
        let table = state.table(id).ok_or(CommandError::TableIdNotFound(id))?;
        let plan: v1::AlterPlan = decoded(procedure.plan.clone())?;
        let (schema, options) = planned(&plan)?;
        if is_check(procedure, &plan) {
            return Ok(AfterStep::Step { step: ALTER_STEP, change: CatalogChange::default() });
        }
        let altered = Table { schema, options, ..table.as_ref().clone() };
        Ok(AfterStep::End(CatalogChange { tables: vec![altered], ..CatalogChange::default() }))
    }

    fn abandoned(&self, _: &MetaState, procedure: &Procedure) -> Option<AfterStep> {
        let plan: v1::AlterPlan = decoded(procedure.plan.clone()).ok()?;
        is_check(procedure, &plan).then(|| AfterStep::End(CatalogChange::default()))
    }

    fn ends_with_table(&self, _: &Procedure) -> bool {
        true
    }
}

/// Returns the change of an altered table that data nodes see; `None`: the plan is damaged.
pub(super) fn published_change(procedure: &Procedure) -> Option<v1::TableChange> {
    let v1::AlterPlan { schema, options, .. } = decoded(procedure.plan.clone()).ok()?;
    Some(v1::TableChange { schema, options, ..v1::TableChange::default() })
}

/// Returns the call that alters a region as planned, or that checks whether it can be altered so.
pub(super) fn alter_call(
    procedure: &Procedure,
    plan: v1::AlterPlan,
    at: StepRegion,
    check_only: bool,
) -> RegionCall {
    RegionCall::Alter(v1::AlterRegionRequest {
        header: None,
        group_id: at.group.get(),
        region_id: at.region.get(),
        schema: plan.schema,
        options: plan.options,
        step: Some(v1::ProcedureStep { number: procedure.number, step: CHANGE_STEP }),
        check_only,
    })
}

/// Returns the plan of an alteration.
pub(super) fn plan(schema: &TableSchema, options: &TableOptions, checked_first: bool) -> Bytes {
    let (schema, options) = (Some(schema.into()), Some(options.into()));
    v1::AlterPlan { schema, options, checked_first }.encode_to_vec().into()
}

/// Returns whether the regions are only checked in the procedure's step. Alterations that were begun below level 4
/// have one step, in which they are altered.
fn is_check(procedure: &Procedure, plan: &v1::AlterPlan) -> bool {
    plan.checked_first && procedure.step != ALTER_STEP
}

/// Returns schema and options after the alteration.
pub(super) fn planned(plan: &v1::AlterPlan) -> Result<(TableSchema, TableOptions), CommandError> {
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
    use tidewater_proto::v1::{AbandonCause, ProcedureState};

    use super::*;
    use crate::commands::procedures::testing::{
        abandon, begin, complete, of, state_of, with_tables,
    };
    use crate::commands::testing::{directory, raise_to, run, table, with_groups};

    fn request(number: u64, change: Change) -> v1::AlterTableRequest {
        v1::AlterTableRequest {
            request_id: directory(number),
            name: "t".to_owned(),
            columns: vec![v1::ColumnChange { change: Some(change) }],
            ttl_ms: None,
            compaction_window_ms: None,
            by_node: false,
            explicit_since: false,
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
        let call = |state: &MetaState| {
            let Some(RegionCall::Alter(call)) = AlterTable.call(state, of(state, 10), regions[0])
            else {
                panic!("no alteration");
            };
            call
        };
        let check = call(&state);
        assert!(check.check_only);
        let published = procedure.published.clone().unwrap();
        assert_eq!((published.number, &published.schema), (2, &check.schema));
        complete(&mut state, 10);
        assert_eq!(state_of(&state, 10), (ProcedureState::Running, ALTER_STEP));
        assert!(state.table(TableId(1)).unwrap().schema == before);
        let alter = call(&state);
        assert_eq!(alter, v1::AlterRegionRequest { check_only: false, ..check });
        complete(&mut state, 10);
        assert_eq!(state_of(&state, 10).0, ProcedureState::Completed);
        let after = &state.table(TableId(1)).unwrap().schema;
        assert_eq!(after.version().get(), before.version().get() + 1);
        assert!(after.column_named("x").is_some());
    }

    #[test]
    fn alteration_is_cancelled_until_its_check_is_completed() {
        let mut state = with_tables();
        let before = state.table(TableId(1)).unwrap().schema.clone();
        run(&mut state, begin(v1::ProcedureKind::Alter, 10, &request(10, addition("x")))).unwrap();
        let cancel = abandon(&state, 10, AbandonCause::Operator);
        run(&mut state, cancel).unwrap();
        assert_eq!(state_of(&state, 10).0, ProcedureState::Abandoned);
        assert_eq!(state.table(TableId(1)).unwrap().schema, before);
        run(&mut state, begin(v1::ProcedureKind::Alter, 11, &request(11, addition("y")))).unwrap();
        complete(&mut state, 11);
        let cancel = abandon(&state, 11, AbandonCause::Operator);
        let refused = run(&mut state, cancel);
        assert!(matches!(refused, Err(CommandError::NotAbandonable { .. })), "{refused:?}");
        complete(&mut state, 11);
        assert!(state.table(TableId(1)).unwrap().schema.column_named("y").is_some());
    }

    #[test]
    fn alteration_below_level_4_has_one_step() {
        let mut state = with_groups(1, 1);
        raise_to(&mut state, FIRST_KINDS);
        run(&mut state, begin(v1::ProcedureKind::Create, 1, &table(1, "t"))).unwrap();
        complete(&mut state, 1);
        run(&mut state, begin(v1::ProcedureKind::Alter, 10, &request(10, addition("x")))).unwrap();
        // Its steps stay the same when the level is raised.
        raise_to(&mut state, CHECKED_FIRST);
        let procedure = of(&state, 10);
        let regions = AlterTable.regions(&state, procedure);
        let call = AlterTable.call(&state, procedure, regions[0]);
        assert!(matches!(call, Some(RegionCall::Alter(call)) if !call.check_only));
        assert!(AlterTable.abandoned(&state, procedure).is_none());
        complete(&mut state, 10);
        assert_eq!(state_of(&state, 10).0, ProcedureState::Completed);
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
