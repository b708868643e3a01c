//! Refresh of a table: every region opens a staging area, the leader has the source loaded into it, every region merges it,
//! one command publishes the epoch of all regions, and every region abandons its area.
//!
//! Until the publication, a refresh can be abandoned: the table is read as of the epoch before, whatever the regions have
//! merged, and the next refresh compares the source with the rows that they then have.

use bytes::Bytes;
use prost::Message;
use tidewater_common::agreed_limits::{LOAD_CLOSE_STEP, LOAD_OPEN_STEP};
use tidewater_common::ids::{Epoch, SourceId, TableId};
use tidewater_proto::v1::{self, LockMode, ProcedureState, Reason, RefreshRun, RefreshTrigger};
use uuid::Uuid;

use super::kind::{AfterStep, KindFacts, ProcedureBegin, ProcedureKind, RegionCall, StepRegion};
use super::{active_table_by_id, decoded, regions_of};
use crate::catalog::{CatalogChange, MetaState, Procedure, Refreshes, Table, TableLock};
use crate::commands::refreshes::{self, REFRESH_LEVEL};
use crate::commands::{CommandError, RefreshCommandError};

/// Steps of a refresh.
pub(crate) mod steps {
    /// Every region opens a staging area.
    pub(crate) const OPEN: u32 = 1;
    /// The leader has the source loaded.
    pub(crate) const LOAD: u32 = 2;
    /// Every region merges its area.
    pub(crate) const MERGE: u32 = 3;
    /// The leader waits until all groups have completed an epoch after the merge.
    pub(crate) const PUBLISH: u32 = 4;
    /// Every region abandons its area.
    pub(crate) const CLEANUP: u32 = 5;
    /// Every region abandons its area, and nothing is published.
    pub(crate) const ABANDON: u32 = 10;
}

/// Time that a region keeps an open area, in milliseconds: longer than any refresh.
const AREA_KEPT_MS: u64 = 7 * 24 * 3_600_000;

/// Refresh of a table. Its arguments are a [`v1::RefreshRequest`], its plan is a [`v1::RefreshPlan`].
pub(super) struct RefreshTable;

impl ProcedureKind for RefreshTable {
    fn facts(&self) -> KindFacts {
        KindFacts {
            number: v1::ProcedureKind::Refresh as u32,
            name: "refresh",
            verb: "refreshed",
            level: REFRESH_LEVEL,
            earlier_outcome: None,
        }
    }

    fn begin(&self, state: &MetaState, arguments: Bytes) -> Result<ProcedureBegin, CommandError> {
        let request: v1::RefreshRequest = decoded(arguments)?;
        let id = TableId(request.table_id);
        let named = SourceId(request.associated_source_id);
        let (_, before) = refreshes::validate_refreshable_table(state, id, named)?;
        let table = active_table_by_id(state, id)?;
        if table.dropped.is_some() {
            return Err(CommandError::TableIdNotFound(id));
        }
        if before.paused {
            return Err(RefreshCommandError::Paused(table.name.clone()).into());
        }
        let id = Uuid::parse_str(&request.request_id)
            .map_err(|_| CommandError::Malformed("the id of a refresh is no UUID".to_owned()))?;
        let begun = refreshes::begun(state, before, &request, id)?;
        let plan = v1::RefreshPlan {
            generation: begun.generation.get(),
            source_id: begun.source.get(),
            force: request.force,
            ..v1::RefreshPlan::default()
        };
        let deadline_ms = Some(refreshes::deadline_ms(state, &begun.settings));
        let locks = vec![TableLock { table: table.id, mode: LockMode::Exclusive }];
        Ok(ProcedureBegin {
            deadline_ms,
            plan: plan.encode_to_vec().into(),
            change: CatalogChange {
                procedure_deletes: replaced(state, before).into_iter().collect(),
                ..with(begun)
            },
            ..ProcedureBegin::new(table.id, locks)
        })
    }

    fn published(&self, procedure: &Procedure) -> Option<v1::TableChange> {
        Some(v1::TableChange {
            load_area: area(procedure),
            load_merging: matches!(procedure.step, steps::MERGE | steps::PUBLISH),
            load_abandoning: matches!(procedure.step, steps::CLEANUP | steps::ABANDON),
            is_refresh: true,
            ..v1::TableChange::default()
        })
    }

