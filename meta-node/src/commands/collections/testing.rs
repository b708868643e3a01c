//! Tables and changes of collections in tests.

use tidewater_common::feature_level::FeatureLevel;
use tidewater_proto::v1::meta_command::Kind;
use tidewater_proto::v1::record_export::Progress;
use tidewater_proto::v1::{self, LearnedSince, TableSince, change_collections::Change};

use crate::catalog::MetaState;
use crate::commands::procedures::testing::{self as procedures, wire_id};
use crate::commands::testing::{directory, run};

/// A state with the active tables "t" and "u", whose oldest readable epochs are their own and not known yet.
pub(crate) fn with_tables() -> MetaState {
    with_tables_at(FeatureLevel::HIGHEST)
}

/// A state at a level, as [`with_tables`].
pub(crate) fn with_tables_at(level: FeatureLevel) -> MetaState {
    let mut state = procedures::with_tables_at(level);
    for (number, name) in [(3, "t"), (4, "u")] {
        alter(&mut state, number, name);
    }
    state
}

/// Makes the oldest readable epoch of a table its own.
pub(crate) fn alter(state: &mut MetaState, number: u64, name: &str) {
    run(state, make_since_own(number, name)).unwrap();
    while procedures::of(state, number).is_running() {
        procedures::complete(state, number);
    }
}

/// Begin of the alteration that makes the oldest readable epoch of a table its own.
pub(crate) fn make_since_own(number: u64, name: &str) -> Kind {
    let request = v1::AlterTableRequest {
        request_id: directory(number),
        name: name.to_owned(),
        explicit_since: true,
        ..v1::AlterTableRequest::default()
    };
    procedures::begin(v1::ProcedureKind::Alter, number, &request)
}

/// A change as of an epoch of the leader, which the regions of all tables have reported after their second change: the last
/// one of [`with_tables`].
pub(crate) fn change(upper: u64, change: Change) -> Kind {
    let learned =
        |table_id| LearnedSince { table: Some(TableSince { table_id, since: upper }), changes: 2 };
    Kind::ChangeCollections(v1::ChangeCollections {
        upper,
        history_ms: 0,
        learned: (1..=8).map(learned).collect(),
        change: Some(change),
    })
}

/// A change as of an epoch. The regions of table "t" have reported an oldest readable epoch after a number of its changes.
pub(crate) fn learned(upper: u64, (since, changes): (u64, u64), change: Change) -> Kind {
    let table = Some(TableSince { table_id: 1, since });
    Kind::ChangeCollections(v1::ChangeCollections {
        upper,
        history_ms: 0,
        learned: vec![LearnedSince { table, changes }],
        change: Some(change),
    })
}

/// Acquisition of a hold with a lease of a minute; epoch 0: the earliest one.
pub(crate) fn acquire(number: u64, name: &str, tables: &[&str], epoch: u64) -> Change {
    Change::Acquire(v1::AcquireReadHoldRequest {
        request_id: directory(number),
        name: name.to_owned(),
        tables: tables.iter().map(|name| (*name).to_owned()).collect(),
        epoch,
        ..v1::AcquireReadHoldRequest::default()
    })
}

/// Release of a hold.
pub(crate) fn release(name: &str) -> Change {
    Change::Release(v1::ReleaseReadHoldsRequest { names: vec![name.to_owned()] })
}

/// Policy of a table; `None`: that of the cluster.
pub(crate) fn policy(table: &str, policy: Option<v1::read_policy::Policy>) -> Change {
    let policy = policy.map(|policy| v1::ReadPolicy { policy: Some(policy) });
    Change::Policy(v1::SetReadPolicyRequest { table: table.to_owned(), policy })
}

/// Changes of the capabilities of a table.
pub(crate) fn capabilities(table: &str, changes: &[(u64, i64)]) -> Change {
    let changes = changes.iter().copied();
    let changes =
        changes.map(|(epoch, difference)| v1::CapabilityChange { epoch, difference }).collect();
    let of_table = v1::CapabilityChanges { table: table.to_owned(), changes };
    Change::Capabilities(v1::UpdateReadCapabilitiesRequest { changes: vec![of_table] })
}

/// Request of an export to a prefix with its name; epoch 0: the last one that has begun.
pub(crate) fn export_request(
    number: u64,
    name: &str,
    table: &str,
    epoch: u64,
) -> v1::CreateExportRequest {
    v1::CreateExportRequest {
        request_id: directory(number),
        name: name.to_owned(),
        table: table.to_owned(),
        target: format!(r#"{{"url":"s3://exports/{name}"}}"#),
        epoch,
        ..v1::CreateExportRequest::default()
    }
}

/// Creation of an export.
pub(crate) fn create_export(number: u64, name: &str, table: &str, epoch: u64) -> Change {
    Change::CreateExport(export_request(number, name, table, epoch))
}

/// Creation of an export by a token, as of the epoch of the token.
pub(crate) fn create_export_by(token: &str, number: u64, name: &str, table: &str) -> Change {
    let request = export_request(number, name, table, 0);
    Change::CreateExport(v1::CreateExportRequest { token: token.to_owned(), ..request })
}

/// Record of the begin of a step of the export that a request has created.
pub(crate) fn begin_step(number: u64, step: u64, epoch: u64) -> Change {
    record_export(number, step, Progress::Begun(epoch))
}

/// Record of a completed step with an object of 10 rows and 100 bytes.
pub(crate) fn complete_step(number: u64, step: u64, as_of: u64) -> Change {
    let completed = v1::CompletedExportStep { as_of, files: 1, rows: 10, bytes: 100 };
    record_export(number, step, Progress::Completed(completed))
}

fn record_export(number: u64, step: u64, progress: Progress) -> Change {
    let export_id = wire_id(number);
    Change::RecordExport(v1::RecordExport { export_id, step, progress: Some(progress) })
}

/// Drop of an export.
pub(crate) fn drop_export(name: &str) -> Change {
    Change::DropExport(v1::DropExportRequest { name: name.to_owned() })
}

/// A state with the export "x" of table "t", in its second step.
pub(crate) fn with_export() -> MetaState {
    let mut state = with_tables();
    for of in [
        create_export(20, "x", "t", 0),
        begin_step(20, 1, 20),
        complete_step(20, 1, 20),
        begin_step(20, 2, 25),
    ] {
        run(&mut state, change(20, of)).unwrap();
    }
    state
}
