//! Refreshes in tests.

use prost::Message;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::TableId;
use tidewater_proto::v1::meta_command::Kind;
use tidewater_proto::v1::{
    self, AbandonCause, MergeCounts, ProcedureState, Reason, RefreshTrigger,
};

use super::steps;
use crate::catalog::{MetaState, Refreshes};
use crate::commands::CommandError;
use crate::commands::procedures::testing::{
    abandon, begin, complete, report, state_of, with_tables_at,
};
use crate::commands::testing::{directory, run, table};

/// Id of the refreshable table.
pub(crate) const T: TableId = TableId(3);

/// A state with the refreshable table "r" of two regions, id 3, besides the tables "t" and "u".
pub(crate) fn with_refreshable(interval_ms: u64) -> MetaState {
    with_refreshable_at(FeatureLevel::HIGHEST, interval_ms)
}

/// A state at a level, as [`with_refreshable`].
pub(crate) fn with_refreshable_at(level: FeatureLevel, interval_ms: u64) -> MetaState {
    let mut state = with_tables_at(level);
    let settings = v1::RefreshSettings { interval_ms, ..v1::RefreshSettings::default() };
    let definition = v1::RefreshDefinition {
        source_kind: "csv".to_owned(),
        source_config: "{}".to_owned(),
        settings: Some(settings),
    };
    let request = v1::CreateTableRequest { regions: 2, refresh: Some(definition), ..table(5, "r") };
    run(&mut state, begin(v1::ProcedureKind::Create, 5, &request)).unwrap();
    complete(&mut state, 5);
    state
}

pub(crate) fn request(number: u64) -> v1::RefreshRequest {
    v1::RefreshRequest {
        request_id: directory(number),
        table_id: T.get(),
        trigger: RefreshTrigger::Manual.into(),
        ..v1::RefreshRequest::default()
    }
}

pub(crate) fn start(number: u64) -> Kind {
    begin(v1::ProcedureKind::Refresh, number, &request(number))
}

/// Begin of a refresh by the refresh manager.
pub(crate) fn start_by_itself(number: u64) -> Kind {
    let request =
        v1::RefreshRequest { trigger: RefreshTrigger::Interval.into(), ..request(number) };
    begin(v1::ProcedureKind::Refresh, number, &request)
}

pub(crate) fn refreshes(state: &MetaState) -> &Refreshes {
    state.refreshes_of(T).unwrap()
}

/// Completes a step that waits for the refresh manager.
pub(crate) fn finish(
    state: &mut MetaState,
    number: u64,
    result: &v1::RefreshStepResult,
) -> Result<(), CommandError> {
    let result = result.encode_to_vec().into();
    let completed =
        v1::AdvanceProcedure { completed: true, requested: true, result, ..report(state, number) };
    run(state, Kind::AdvanceProcedure(completed)).map(drop)
}

pub(crate) fn loaded(rows: u64) -> v1::RefreshStepResult {
    v1::RefreshStepResult { source_rows: rows, ..v1::RefreshStepResult::default() }
}

pub(crate) fn merged(epoch: u64) -> v1::RefreshStepResult {
    let counts = Some(MergeCounts { inserted: 5, ..MergeCounts::default() });
    v1::RefreshStepResult {
        epoch,
        previous_until: epoch + 10,
        counts,
        ..v1::RefreshStepResult::default()
    }
}

/// Carries a refresh out.
pub(crate) fn refresh(state: &mut MetaState, number: u64, rows: u64, epoch: u64) {
    run(state, start(number)).unwrap();
    carry_out(state, number, rows, epoch);
}

/// Carries out a refresh that has begun.
pub(crate) fn carry_out(state: &mut MetaState, number: u64, rows: u64, epoch: u64) {
    complete(state, number);
    finish(state, number, &loaded(rows)).unwrap();
    complete(state, number);
    finish(state, number, &merged(epoch)).unwrap();
    complete(state, number);
}

pub(crate) fn fail(state: &mut MetaState, number: u64, reason: Reason) {
    let failure =
        v1::ProcedureFailure { reason: reason.into(), message: "no source".into(), since_ms: 0 };
    let failed = v1::AdvanceProcedure { failure: Some(failure), ..report(state, number) };
    run(state, Kind::AdvanceProcedure(failed)).unwrap();
    let back = abandon(state, number, AbandonCause::Failed);
    run(state, back).unwrap();
    assert_eq!(state_of(state, number), (ProcedureState::Abandoning, steps::ABANDON));
    complete(state, number);
}
