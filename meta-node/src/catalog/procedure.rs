//! Procedures: operations of several steps, as records of the state.

use std::collections::BTreeSet;

use bytes::Bytes;
use tidewater_common::ids::{GroupId, RegionId, TableId};
use tidewater_proto::v1::{self, AbandonCause, LockMode, ProcedureState};
use uuid::Uuid;

use super::CatalogError;
use super::records::{invalid, known};

/// An operation of several steps, running or ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Procedure {
    /// Request id of the call that began it.
    pub id: Uuid,
    /// Number of its kind, which a later release may have begun.
    pub kind: u32,
    /// Message of the kind; empty once the procedure has ended.
    pub arguments: Bytes,
    /// crc32c of the arguments.
    pub arguments_checksum: u32,
    /// Tables that it locks while it runs.
    pub locks: Vec<TableLock>,
    /// Routes that it locks while it runs.
    pub routes: Vec<RegionId>,
    /// Number of the change of its table.
    pub number: u64,
    /// Step, from 1.
    pub step: u32,
    /// Running, being abandoned or ended; never unspecified.
    pub state: ProcedureState,
    /// Cause of its abandonment; unspecified: it is not abandoned.
    pub cause: AbandonCause,
    /// Regions that have completed their part of the step.
    pub done: BTreeSet<RegionId>,
    /// Last failure of the step.
    pub failure: Option<ProcedureFailure>,
    /// Replicated time of its begin, milliseconds since the Unix epoch.
    pub begun_ms: u64,
    /// Replicated time of the begin of its step, milliseconds since the Unix epoch.
    pub step_begun_ms: u64,
    /// Replicated time at which it is abandoned.
    pub deadline_ms: Option<u64>,
    /// Replicated time of its end.
    pub ended_ms: Option<u64>,
    /// Message of the kind: the decisions of its steps.
    pub plan: Bytes,
    /// Change of its table that data nodes see: they carry out the calls of a step only then.
    pub published: Option<v1::TableChange>,
    /// Change of a route that data nodes see at its step.
    pub published_route: Option<v1::RouteChange>,
    /// Its table.
    pub table: TableId,
    /// Name of its table at its begin.
    pub table_name: String,
}

/// Lock on a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableLock {
    /// The table.
    pub table: TableId,
    /// Operations that it excludes; never unspecified.
    pub mode: LockMode,
}

/// Failure of the attempts on a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcedureFailure {
    /// Number of the reason, which a later release may have given.
    pub reason: i32,
    /// Text for the operator.
    pub message: String,
    /// Replicated time of the first attempt that failed with the reason, milliseconds since the Unix epoch.
    pub since_ms: u64,
}

impl Procedure {
    /// Returns whether it holds its locks.
    pub fn is_running(&self) -> bool {
        matches!(self.state, ProcedureState::Running | ProcedureState::Abandoning)
    }

    /// The group that is about to receive a region.
    pub fn receiver(&self) -> Option<GroupId> {
        let target = self.published_route.as_ref()?.target_group_id;
        (target != 0).then_some(GroupId(target))
    }

    /// Returns the procedure at its end. Its arguments and its plan are no longer needed; its last failure stays
    /// unless it is completed.
    #[must_use]
    pub fn ended(&self, state: ProcedureState, now_ms: u64) -> Self {
        let failure = self.failure.clone().filter(|_| state != ProcedureState::Completed);
        Self {
            state,
            ended_ms: Some(now_ms),
            arguments: Bytes::new(),
            plan: Bytes::new(),
            done: BTreeSet::new(),
            failure,
            published: None,
            published_route: None,
            ..self.clone()
        }
    }
}

impl From<&Procedure> for v1::ProcedureRecord {
    fn from(procedure: &Procedure) -> Self {
        let lock =
            |lock: &TableLock| v1::TableLock { table_id: lock.table.get(), mode: lock.mode.into() };
        let failure = procedure.failure.as_ref();
        Self {
            id: Bytes::copy_from_slice(procedure.id.as_bytes()),
            kind: procedure.kind,
            arguments: procedure.arguments.clone(),
            arguments_checksum: procedure.arguments_checksum,
            tables: procedure.locks.iter().map(lock).collect(),
            routes: procedure.routes.iter().map(|route| route.get()).collect(),
            number: procedure.number,
            step: procedure.step,
            state: procedure.state.into(),
            cause: procedure.cause.into(),
            done_regions: procedure.done.iter().map(|region| region.get()).collect(),
            failure: failure.map(|failure| v1::ProcedureFailure {
                reason: failure.reason,
                message: failure.message.clone(),
                since_ms: failure.since_ms,
            }),
            begun_ms: procedure.begun_ms,
            step_begun_ms: procedure.step_begun_ms,
            deadline_ms: procedure.deadline_ms.unwrap_or(0),
            ended_ms: procedure.ended_ms.unwrap_or(0),
            plan: procedure.plan.clone(),
            published: procedure.published.clone(),
            published_route: procedure.published_route.clone(),
            table_id: procedure.table.get(),
            table_name: procedure.table_name.clone(),
        }
    }
}

impl TryFrom<v1::ProcedureRecord> for Procedure {
    type Error = CatalogError;

