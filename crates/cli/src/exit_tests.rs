use super::*;

#[test]
fn exit_statuses_are_stable() {
    let statuses = [
        (Exit::OutputClosed, 0),
        (Exit::Other, 1),
        (Exit::Usage, 2),
        (Exit::NotFound, 3),
        (Exit::Conflict, 4),
        (Exit::Unavailable, 5),
    ];
    for (exit, status) in statuses {
        assert_eq!(exit.status(), status);
    }
}

/// Exit statuses that scripts rely on.
const REASONS: [(Reason, u8); 95] = [
    (Reason::Unspecified, 1),
    (Reason::InvalidArgument, 2),
    (Reason::SchemaMismatch, 2),
    (Reason::SchemaVersionBehind, 4),
    (Reason::SchemaVersionStale, 4),
    (Reason::MessageTooLarge, 2),
    (Reason::KeyOutsideRegion, 2),
    (Reason::KeyOnBoundary, 2),
    (Reason::TableNotFound, 3),
    (Reason::TableExists, 4),
    (Reason::TableBusy, 4),
    (Reason::LoadEnded, 4),
    (Reason::VersionGone, 3),
    (Reason::GroupNotHosted, 3),
    (Reason::RegionNotFound, 3),
    (Reason::NodeNotFound, 3),
    (Reason::MemberNotFound, 3),
    (Reason::MemberExists, 4),
    (Reason::GroupNotFound, 3),
    (Reason::HookNotFound, 3),
    (Reason::HookExists, 4),
    (Reason::NotLeader, 5),
    (Reason::LeadershipLost, 5),
    (Reason::WrongCluster, 4),
    (Reason::WrongNode, 4),
    (Reason::NodeRemoved, 4),
    (Reason::NodeAlreadyRemoved, 4),
    (Reason::RoleMismatch, 4),
    (Reason::ObjectStoreMismatch, 4),
    (Reason::PeersMismatch, 4),
    (Reason::AlreadyBootstrapped, 4),
    (Reason::NotBootstrapped, 5),
    (Reason::RouteWriteFenced, 4),
    (Reason::RouteMoved, 4),
    (Reason::RouteBusy, 4),
    (Reason::RouteLive, 4),
    (Reason::RegionLoading, 5),
    (Reason::CatalogBehind, 5),
    (Reason::DirectoryCopied, 4),
    (Reason::ProcedureSuperseded, 4),
    (Reason::ProcedureCancelled, 4),
    (Reason::ProcedureNotFound, 3),
    (Reason::ProcedureNotAbandonable, 4),
    (Reason::ReleaseUnsupported, 4),
    (Reason::ClockDiffers, 5),
    (Reason::RegionFenced, 4),
    (Reason::ProducerForgotten, 4),
    (Reason::SerialOutOfOrder, 4),
    (Reason::NoDataNodes, 5),
    (Reason::MembershipBusy, 4),
    (Reason::MembershipStale, 4),
    (Reason::CatalogVersionMismatch, 4),
    (Reason::Overloaded, 5),
    (Reason::DiskFull, 5),
    (Reason::ObjectStoreUnavailable, 5),
    (Reason::DeadlineExceeded, 5),
    (Reason::ShuttingDown, 5),
    (Reason::Unavailable, 5),
    (Reason::HandleNotFound, 3),
    (Reason::JobNotFound, 3),
    (Reason::JobExists, 4),
    (Reason::BadPlan, 2),
    (Reason::BadPlugin, 2),
    (Reason::InputsGone, 4),
    (Reason::BelowFloor, 4),
    (Reason::JobCancelled, 4),
    (Reason::NoCompactors, 5),
    (Reason::JobTooLarge, 5),
    (Reason::Corrupt, 1),
    (Reason::FileDamaged, 1),
    (Reason::Internal, 1),
    (Reason::Unsupported, 2),
    (Reason::EpochBelowSince, 4),
    (Reason::TableRefreshable, 2),
    (Reason::EpochRequired, 4),
    (Reason::NotRefreshable, 2),
    (Reason::AlreadyRefreshing, 4),
    (Reason::SourceMismatch, 2),
    (Reason::SourceUnreadable, 5),
    (Reason::SourceChanged, 4),
    (Reason::SourceShrunk, 4),
    (Reason::SourceNotFound, 3),
    (Reason::Held, 4),
    (Reason::HoldNotFound, 3),
    (Reason::HoldExists, 4),
    (Reason::InvalidCapabilities, 2),
    (Reason::ExportNotFound, 3),
    (Reason::ExportExists, 4),
    (Reason::ExportTokenExpired, 4),
    (Reason::ExportPrefixInUse, 4),
    (Reason::ExportTargetUnavailable, 5),
    (Reason::IdentifierMissing, 3),
    (Reason::IdentifierInvalid, 4),
    (Reason::IdentifierReused, 4),
    (Reason::EpochIncomplete, 4),
];