    fn regions(&self, state: &MetaState, procedure: &Procedure) -> Vec<StepRegion> {
        if self.is_waiting(procedure) { Vec::new() } else { regions_of(state, procedure.table) }
    }

    fn call(&self, _: &MetaState, procedure: &Procedure, at: StepRegion) -> Option<RegionCall> {
        let step = |step| Some(v1::ProcedureStep { number: procedure.number, step });
        let (group_id, region_id, area_id) = (at.group.get(), at.region.get(), area(procedure));
        let plan = plan(procedure).ok()?;
        match procedure.step {
            steps::OPEN => Some(RegionCall::OpenArea(v1::OpenAreaRequest {
                header: None,
                group_id,
                region_id,
                area_id,
                deadline_ms: procedure.begun_ms.saturating_add(AREA_KEPT_MS),
                step: step(LOAD_OPEN_STEP),
            })),
            steps::MERGE => Some(RegionCall::MergeStaged(v1::MergeRegionRequest {
                header: None,
                group_id,
                region_id,
                area_id,
                observe: false,
            })),
            steps::CLEANUP | steps::ABANDON => Some(RegionCall::CloseArea(v1::CloseAreaRequest {
                header: None,
                group_id,
                region_id,
                area_id,
                publish: false,
                step: step(LOAD_CLOSE_STEP),
                // 0 in a refresh that is abandoned.
                published_epoch: plan.epoch,
                previous_until: plan.previous_until,
            })),
            _ => None,
        }
    }

    fn is_waiting(&self, procedure: &Procedure) -> bool {
        matches!(procedure.step, steps::LOAD | steps::PUBLISH)
    }

    fn takes_long(&self, procedure: &Procedure) -> bool {
        procedure.step == steps::MERGE
    }

    fn cannot_succeed(&self, procedure: &Procedure, reason: Reason) -> bool {
        // The staged rows are wrong, or lost.
        procedure.step == steps::MERGE
            && matches!(
                reason,
                Reason::SourceMismatch
                    | Reason::InvalidArgument
                    | Reason::Unsupported
                    | Reason::Corrupt
                    | Reason::FileDamaged
            )
    }

    fn completed(
        &self,
        state: &MetaState,
        procedure: &Procedure,
    ) -> Result<AfterStep, CommandError> {
        let refreshes = refreshes_of(state, procedure)?;
        let to = |step| AfterStep::Step { step, change: CatalogChange::default() };
        Ok(match procedure.step {
            steps::OPEN => to(steps::LOAD),
            steps::MERGE => to(steps::PUBLISH),
            steps::CLEANUP => AfterStep::End(with(refreshes::published(state, refreshes))),
            steps::ABANDON => {
                AfterStep::End(with(refreshes::abandoned(state, refreshes, procedure)))
            }
            // They are completed by a request.
            _ => return Err(CommandError::NotRequested(procedure.id)),
        })
    }

    fn requested(
        &self,
        state: &MetaState,
        procedure: &Procedure,
        result: &Bytes,
    ) -> Result<(AfterStep, Option<Bytes>), CommandError> {
        let result: v1::RefreshStepResult = decoded(result.clone())?;
        let before = refreshes_of(state, procedure)?;
        let plan = plan(procedure)?;
        let run = before.current.clone().unwrap_or_default();
        if procedure.step == steps::LOAD {
            refreshes::guard(before, result.source_rows, plan.force)?;
            let run = RefreshRun {
                snapshot: result.snapshot.chars().take(MAX_SNAPSHOT).collect(),
                source_rows: result.source_rows,
                ..run
            };
            let change = with(Refreshes { current: Some(run), ..before.clone() });
            return Ok((AfterStep::Step { step: steps::MERGE, change }, None));
        }
        let id = procedure.table;
        let table = state.table(id).ok_or(CommandError::TableIdNotFound(id))?;
        let epoch = Epoch(result.epoch);
        check_publication(table, epoch)?;
        let run = RefreshRun { counts: result.counts, published_epoch: result.epoch, ..run };
        let change = CatalogChange {
            tables: vec![Table { published: epoch, ..table.as_ref().clone() }],
            ..with(Refreshes { current: Some(run), ..before.clone() })
        };
        let plan =
            v1::RefreshPlan { epoch: result.epoch, previous_until: result.previous_until, ..plan };
        let plan = Some(plan.encode_to_vec().into());
        Ok((AfterStep::Step { step: steps::CLEANUP, change }, plan))
    }

