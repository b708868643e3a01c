//! Conversion of engine errors to RPC errors.

use std::time::Duration;

use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;

use super::EngineError;
use crate::compaction::{OpenError, PlanError};
use crate::manifest::Void;
use crate::storage::StorageError;

/// Retry hint while a manifest is read: the typical duration of a read.
const LOADING: Duration = Duration::from_millis(200);
/// Retry hint while the leader changes.
const ELECTION: Duration = Duration::from_millis(300);
/// Retry hint while a region is sealed: the typical duration of a split or a merge.
const SEALED: Duration = Duration::from_millis(500);
/// Retry hint while an outcome is unknown or the manifest changes too fast.
const RESOLVING: Duration = Duration::from_millis(500);
/// Retry hint while another node becomes the leader in place of one whose clock differs.
const CLOCK: Duration = Duration::from_secs(2);
/// Retry hint while the object store fails.
const STORE: Duration = Duration::from_secs(1);

impl From<&EngineError> for Refusal {
    fn from(error: &EngineError) -> Self {
        let refusal = |reason| Self::new(reason, error.to_string());
        match error {
            EngineError::Storage(error) if error.is_full() => refusal(Reason::DiskFull),
            // A repeated read finds the version that has replaced the file, if there is one.
            EngineError::Storage(StorageError::NotFound { .. }) => {
                refusal(Reason::FileDamaged).retry_after(STORE)
            }
            EngineError::Storage(StorageError::TooLarge { .. }) => refusal(Reason::FileDamaged),
            EngineError::Storage(_) => refusal(Reason::ObjectStoreUnavailable).retry_after(STORE),
            EngineError::Damaged { .. } | EngineError::NewerFormat { .. } => {
                refusal(Reason::FileDamaged)
            }
            EngineError::Fenced { .. } => refusal(Reason::RegionFenced),
            EngineError::Removed { .. } | EngineError::Closed { .. } => {
                refusal(Reason::RegionNotFound)
            }
            EngineError::Divided { .. } => refusal(Reason::RouteMoved),
            EngineError::Loading { .. }
            | EngineError::NotBorn { .. }
            | EngineError::ChildUnborn { .. } => {
                refusal(Reason::RegionLoading).retry_after(LOADING)
            }
            EngineError::NotOwner { .. } => refusal(Reason::NotLeader).retry_after(ELECTION),
            EngineError::Overloaded { retry_after, .. }
            | EngineError::ScanMemory { retry_after, .. } => {
                refusal(Reason::Overloaded).retry_after(*retry_after)
            }
            EngineError::BadRows { .. } | EngineError::ScanTooLarge { .. } => {
                refusal(Reason::InvalidArgument)
            }
            EngineError::BelowSince { .. } => refusal(Reason::EpochBelowSince),
            EngineError::EpochIncomplete { .. } => refusal(Reason::EpochIncomplete),
            EngineError::ColumnDropped { .. } => refusal(Reason::SchemaVersionStale),
            EngineError::VersionExpired { .. } => refusal(Reason::DeadlineExceeded),
            EngineError::Unknown { .. }
            | EngineError::Contended { .. }
            | EngineError::Unstable { .. } => refusal(Reason::Unavailable).retry_after(RESOLVING),
            EngineError::Refused { reason: Void::InputsGone { .. }, .. } => {
                refusal(Reason::InputsGone)
            }
            EngineError::Refused { reason: Void::BelowFloor { .. }, .. } => {
                refusal(Reason::BelowFloor)
            }
            EngineError::Refused { reason: Void::Sealed, .. } => {
                refusal(Reason::RouteWriteFenced).retry_after(SEALED)
            }
            EngineError::Refused { reason: Void::AreaOpen { .. }, .. } => {
                refusal(Reason::TableBusy)
            }
            EngineError::Refused { reason: Void::StaleStep { .. }, .. } => {
                refusal(Reason::ProcedureSuperseded)
            }
            EngineError::Cancelled { .. } => refusal(Reason::JobCancelled),
            EngineError::NotAdmitted { why, .. } => {
                Self { message: error.to_string(), ..Self::from(*why) }
            }
            EngineError::ClockDiffers { .. } => refusal(Reason::ClockDiffers).retry_after(CLOCK),
            EngineError::Refused { .. } | EngineError::Internal { .. } => refusal(Reason::Internal),
        }
    }
}

impl From<&OpenError> for Refusal {
    fn from(error: &OpenError) -> Self {
        let refusal = |reason| Self::new(reason, error.to_string());
        match error {
            OpenError::Hook(_) => refusal(Reason::BadPlugin),
            OpenError::Engine(error) => error.into(),
            OpenError::NoManifest { .. } => refusal(Reason::RegionNotFound),
            OpenError::NotOwner { .. } => refusal(Reason::NotLeader).retry_after(ELECTION),
            OpenError::Plan(PlanError::NotLive { .. }) => refusal(Reason::InputsGone),
            OpenError::Plan(_) => refusal(Reason::BadPlan),
        }
    }
}

#[cfg(test)]
mod tests {
    use tidewater_common::clock::ClockDifference;
    use tidewater_common::ids::{ColumnId, Epoch, FileId, JobId, OwnerEpoch, RegionId};
    use uuid::Uuid;