#[test]
fn exit_statuses_of_reasons_are_frozen() {
    let known: Vec<Reason> =
        (0..1_000).filter_map(|number| Reason::try_from(number).ok()).collect();
    assert_eq!(known.len(), REASONS.len(), "a reason has no row");
    for (reason, status) in REASONS {
        assert_eq!(exit_of(reason).status(), status, "{reason:?}");
    }
}

#[test]
fn rpc_error_message_includes_the_remedy() {
    let failure = Failure::from(Refusal::new(Reason::TableExists, "table \"t\" exists"));
    assert_eq!(failure.exit, Exit::Conflict);
    assert!(failure.message.contains("table drop"), "{failure}");
}

#[test]
fn failure_keeps_the_reason_of_its_cause() {
    let cause = || Refusal::new(Reason::EpochIncomplete, "epoch 9 is not complete yet");
    assert_eq!(Failure::from(cause()).reason(), Some(Reason::EpochIncomplete));
    let what = "scan of table \"t\"".to_owned();
    let refused = ClientError::Refused { what, refusal: Box::new(cause()) };
    let failure = Failure::from(refused);
    assert_eq!(failure.reason(), Some(Reason::EpochIncomplete));
    let noted = failure.with_note("since is 7");
    assert!(noted.message.ends_with("not complete yet\n  since is 7"), "{noted}");
    assert_eq!(noted.exit, Exit::Conflict);
    assert_eq!(Failure::usage("x").reason(), None);
}

#[test]
fn unreachable_meta_error_lists_tried_addresses() {
    let error = ClientError::NoMetaReachable {
        tried: vec![("127.0.0.1:1".into(), "connection refused".into())],
    };
    let failure = Failure::from(error);
    assert_eq!(failure.exit, Exit::Unavailable);
    assert!(failure.message.contains("127.0.0.1:1"), "{failure}");
}

#[test]
fn unknown_outcome_is_reported_as_unavailable() {
    let cause = || Box::new(Refusal::new(Reason::TableNotFound, "there is no table \"t\""));
    let elapsed = std::time::Duration::from_secs(1);
    let unknown = [
        ClientError::OutcomeUnknown {
            what: "dropping table \"t\"".into(),
            attempts: 2,
            elapsed,
            cause: cause(),
        },
        ClientError::Unknown {
            table: "t".into(),
            acknowledged: 1,
            failed: 2,
            unknown: 3,
            cause: cause(),
        },
    ];
    for error in unknown {
        let failure = Failure::from(error);
        assert_eq!(failure.exit.status(), 5, "{failure}");
        assert!(failure.message.contains("unknown"), "{failure}");
        assert!(failure.message.contains("there is no table"), "{failure}");
        assert!(!failure.message.contains("table list"), "{failure}");
    }
    // Definite errors keep their own status and remedy.
    let failed = ClientError::Failed { table: "t".into(), rows: 3, cause: cause() };
    let failure = Failure::from(failed);
    assert_eq!(failure.exit, Exit::NotFound);
    assert!(failure.message.contains("table list"), "{failure}");
}

#[test]
fn closed_output_pipe_exits_with_zero() {
    let closed = io::Error::from(io::ErrorKind::BrokenPipe);
    assert_eq!(Failure::writing("the output", &closed).exit.status(), 0);
    let full = io::Error::from(io::ErrorKind::StorageFull);
    assert_eq!(Failure::writing("the output", &full).exit.status(), 1);
}