    fn abandoned(&self, state: &MetaState, procedure: &Procedure) -> Option<AfterStep> {
        let is_published = matches!(procedure.step, steps::CLEANUP | steps::ABANDON);
        if is_published {
            return None;
        }
        let mut change = CatalogChange::default();
        if let Some(refreshes) = state.refreshes_of(procedure.table) {
            let mut refreshes = refreshes.as_ref().clone();
            if let (Some(run), Some(failure)) = (&mut refreshes.current, &procedure.failure) {
                run.error_reason = failure.reason;
                run.error.clone_from(&failure.message);
            }
            change = with(refreshes);
        }
        Some(AfterStep::Step { step: steps::ABANDON, change })
    }

    fn change_when_superseded(&self, state: &MetaState, procedure: &Procedure) -> CatalogChange {
        let Some(refreshes) = state.refreshes_of(procedure.table) else {
            return CatalogChange::default();
        };
        with(match procedure.step {
            steps::CLEANUP => refreshes::published(state, refreshes),
            _ => refreshes::abandoned(state, refreshes, procedure),
        })
    }

    fn ends_with_table(&self, _: &Procedure) -> bool {
        true
    }
}

/// Returns the procedure of the last refresh, if it has begun by itself: its record is of no use any more, since no caller
/// repeats its request. Refreshes on short intervals would fill the records of procedures.
fn replaced(state: &MetaState, refreshes: &Refreshes) -> Option<Uuid> {
    let last = refreshes.history.first().filter(|run| run.trigger() != RefreshTrigger::Manual)?;
    let id = Uuid::from_slice(&last.request_id).ok()?;
    let ended = state.procedures().get(id).filter(|procedure| procedure.ended_ms.is_some())?;
    Some(ended.id)
}

/// Longest text about the content of a source, in characters.
const MAX_SNAPSHOT: usize = 200;

/// Checks an epoch at which a refreshable table is published: after the ones as of which it can be read already, or the published
/// one again, since no row has changed.
fn check_publication(table: &Table, epoch: Epoch) -> Result<(), CommandError> {
    if epoch < table.published || epoch == Epoch(0) {
        let text = format!("epoch {epoch} is before the published one, {}", table.published);
        return Err(CommandError::Malformed(text));
    }
    if is_after_complete(table, epoch) {
        return Ok(());
    }
    // A hold was acquired after the leader has chosen the epoch: it chooses another one.
    let (name, complete) = (table.name.clone(), table.complete);
    Err(RefreshCommandError::EpochComplete { table: name, epoch, complete }.into())
}

/// Returns whether a refreshable table can be published at an epoch: no reader has seen it as of that epoch.
pub(crate) fn is_after_complete(table: &Table, epoch: Epoch) -> bool {
    epoch == table.published || epoch > table.complete_through()
}

/// Id of the staging areas: that of the procedure.
pub(crate) fn area(procedure: &Procedure) -> Bytes {
    Bytes::copy_from_slice(procedure.id.as_bytes())
}

/// Returns the plan of a refresh.
pub(crate) fn plan(procedure: &Procedure) -> Result<v1::RefreshPlan, CommandError> {
    decoded(procedure.plan.clone())
}

/// Returns the refresh of a table that is in progress.
pub(crate) fn running_of(state: &MetaState, table: TableId) -> Option<&Procedure> {
    let of_table = state.procedures().of_table(table).map(AsRef::as_ref);
    of_table.into_iter().find(|procedure: &&Procedure| is_refresh(procedure))
}

/// Returns whether a procedure is a refresh in progress.
pub(crate) fn is_refresh(procedure: &Procedure) -> bool {
    procedure.kind == v1::ProcedureKind::Refresh as u32 && procedure.is_running()
}

/// Returns whether a procedure is a refresh at this step that is not abandoned.
pub(crate) fn is_refresh_at(procedure: &Procedure, step: u32) -> bool {
    is_refresh(procedure) && procedure.state == ProcedureState::Running && procedure.step == step
}

fn refreshes_of<'a>(
    state: &'a MetaState,
    procedure: &Procedure,
) -> Result<&'a Refreshes, CommandError> {
    let of_table = state.refreshes_of(procedure.table).map(AsRef::as_ref);
    of_table.ok_or(CommandError::TableIdNotFound(procedure.table))
}

fn with(refreshes: Refreshes) -> CatalogChange {
    CatalogChange { refreshes: vec![refreshes], ..CatalogChange::default() }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