    use super::*;
    use crate::compaction::admission::AdmissionError;
    use crate::hooks::HookSetupError;
    use crate::manifest::AreaId;
    use crate::read::memory::{BudgetName, BudgetScope, MemoryUse};
    use crate::region::ParentProblem;

    #[test]
    fn engine_errors_map_to_reasons() {
        let region = RegionId(7);
        let epoch = OwnerEpoch::default();
        let file = FileId(Uuid::nil());
        let job = JobId(Uuid::nil());
        let difference =
            ClockDifference { difference_ms: -700_000, bound_ms: 600_000, since_ms: 1 };
        let refused = |reason| EngineError::Refused { region, reason };
        let budget = BudgetName { scope: BudgetScope::Node, memory_use: MemoryUse::Sources };
        let cases = [
            (EngineError::Loading { region }, Reason::RegionLoading, true),
            (EngineError::Removed { region }, Reason::RegionNotFound, false),
            (EngineError::Closed { region }, Reason::RegionNotFound, false),
            (EngineError::Divided { region }, Reason::RouteMoved, false),
            (EngineError::NotOwner { region }, Reason::NotLeader, true),
            (EngineError::Fenced { region, own: epoch, later: epoch }, Reason::RegionFenced, false),
            (
                EngineError::Overloaded { used: 2, limit: 1, retry_after: LOADING },
                Reason::Overloaded,
                true,
            ),
            (
                EngineError::ScanMemory { needed: 2, limit: 1, budget, retry_after: LOADING },
                Reason::Overloaded,
                true,
            ),
            (
                EngineError::ScanTooLarge { needed: 2, limit: 1, budget },
                Reason::InvalidArgument,
                false,
            ),
            (EngineError::BadRows { detail: "x".into() }, Reason::InvalidArgument, false),
            (EngineError::ColumnDropped { column: ColumnId(2) }, Reason::SchemaVersionStale, false),
            (EngineError::VersionExpired { region, life: STORE }, Reason::DeadlineExceeded, false),
            (
                EngineError::BelowSince {
                    region,
                    requested: Epoch(1),
                    since: Epoch(2),
                    upper: Epoch(3),
                },
                Reason::EpochBelowSince,
                false,
            ),
            (
                EngineError::EpochIncomplete { region, requested: Epoch(2), upper: Epoch(2) },
                Reason::EpochIncomplete,
                false,
            ),
            (
                EngineError::Damaged { object: "o".into(), detail: "x".into() },
                Reason::FileDamaged,
                false,
            ),
            (
                StorageError::TooLarge { object: "o".into(), size: 2, limit: 1 }.into(),
                Reason::FileDamaged,
                false,
            ),
            (EngineError::Internal { detail: "x".into() }, Reason::Internal, false),
            (refused(Void::StaleStep { number: 2, step: 1 }), Reason::ProcedureSuperseded, false),
            (EngineError::Cancelled { region, job }, Reason::JobCancelled, false),
            (EngineError::ClockDiffers { region, difference }, Reason::ClockDiffers, true),
            (
                EngineError::NotAdmitted {
                    region,
                    why: AdmissionError::TooLarge { needed: 2, all: 1 },
                },
                Reason::JobTooLarge,
                false,
            ),
            (
                EngineError::NotAdmitted {
                    region,
                    why: AdmissionError::Disk { needed: 2, free: 1 },
                },
                Reason::DiskFull,
                false,
            ),
            (refused(Void::InputsGone { file }), Reason::InputsGone, false),
            (refused(Void::BelowFloor { file, floor_ms: 1 }), Reason::BelowFloor, false),
            (refused(Void::Sealed), Reason::RouteWriteFenced, true),
            (refused(Void::AreaOpen { area: AreaId(Uuid::nil()) }), Reason::TableBusy, false),
            (refused(Void::NoExpiry), Reason::Internal, false),
            (
                EngineError::NotBorn { region, parent: region, problem: ParentProblem::NotLower },
                Reason::RegionLoading,
                true,
            ),
            (EngineError::ChildUnborn { region, child: region }, Reason::RegionLoading, true),
        ];
        for (error, reason, retry) in cases {
            let refusal = Refusal::from(&error);
            assert_eq!((refusal.reason, refusal.retry_after.is_some()), (reason, retry), "{error}");
        }
    }

    #[test]
    fn open_errors_map_to_reasons() {
        let region = RegionId(7);
        let file = FileId(Uuid::nil());
        let cases = [
            (OpenError::Hook(HookSetupError::NameTaken { name: "a".into() }), Reason::BadPlugin),
            (OpenError::Engine(EngineError::Removed { region }), Reason::RegionNotFound),
            (OpenError::NoManifest { region }, Reason::RegionNotFound),
            (OpenError::NotOwner { region, caller: OwnerEpoch::default() }, Reason::NotLeader),
            (OpenError::Plan(PlanError::NotLive { file, region }), Reason::InputsGone),
            (OpenError::Plan(PlanError::Inputs { files: 0 }), Reason::BadPlan),
        ];
        for (error, reason) in cases {
            assert_eq!(Refusal::from(&error).reason, reason, "{error}");
        }
    }
}
