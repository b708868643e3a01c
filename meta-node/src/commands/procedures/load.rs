//! Atomic load: a staging area is opened in every region, the loader stages files, and all regions publish or
//! abandon their areas. The command that completes the staging is the point of no return. Until then, the load is
//! abandoned at its loader's request, or when its loader sends no call before the deadline.

use bytes::Bytes;
use prost::Message;
use tidewater_common::agreed_limits::{LOAD_CLOSE_STEP, LOAD_OPEN_STEP};
use tidewater_proto::v1::{self, LockMode, ProcedureState};

use super::kind::{AfterStep, KindFacts, ProcedureBegin, ProcedureKind, RegionCall, StepRegion};
use super::{FIRST_KINDS, active_table, decoded, regions_of};
use crate::catalog::{CatalogChange, MetaState, OutcomeKind, Procedure, TableLock};
use crate::commands::loads::{MAX_DURATION_MS, timeout_ms};
use crate::commands::{CommandError, refreshes};

/// Steps of a load.
pub(crate) mod steps {
    /// Every region opens a staging area.
    pub(crate) const OPEN: u32 = 1;
    /// The loader stages files.
    pub(crate) const STAGE: u32 = 2;
    /// Every region publishes its area.
    pub(crate) const PUBLISH: u32 = 3;
    /// Every region abandons its area.
    pub(crate) const ABANDON: u32 = 10;
}

/// Atomic load of a table. Its arguments are a [`v1::BeginLoadRequest`], its plan is a [`v1::LoadPlan`].
pub(super) struct LoadTable;

impl ProcedureKind for LoadTable {
    fn facts(&self) -> KindFacts {
        KindFacts {
            number: v1::ProcedureKind::Load as u32,
            name: "load",
            verb: "loaded",
            level: FIRST_KINDS,
            earlier_outcome: Some(OutcomeKind::BeginLoad),
        }
    }

    // Each repetition of a loader may name another timeout.
    fn identity(&self, arguments: &Bytes) -> Result<Bytes, CommandError> {
        let request: v1::BeginLoadRequest = decoded(arguments.clone())?;
        Ok(v1::BeginLoadRequest { timeout_ms: 0, ..request }.encode_to_vec().into())
    }

    fn begin(&self, state: &MetaState, arguments: Bytes) -> Result<ProcedureBegin, CommandError> {
        let request: v1::BeginLoadRequest = decoded(arguments)?;
        let table = active_table(state, &request.name)?;
        refreshes::check_written_by_clients(state, table, "loaded")?;
        let table = table.id;
        let now_ms = state.header().time_ms;
        let latest_ms = now_ms.saturating_add(MAX_DURATION_MS);
        let locks = vec![TableLock { table, mode: LockMode::Exclusive }];
        Ok(ProcedureBegin {
            deadline_ms: Some(now_ms.saturating_add(timeout_ms(&request))),
            plan: plan(latest_ms),
            ..ProcedureBegin::new(table, locks)
        })
    }

    /// Extends the deadline of a load in progress.
    fn repeated(
        &self,
        state: &MetaState,
        procedure: &Procedure,
        arguments: Bytes,
    ) -> Result<Option<Procedure>, CommandError> {
        let Some(deadline_ms) = procedure.deadline_ms else { return Ok(None) };
        let request: v1::BeginLoadRequest = decoded(arguments)?;
        let latest_ms = latest_ms(procedure)?.max(deadline_ms);
        let extended_ms = state.header().time_ms.saturating_add(timeout_ms(&request));
        let deadline_ms = Some(extended_ms.clamp(deadline_ms, latest_ms));
        Ok(Some(Procedure { deadline_ms, ..procedure.clone() }))
    }

    fn published(&self, procedure: &Procedure) -> Option<v1::TableChange> {
        Some(v1::TableChange {
            load_area: area(procedure),
            load_publishing: procedure.step == steps::PUBLISH,
            load_abandoning: procedure.step == steps::ABANDON,
            ..v1::TableChange::default()
        })
    }