    fn try_from(stored: v1::ProcedureRecord) -> Result<Self, CatalogError> {
        let id = Uuid::from_slice(&stored.id)
            .map_err(|_| invalid("procedure", "its id is not a UUID"))?;
        if stored.kind == 0 || stored.step == 0 {
            return Err(invalid("procedure", "it has no kind or no step"));
        }
        let lock = |lock: &v1::TableLock| -> Result<TableLock, CatalogError> {
            let mode = known(LockMode::try_from(lock.mode), LockMode::Unspecified, "procedure")?;
            Ok(TableLock { table: TableId(lock.table_id), mode })
        };
        let some = |time_ms: u64| (time_ms != 0).then_some(time_ms);
        let procedure = Self {
            id,
            kind: stored.kind,
            arguments: stored.arguments,
            arguments_checksum: stored.arguments_checksum,
            locks: stored.tables.iter().map(lock).collect::<Result<_, _>>()?,
            routes: stored.routes.into_iter().map(RegionId).collect(),
            number: stored.number,
            step: stored.step,
            state: known(
                ProcedureState::try_from(stored.state),
                ProcedureState::Unspecified,
                "procedure",
            )?,
            cause: AbandonCause::try_from(stored.cause)
                .map_err(|_| invalid("procedure", "the cause of its end is unknown"))?,
            done: stored.done_regions.into_iter().map(RegionId).collect(),
            failure: stored.failure.map(|failure| ProcedureFailure {
                reason: failure.reason,
                message: failure.message,
                since_ms: failure.since_ms,
            }),
            begun_ms: stored.begun_ms,
            step_begun_ms: stored.step_begun_ms,
            deadline_ms: some(stored.deadline_ms),
            ended_ms: some(stored.ended_ms),
            plan: stored.plan,
            published: stored.published,
            published_route: stored.published_route,
            table: TableId(stored.table_id),
            table_name: stored.table_name,
        };
        if procedure.is_running() == procedure.ended_ms.is_some() {
            return Err(invalid("procedure", "its state and the time of its end contradict"));
        }
        Ok(procedure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{codec, keys};
    use crate::commands::testing::hex;

    fn running() -> Procedure {
        Procedure {
            id: Uuid::from_u128(7),
            kind: 99,
            arguments: Bytes::from_static(b"later"),
            arguments_checksum: 0x0102_0304,
            locks: vec![TableLock { table: TableId(3), mode: LockMode::Source }],
            routes: vec![RegionId(300)],
            number: 4,
            step: 2,
            state: ProcedureState::Running,
            cause: AbandonCause::Unspecified,
            done: [RegionId(5), RegionId(6)].into(),
            failure: Some(ProcedureFailure {
                reason: 20,
                message: "no leader".to_owned(),
                since_ms: 1_000,
            }),
            begun_ms: 900,
            step_begun_ms: 950,
            deadline_ms: Some(9_000),
            ended_ms: None,
            plan: Bytes::from_static(b"plan"),
            published: Some(v1::TableChange { number: 4, ..v1::TableChange::default() }),
            published_route: Some(v1::RouteChange { number: 4, ..v1::RouteChange::default() }),
            table: TableId(3),
            table_name: "t".to_owned(),
        }
    }

    #[test]
    fn stored_procedure_bytes_are_frozen() {
        let running = running();
        let ended = running.ended(ProcedureState::Completed, 2_000);
        assert_eq!(
            keys::procedure(running.id),
            [b"meta/procedure/".as_slice(), running.id.as_bytes()].concat()
        );
        for (procedure, golden) in [(running, RUNNING), (ended, ENDED)] {
            let stored = codec::encode_message(&v1::ProcedureRecord::from(&procedure));
            assert_eq!(hex(&stored), golden);
            let read = codec::decode_message::<v1::ProcedureRecord>("procedure", &stored).unwrap();
            assert_eq!(Procedure::try_from(read).unwrap(), procedure);
        }
    }

    const RUNNING: &str = "01be82fb8f0a100000000000000000000000000000000710631a056c6174657225040302012a04080310023202ac02380440024801520205065a10081412096e6f206c656164657218e80760840768a8467a04706c616e8001038a01017492010208049801b607aa01020804";
    const ENDED: &str = "01f88531250a1000000000000000000000000000000007106325040302012a04080310023202ac0238044002480360840768a84670d00f8001038a0101749801b607";

    #[test]
    fn contradicting_records_are_invalid() {
        let good = || v1::ProcedureRecord::from(&running());
        let lock = v1::TableLock { table_id: 3, mode: 9 };
        let cases = [
            v1::ProcedureRecord { id: Bytes::from_static(b"short"), ..good() },
            v1::ProcedureRecord { kind: 0, ..good() },
            v1::ProcedureRecord { step: 0, ..good() },
            v1::ProcedureRecord { state: 0, ..good() },
            v1::ProcedureRecord { state: 77, ..good() },
            v1::ProcedureRecord { ended_ms: 5, ..good() },
            v1::ProcedureRecord { state: ProcedureState::Abandoned.into(), ..good() },
            v1::ProcedureRecord { tables: vec![lock], ..good() },
            v1::ProcedureRecord { cause: 77, ..good() },
        ];
        for case in cases {
            let problem = Procedure::try_from(case.clone()).unwrap_err();
            assert!(matches!(problem, CatalogError::InvalidRecord { .. }), "{case:?}");
        }
    }
}
