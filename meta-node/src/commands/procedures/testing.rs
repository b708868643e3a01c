//! Procedures in tests.

use bytes::Bytes;
use prost::Message;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_proto::v1::meta_command::Kind;
use tidewater_proto::v1::{self, AbandonCause, ProcedureState};
use uuid::Uuid;

use super::test_kind::TEST_KIND;
use crate::catalog::{CatalogChange, Header, MetaState, Procedure};
use crate::commands::testing::{directory, raise_to, run, table, with_groups};
use crate::commands::{CommandError, apply_change};

/// A state at the level of procedures, with the active tables "t" and "u" of two regions each.
pub(crate) fn with_tables() -> MetaState {
    with_tables_at(FeatureLevel::HIGHEST)
}

/// A state at a level, as [`with_tables`].
pub(crate) fn with_tables_at(level: FeatureLevel) -> MetaState {
    let mut state = with_groups(1, 1);
    raise_to(&mut state, level);
    for (number, name) in [(1, "t"), (2, "u")] {
        let request = v1::CreateTableRequest { regions: 2, ..table(number, name) };
        run(&mut state, begin(v1::ProcedureKind::Create, number, &request)).unwrap();
        complete(&mut state, number);
    }
    state
}

/// Id of the procedure that a request has begun.
pub(crate) fn id(number: u64) -> Uuid {
    directory(number).parse().unwrap()
}

pub(crate) fn wire_id(number: u64) -> Bytes {
    Bytes::copy_from_slice(id(number).as_bytes())
}

/// Begin of a procedure by a request with this number.
pub(crate) fn begin(kind: v1::ProcedureKind, number: u64, request: &impl Message) -> Kind {
    let arguments = request.encode_to_vec().into();
    let kind = kind as u32;
    Kind::BeginProcedure(v1::BeginProcedure { id: wire_id(number), kind, arguments })
}

/// Begin of a truncation.
pub(crate) fn truncate(number: u64, name: &str) -> Kind {
    let request = v1::TruncateTableRequest { request_id: directory(number), name: name.to_owned() };
    begin(v1::ProcedureKind::Truncate, number, &request)
}

/// Begin of a drop by name.
pub(crate) fn drop_named(number: u64, name: &str) -> Kind {
    let (request_id, name) = (directory(number), name.to_owned());
    begin(v1::ProcedureKind::Drop, number, &v1::DropTableRequest { request_id, name, table_id: 0 })
}

/// Begin of a drop by the leader.
pub(crate) fn drop_by_id(number: u64, table: u32) -> Kind {
    let (request_id, name) = (directory(number), String::new());
    begin(
        v1::ProcedureKind::Drop,
        number,
        &v1::DropTableRequest { request_id, name, table_id: table },
    )
}

/// Begin of a procedure of the kind for tests.
pub(crate) fn test(number: u64, table: u8) -> Kind {
    let arguments = vec![table].into();
    Kind::BeginProcedure(v1::BeginProcedure { id: wire_id(number), kind: TEST_KIND, arguments })
}

/// The procedure that a request has begun.
pub(crate) fn of(state: &MetaState, number: u64) -> &Procedure {
    state.procedures().get(id(number)).unwrap()
}

/// State and step of a procedure.
pub(crate) fn state_of(state: &MetaState, number: u64) -> (ProcedureState, u32) {
    let procedure = of(state, number);
    (procedure.state, procedure.step)
}

/// Adds procedures that have ended at a replicated time, until there are `count`. Their ids are greater than those of requests.
pub(crate) fn fill(state: &mut MetaState, count: usize, ended_ms: u64) {
    let ended = of(state, 1).clone();
    let known = state.procedures().count();
    let ids = (1_000_000u128..).skip(known).take(count - known).map(Uuid::from_u128);
    let filler = |id| Procedure { id, ended_ms: Some(ended_ms), ..ended.clone() };
    let procedures = ids.map(filler).collect();
    apply_change(state, CatalogChange { procedures, ..CatalogChange::default() }).unwrap();
}

/// Sets replicated time, without the effects of its advance.
pub(crate) fn set_time(state: &mut MetaState, time_ms: u64) {
    let header = Some(Header { time_ms, ..state.header().clone() });
    apply_change(state, CatalogChange { header, ..CatalogChange::default() }).unwrap();
}

/// Report on the step of a procedure as it is in this state.
pub(crate) fn report(state: &MetaState, number: u64) -> v1::AdvanceProcedure {
    let procedure = of(state, number);
    v1::AdvanceProcedure {
        id: wire_id(number),
        number: procedure.number,
        step: procedure.step,
        ..v1::AdvanceProcedure::default()
    }
}

/// Completes the step of a procedure, also one that waits for a request.
pub(crate) fn complete(state: &mut MetaState, number: u64) {
    let completed =
        v1::AdvanceProcedure { completed: true, requested: true, ..report(state, number) };
    run(state, Kind::AdvanceProcedure(completed)).unwrap();
}

/// Abandonment of a procedure as it is in this state.
pub(crate) fn abandon(state: &MetaState, number: u64, cause: AbandonCause) -> Kind {
    let change = state.procedures().get(id(number)).map_or(0, |procedure| procedure.number);
    let step = state.procedures().get(id(number)).map_or(0, |procedure| procedure.step);
    let id = wire_id(number);
    Kind::AbandonProcedure(v1::AbandonProcedure { id, number: change, cause: cause.into(), step })
}

/// Asserts that a procedure is abandoned at its deadline and not before, and that its regions are restored then.
pub(crate) fn assert_abandoned_at_deadline(state: &mut MetaState, number: u64, after_ms: u64) {
    let overdue = abandon(state, number, AbandonCause::Deadline);
    let early = run(state, overdue.clone());
    assert!(matches!(early, Err(CommandError::NotAbandonable { .. })), "{early:?}");
    let now_ms = state.header().time_ms + after_ms;
    run(state, Kind::AdvanceTime(v1::AdvanceTime { now_ms, agreed_ms: now_ms })).unwrap();
    run(state, overdue).unwrap();
    assert_eq!(state_of(state, number).0, ProcedureState::Abandoning);
}