    fn regions(&self, state: &MetaState, procedure: &Procedure) -> Vec<StepRegion> {
        if self.is_waiting(procedure) { Vec::new() } else { regions_of(state, procedure.table) }
    }

    fn call(&self, _: &MetaState, procedure: &Procedure, at: StepRegion) -> Option<RegionCall> {
        let step = |step| Some(v1::ProcedureStep { number: procedure.number, step });
        let (group_id, region_id) = (at.group.get(), at.region.get());
        match procedure.step {
            steps::OPEN => Some(RegionCall::OpenArea(v1::OpenAreaRequest {
                header: None,
                group_id,
                region_id,
                area_id: area(procedure),
                deadline_ms: latest_ms(procedure).ok()?,
                step: step(LOAD_OPEN_STEP),
            })),
            steps::PUBLISH | steps::ABANDON => Some(RegionCall::CloseArea(v1::CloseAreaRequest {
                header: None,
                group_id,
                region_id,
                area_id: area(procedure),
                publish: procedure.step == steps::PUBLISH,
                step: step(LOAD_CLOSE_STEP),
                ..v1::CloseAreaRequest::default()
            })),
            _ => None,
        }
    }

    fn is_waiting(&self, procedure: &Procedure) -> bool {
        procedure.step == steps::STAGE
    }

    fn completed(&self, _: &MetaState, procedure: &Procedure) -> Result<AfterStep, CommandError> {
        let change = CatalogChange::default();
        Ok(match procedure.step {
            steps::OPEN => AfterStep::Step { step: steps::STAGE, change },
            steps::STAGE => AfterStep::Step { step: steps::PUBLISH, change },
            _ => AfterStep::End(change),
        })
    }

    fn abandoned(&self, _: &MetaState, procedure: &Procedure) -> Option<AfterStep> {
        let is_pending = matches!(procedure.step, steps::OPEN | steps::STAGE);
        let change = CatalogChange::default();
        is_pending.then_some(AfterStep::Step { step: steps::ABANDON, change })
    }

    // After the point of no return, all regions must publish, so that no region shows a load that others do not.
    fn ends_with_table(&self, procedure: &Procedure) -> bool {
        procedure.state == ProcedureState::Abandoning || procedure.step != steps::PUBLISH
    }
}

/// Id of the staging areas: that of the request.
fn area(procedure: &Procedure) -> Bytes {
    Bytes::copy_from_slice(procedure.id.as_bytes())
}

/// Returns the plan of a load: the limit of extensions of its deadline.
pub(super) fn plan(latest_ms: u64) -> Bytes {
    v1::LoadPlan { latest_ms }.encode_to_vec().into()
}

