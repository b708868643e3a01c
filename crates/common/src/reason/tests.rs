use prost::Message;
use tidewater_proto::google_rpc;
use tidewater_proto::v1::ErrorDetail;
use tonic::Status;

use super::*;
use crate::refusal::Refusal;

/// Wire form of each reason, which clients of other releases and languages read: the number of the
/// reason, the code of the status, `maybe_applied` and the number of `retry`.
const WIRE: [(Reason, i32, i32, bool, i32); 95] = [
    (Reason::Unspecified, 0, 13, true, 3),
    (Reason::InvalidArgument, 1, 3, false, 7),
    (Reason::SchemaMismatch, 2, 3, false, 7),
    (Reason::SchemaVersionBehind, 3, 10, false, 1),
    (Reason::SchemaVersionStale, 4, 10, false, 5),
    (Reason::MessageTooLarge, 5, 3, false, 7),
    (Reason::KeyOutsideRegion, 6, 3, false, 5),
    (Reason::KeyOnBoundary, 7, 3, false, 7),
    (Reason::TableNotFound, 10, 5, false, 7),
    (Reason::TableExists, 11, 6, false, 7),
    (Reason::GroupNotHosted, 12, 5, false, 4),
    (Reason::RegionNotFound, 13, 5, false, 5),
    (Reason::NodeNotFound, 14, 5, false, 7),
    (Reason::MemberNotFound, 15, 5, false, 7),
    (Reason::MemberExists, 16, 6, false, 7),
    (Reason::GroupNotFound, 17, 5, false, 5),
    (Reason::HookNotFound, 18, 5, false, 7),
    (Reason::HookExists, 19, 6, false, 7),
    (Reason::NotLeader, 20, 14, false, 4),
    (Reason::LeadershipLost, 21, 10, true, 4),
    (Reason::WrongCluster, 22, 9, false, 7),
    (Reason::WrongNode, 23, 9, false, 4),
    (Reason::NodeRemoved, 24, 9, false, 4),
    (Reason::NodeAlreadyRemoved, 83, 9, false, 7),
    (Reason::RoleMismatch, 25, 9, false, 7),
    (Reason::ObjectStoreMismatch, 26, 9, false, 7),
    (Reason::PeersMismatch, 27, 9, false, 7),
    (Reason::AlreadyBootstrapped, 28, 6, false, 7),
    (Reason::NotBootstrapped, 29, 9, false, 4),
    (Reason::RouteWriteFenced, 30, 10, false, 1),
    (Reason::RouteMoved, 31, 10, false, 5),
    (Reason::RouteBusy, 80, 10, false, 2),
    (Reason::RouteLive, 82, 9, false, 7),
    (Reason::RegionLoading, 32, 14, false, 1),
    (Reason::RegionFenced, 33, 10, false, 5),
    (Reason::ProducerForgotten, 34, 9, false, 6),
    (Reason::SerialOutOfOrder, 35, 9, false, 6),
    (Reason::NoDataNodes, 36, 14, false, 2),
    (Reason::MembershipBusy, 37, 10, false, 2),
    (Reason::MembershipStale, 38, 10, false, 7),
    (Reason::CatalogVersionMismatch, 39, 10, false, 7),
    (Reason::TableBusy, 40, 10, false, 7),
    (Reason::VersionGone, 41, 5, false, 7),
    (Reason::LoadEnded, 42, 10, false, 7),
    (Reason::CatalogBehind, 43, 14, false, 1),
    (Reason::DirectoryCopied, 44, 9, false, 7),
    (Reason::ProcedureSuperseded, 45, 10, false, 7),
    (Reason::ProcedureCancelled, 81, 10, false, 7),
    (Reason::ProcedureNotFound, 46, 5, false, 7),
    (Reason::ProcedureNotAbandonable, 48, 10, false, 7),
    (Reason::ReleaseUnsupported, 47, 3, false, 7),
    (Reason::ClockDiffers, 49, 14, false, 4),
    (Reason::Overloaded, 50, 8, false, 1),
    (Reason::DiskFull, 51, 8, false, 1),
    (Reason::ObjectStoreUnavailable, 52, 14, false, 2),
    (Reason::DeadlineExceeded, 53, 4, true, 4),
    (Reason::ShuttingDown, 54, 14, false, 4),
    (Reason::Unavailable, 55, 14, true, 4),
    (Reason::HandleNotFound, 70, 5, false, 7),
    (Reason::JobNotFound, 71, 5, false, 7),
    (Reason::JobExists, 72, 6, false, 7),
    (Reason::BadPlan, 73, 3, false, 7),
    (Reason::BadPlugin, 74, 3, false, 7),
    (Reason::InputsGone, 75, 10, false, 7),
    (Reason::BelowFloor, 76, 10, false, 7),
    (Reason::JobCancelled, 77, 10, false, 7),
    (Reason::NoCompactors, 78, 14, false, 7),
    (Reason::JobTooLarge, 79, 8, false, 7),
    (Reason::TableRefreshable, 86, 9, false, 7),
    (Reason::EpochRequired, 87, 9, false, 5),
    (Reason::NotRefreshable, 88, 9, false, 7),
    (Reason::AlreadyRefreshing, 89, 10, false, 7),
    (Reason::SourceMismatch, 90, 9, false, 7),
    (Reason::SourceUnreadable, 91, 14, false, 7),
    (Reason::SourceChanged, 92, 10, false, 7),
    (Reason::SourceShrunk, 93, 9, false, 7),
    (Reason::SourceNotFound, 94, 5, false, 7),
    (Reason::Held, 95, 9, false, 7),
    (Reason::HoldNotFound, 96, 5, false, 7),
    (Reason::HoldExists, 97, 6, false, 7),
    (Reason::InvalidCapabilities, 98, 3, false, 7),
    (Reason::ExportNotFound, 99, 5, false, 7),
    (Reason::ExportExists, 100, 6, false, 7),
    (Reason::ExportTokenExpired, 101, 9, false, 7),
    (Reason::ExportPrefixInUse, 102, 6, false, 7),
    (Reason::ExportTargetUnavailable, 103, 14, false, 7),
    (Reason::IdentifierMissing, 104, 5, false, 7),
    (Reason::IdentifierInvalid, 105, 9, false, 7),
    (Reason::IdentifierReused, 106, 6, false, 7),
    (Reason::Corrupt, 60, 15, true, 3),
    (Reason::Internal, 61, 13, true, 3),
    (Reason::Unsupported, 62, 12, false, 7),
    (Reason::FileDamaged, 63, 15, false, 3),
    (Reason::EpochBelowSince, 84, 11, false, 7),
    (Reason::EpochIncomplete, 85, 11, false, 7),
];