fn latest_ms(procedure: &Procedure) -> Result<u64, CommandError> {
    Ok(decoded::<v1::LoadPlan>(procedure.plan.clone())?.latest_ms)
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::TableId;
    use tidewater_proto::v1::AbandonCause;
    use tidewater_proto::v1::meta_command::Kind;

    use super::*;
    use crate::commands::procedures::testing::{
        abandon, begin, complete, of, report, state_of, with_tables,
    };
    use crate::commands::testing::{directory, drop_table, pass, run};

    fn load(number: u64, timeout_ms: u64) -> Kind {
        let request =
            v1::BeginLoadRequest { request_id: directory(number), name: "t".into(), timeout_ms };
        begin(v1::ProcedureKind::Load, number, &request)
    }

    fn call(state: &MetaState) -> Option<RegionCall> {
        let procedure = of(state, 10);
        let at = regions_of(state, procedure.table)[0];
        LoadTable.call(state, procedure, at)
    }

    /// The change of the table that data nodes see.
    fn published(state: &MetaState) -> Option<v1::TableChange> {
        let mut tables = [v1::Table::from(state.table(TableId(1)).unwrap().as_ref())];
        state.publish_changes(&mut tables);
        tables[0].change.clone()
    }

    #[test]
    fn load_is_opened_staged_and_published() {
        let mut state = with_tables();
        run(&mut state, load(10, 0)).unwrap();
        let Some(RegionCall::OpenArea(open)) = call(&state) else { panic!("no opening") };
        let step = Some(v1::ProcedureStep { number: 2, step: LOAD_OPEN_STEP });
        assert_eq!((open.area_id, open.step), (area(of(&state, 10)), step));
        assert_eq!(published(&state).unwrap().load_area, area(of(&state, 10)));
        let revision = state.header().revision;
        complete(&mut state, 10);
        assert!(state.header().revision > revision, "the loader's call sees the step");
        assert_eq!(state_of(&state, 10), (ProcedureState::Running, steps::STAGE));
        assert!(LoadTable.is_waiting(of(&state, 10)) && call(&state).is_none());
        let unasked = v1::AdvanceProcedure { completed: true, ..report(&state, 10) };
        let refused = run(&mut state, Kind::AdvanceProcedure(unasked));
        assert!(matches!(refused, Err(CommandError::NotRequested(_))), "{refused:?}");
        complete(&mut state, 10);
        let Some(RegionCall::CloseArea(close)) = call(&state) else { panic!("no publication") };
        assert!(close.publish && published(&state).unwrap().load_publishing);
        // After the point of no return, the load cannot be abandoned, and its table cannot be dropped.
        for cause in [AbandonCause::Operator, AbandonCause::Deadline] {
            let late = abandon(&state, 10, cause);
            assert!(run(&mut state, late).is_err());
        }
        assert!(run(&mut state, drop_table(11, "t")).is_err());
        complete(&mut state, 10);
        assert_eq!(state_of(&state, 10).0, ProcedureState::Completed);
        assert_eq!(published(&state), None);
    }

    #[test]
    fn load_is_abandoned_on_request_or_at_its_deadline() {
        let mut state = with_tables();
        run(&mut state, load(10, 5_000)).unwrap();
        complete(&mut state, 10);
        pass(&mut state, 4);
        // A repeated request extends the deadline, also with another timeout, and nothing is published.
        let revision = state.header().revision;
        run(&mut state, load(10, 5_500)).unwrap();
        assert_eq!(state.header().revision, revision);
        pass(&mut state, 5);
        let overdue = abandon(&state, 10, AbandonCause::Deadline);
        assert!(run(&mut state, overdue.clone()).is_err());
        pass(&mut state, 1);
        run(&mut state, overdue).unwrap();
        assert_eq!(state_of(&state, 10), (ProcedureState::Abandoning, steps::ABANDON));
        let Some(RegionCall::CloseArea(close)) = call(&state) else { panic!("no abandonment") };
        assert!(!close.publish && published(&state).unwrap().load_abandoning);
        complete(&mut state, 10);
        assert_eq!(state_of(&state, 10).0, ProcedureState::Abandoned);
        // A repeated request does not begin it again.
        run(&mut state, load(10, 5_000)).unwrap();
        assert_eq!(state_of(&state, 10).0, ProcedureState::Abandoned);

        run(&mut state, load(11, 0)).unwrap();
        let cancel = abandon(&state, 11, AbandonCause::Operator);
        run(&mut state, cancel).unwrap();
        assert_eq!(state_of(&state, 11), (ProcedureState::Abandoning, steps::ABANDON));
        run(&mut state, drop_table(12, "t")).unwrap();
    }

    #[test]
    fn load_deadline_has_an_upper_limit() {
        let mut state = with_tables();
        run(&mut state, load(10, u64::MAX)).unwrap();
        let latest_ms = latest_ms(of(&state, 10)).unwrap();
        assert_eq!(latest_ms, state.header().time_ms + MAX_DURATION_MS);
        pass(&mut state, 10);
        run(&mut state, load(10, u64::MAX)).unwrap();
        assert_eq!(of(&state, 10).deadline_ms, Some(latest_ms));
    }
}