#[test]
fn wire_form_of_reasons_is_frozen() {
    let known: Vec<Reason> =
        (0..1_000).filter_map(|number| Reason::try_from(number).ok()).collect();
    assert_eq!(WIRE.len(), known.len(), "a reason has no row");
    for (reason, number, code, maybe_applied, retry) in WIRE {
        let status = Status::from(Refusal::new(reason, "text"));
        let rpc_status = google_rpc::Status::decode(status.details()).unwrap();
        let detail = ErrorDetail::decode(rpc_status.details[0].value.as_slice()).unwrap();
        let sent = (detail.reason, status.code() as i32, detail.maybe_applied, detail.retry);
        assert_eq!(sent, (number, code, maybe_applied, retry), "{reason:?}");
    }
}

#[test]
fn retry_actions_have_stable_numbers() {
    let numbers = [
        (RetryAction::Repeat, 1),
        (RetryAction::RepeatIfAsked, 2),
        (RetryAction::RepeatFew, 3),
        (RetryAction::FindLeader, 4),
        (RetryAction::RefreshCatalog, 5),
        (RetryAction::NewProducer, 6),
        (RetryAction::Stop, 7),
    ];
    for (action, number) in numbers {
        assert_eq!(Retry::from(action) as i32, number, "{action:?}");
    }
}

#[test]
fn unknown_effects_are_never_left_unsettled() {
    for number in 0..200 {
        let Ok(reason) = Reason::try_from(number) else { continue };
        let facts = facts(reason);
        if facts.effect == Effect::Unknown {
            // Only a repetition that succeeds settles the outcome.
            assert_ne!(facts.retry, RetryAction::Stop, "{reason:?}");
        }
    }
}

#[test]
fn labels_are_lower_case_without_prefix() {
    assert_eq!(label(Reason::NotLeader), "not_leader");
    assert_eq!(label(Reason::ObjectStoreUnavailable), "object_store_unavailable");
}
