//! Atomic loads: begun, opened in every region, filled by the loader, then published or abandoned.
//!
//! A load is a change of its table, so the table accepts no other change during a load. The command that
//! publishes the load is the point of no return. Until then, the load is abandoned at its loader's
//! request, or when its loader sends no call before the deadline.

use tidewater_common::ids::TableId;
use tidewater_proto::v1::{self, LoadPhase};
use uuid::Uuid;

use super::alter_table::begin as begin_change;
use super::requests::{IdentifiedRequest, request_id};
use super::{CommandError, CommandReply, Rules};
use crate::catalog::{
    AtomicLoad, CatalogChange, MetaState, OutcomeKind, RequestOutcome, Table, TableChange,
};

/// Default time without a call from the loader after which a load is abandoned, in milliseconds.
const DEFAULT_TIMEOUT_MS: u64 = 5 * 60_000;
/// Maximum duration of a load, with any number of calls from its loader, in milliseconds.
pub(super) const MAX_DURATION_MS: u64 = 24 * 3_600_000;

/// Begins a load. A repeated request extends the deadline of a load in progress.
pub(super) fn begin(
    state: &MetaState,
    request: &v1::BeginLoadRequest,
    rules: Rules,
) -> Result<(CommandReply, CatalogChange), CommandError> {
    let area = request_id(&request.request_id)?;
    let now_ms = state.header().time_ms;
    let deadline_ms = now_ms.saturating_add(timeout_ms(request));
    if let Some((table, load)) = find_pending(state, area, &request.name) {
        let deadline_ms = deadline_ms.clamp(load.deadline_ms, load.latest_ms.max(load.deadline_ms));
        let change = CatalogChange {
            is_unpublished: rules.has_unpublished_deadlines(),
            ..update_load(table, AtomicLoad { deadline_ms, ..load })
        };
        return Ok((CommandReply::Table(table.id), change));
    }
    if let Some(outcome) = state.outcome(area) {
        let outcome = match outcome.kind {
            OutcomeKind::PublishLoad => "published",
            OutcomeKind::AbandonLoad => "abandoned",
            _ => return Err(CommandError::RequestIdReused(area)),
        };
        return Err(CommandError::LoadEnded { table: request.name.clone(), outcome });
    }
    // Each repetition of a loader may name another timeout.
    let key = (request.request_id.as_str(), request.name.as_str());
    let id = IdentifiedRequest::new(rules, OutcomeKind::BeginLoad, key, request)?;
    begin_change(state, &id.with_any_arguments(), &request.name, |_| {
        let latest_ms = now_ms.saturating_add(MAX_DURATION_MS);
        let phase = LoadPhase::Opening;
        Ok(TableChange::Load(AtomicLoad { area, deadline_ms, latest_ms, phase }))
    })
}

/// Returns the time without a call from the loader after which its load is abandoned, in milliseconds.
pub(super) fn timeout_ms(request: &v1::BeginLoadRequest) -> u64 {
    match request.timeout_ms {
        0 => DEFAULT_TIMEOUT_MS,
        requested => requested.min(MAX_DURATION_MS),
    }
}

/// Marks a load as staging: all regions have opened the staging area.
pub(super) fn mark_opened(
    state: &MetaState,
    command: &v1::AdvanceLoad,
) -> Result<CatalogChange, CommandError> {
    match find_by_number(state, command)? {
        Some((table, load)) if load.phase == LoadPhase::Opening => {
            Ok(update_load(table, AtomicLoad { phase: LoadPhase::Staging, ..load }))
        }
        _ => Ok(CatalogChange::default()),
    }
}

/// Abandons a load that is past its deadline in replicated time.
pub(super) fn expire(
    state: &MetaState,
    command: &v1::AdvanceLoad,
) -> Result<CatalogChange, CommandError> {
    match find_by_number(state, command)? {
        Some((table, load)) if is_overdue(state, &load) => Ok(end_with(
            state,
            table,
            AtomicLoad { phase: LoadPhase::Abandoning, ..load },
            OutcomeKind::AbandonLoad,
        )),
        _ => Ok(CatalogChange::default()),
    }
}

/// Returns whether a load that is not ending yet is past its deadline.
fn is_overdue(state: &MetaState, load: &AtomicLoad) -> bool {
    let is_pending = matches!(load.phase, LoadPhase::Opening | LoadPhase::Staging);
    is_pending && load.deadline_ms <= state.header().time_ms
}

/// Publishes or abandons a load at its loader's request. A repeated request has the same reply.
pub(super) fn end(
    state: &MetaState,
    request: &v1::EndLoadRequest,
) -> Result<(CommandReply, CatalogChange), CommandError> {
    let area = request_id(&request.request_id)?;
    let name = &request.name;
    let outcome = state.outcome(area).filter(|outcome| outcome.table_name == *name);
    let outcome = outcome.ok_or_else(|| CommandError::LoadNotFound(name.clone()))?;
    let ended = |outcome| CommandError::LoadEnded { table: name.clone(), outcome };
    let (phase, kind) = if request.publish {
        (LoadPhase::Publishing, OutcomeKind::PublishLoad)
    } else {
        (LoadPhase::Abandoning, OutcomeKind::AbandonLoad)
    };
    match outcome.kind {
        recorded if recorded == kind => {
            return Ok((CommandReply::Table(outcome.table_id), CatalogChange::default()));
        }
        OutcomeKind::PublishLoad => return Err(ended("published")),
        OutcomeKind::AbandonLoad => return Err(ended("abandoned")),
        OutcomeKind::BeginLoad => {}
        _ => return Err(CommandError::RequestIdReused(area)),
    }
    let (table, load) = find_pending(state, area, name).ok_or_else(|| ended("dropped"))?;
    if request.publish && load.phase == LoadPhase::Opening {
        return Err(CommandError::LoadNotOpen(name.clone()));
    }
    let change = end_with(state, table, AtomicLoad { phase, ..load }, kind);
    Ok((CommandReply::Table(table.id), change))
}

fn end_with(
    state: &MetaState,
    table: &Table,
    load: AtomicLoad,
    kind: OutcomeKind,
) -> CatalogChange {
    let outcome = RequestOutcome {
        time_ms: state.header().time_ms,
        kind,
        table_name: table.name.clone(),
        table_id: table.id,
        arguments: None,
    };
    CatalogChange { outcome: Some((load.area, outcome)), ..update_load(table, load) }
}

fn update_load(table: &Table, load: AtomicLoad) -> CatalogChange {
    let table = Table { change: Some(TableChange::Load(load)), ..table.clone() };
    CatalogChange { tables: vec![table], ..CatalogChange::default() }
}

/// Returns the load of a request id, while it can still be published or abandoned.
fn find_pending<'a>(
    state: &'a MetaState,
    area: Uuid,
    name: &str,
) -> Option<(&'a Table, AtomicLoad)> {
    let (table, load) = load_of(state.table_named(name)?)?;
    let is_pending = matches!(load.phase, LoadPhase::Opening | LoadPhase::Staging);
    (load.area == area && is_pending).then_some((table, load))
}

fn load_of(table: &Table) -> Option<(&Table, AtomicLoad)> {
    match &table.change {
        Some(TableChange::Load(load)) => Some((table, *load)),
        _ => None,
    }
}

/// Returns the load with the command's change number; `None` when the table has another change.
fn find_by_number<'a>(
    state: &'a MetaState,
    command: &v1::AdvanceLoad,
) -> Result<Option<(&'a Table, AtomicLoad)>, CommandError> {
    let id = TableId(command.table_id);
    let table = state.table(id).ok_or(CommandError::TableIdNotFound(id))?;
    Ok(load_of(table).filter(|_| table.changes == command.number))
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::meta_command::Kind;

    use super::*;
    use crate::commands::testing::{
        command, directory, pass, run, run_command, table, with_groups,
    };

    fn with_table() -> MetaState {
        let mut state = with_groups(1, 1);
        run(&mut state, Kind::CreateTable(table(1, "t"))).unwrap();
        run(&mut state, Kind::ActivateTable(v1::ActivateTable { table_id: 1 })).unwrap();
        state
    }

    fn begin(id: u64, timeout_ms: u64) -> Kind {
        let name = "t".to_owned();
        Kind::BeginLoad(v1::BeginLoadRequest { request_id: directory(id), name, timeout_ms })
    }

    fn end(id: u64, publish: bool) -> Kind {
        let name = "t".to_owned();
        Kind::EndLoad(v1::EndLoadRequest { request_id: directory(id), name, publish })
    }

    fn opened(number: u64) -> Kind {
        Kind::LoadOpened(v1::AdvanceLoad { table_id: 1, number })
    }

    fn expire(number: u64) -> Kind {
        Kind::ExpireLoad(v1::AdvanceLoad { table_id: 1, number })
    }

    fn finish(number: u64) -> Kind {
        Kind::FinishTableChange(v1::FinishTableChange { table_id: 1, number })
    }

    fn load(state: &MetaState) -> Option<AtomicLoad> {
        load_of(state.table(TableId(1)).unwrap()).map(|(_, load)| load)
    }

    fn phase(state: &MetaState) -> Option<LoadPhase> {
        load(state).map(|load| load.phase)
    }

    #[test]
    fn load_is_opened_staged_and_published() {
        let mut state = with_table();
        run(&mut state, begin(10, 0)).unwrap();
        assert_eq!(phase(&state), Some(LoadPhase::Opening));
        let error = run(&mut state, end(10, true)).unwrap_err();
        assert_eq!(error, CommandError::LoadNotOpen("t".to_owned()));
        run(&mut state, opened(1)).unwrap();
        assert_eq!(phase(&state), Some(LoadPhase::Staging));
        pass(&mut state, 1);
        run(&mut state, end(10, true)).unwrap();
        assert_eq!(phase(&state), Some(LoadPhase::Publishing));
        // After the point of no return, the load cannot be abandoned and does not expire.
        run(&mut state, end(10, false)).unwrap_err();
        pass(&mut state, 400);
        run(&mut state, expire(1)).unwrap();
        run(&mut state, opened(1)).unwrap();
        assert_eq!(phase(&state), Some(LoadPhase::Publishing));
        let drop =
            v1::DropTableRequest { request_id: directory(11), name: "t".to_owned(), table_id: 0 };
        let error = run(&mut state, Kind::BeginDropTable(drop)).unwrap_err();
        assert!(matches!(error, CommandError::TableBusy { operation: "loaded", .. }), "{error}");
        run(&mut state, finish(1)).unwrap();
        assert_eq!(load(&state), None);
        // The reply is the same after the load has ended.
        run(&mut state, end(10, true)).unwrap();
        let stored = MetaState::from_rows(state.rows().unwrap()).unwrap();
        assert_eq!(stored.outcomes_before(u64::MAX, 100), state.outcomes_before(u64::MAX, 100));
        run(&mut state, begin(10, 0)).unwrap_err();
    }

    #[test]
    fn load_is_abandoned_on_request_or_at_its_deadline() {
        let mut state = with_table();
        run(&mut state, begin(10, 0)).unwrap();
        run(&mut state, end(10, false)).unwrap();
        assert_eq!(phase(&state), Some(LoadPhase::Abandoning));
        run(&mut state, end(10, false)).unwrap();
        run(&mut state, finish(1)).unwrap();
        run(&mut state, begin(11, 5_000)).unwrap();
        run(&mut state, opened(2)).unwrap();
        run(&mut state, expire(2)).unwrap();
        pass(&mut state, 4);
        // A repeated request extends the deadline.
        run(&mut state, begin(11, 5_000)).unwrap();
        pass(&mut state, 4);
        run(&mut state, expire(2)).unwrap();
        assert_eq!(phase(&state), Some(LoadPhase::Staging));
        pass(&mut state, 2);
        run(&mut state, expire(2)).unwrap();
        assert_eq!(phase(&state), Some(LoadPhase::Abandoning));
        let error = run(&mut state, end(11, true)).unwrap_err();
        let ended = CommandError::LoadEnded { table: "t".to_owned(), outcome: "abandoned" };
        assert_eq!(error, ended);
        assert_eq!(run(&mut state, begin(11, 5_000)).unwrap_err(), ended);
    }

    #[test]
    fn new_deadline_is_published_under_older_rules_only() {
        for (rules, expected) in [(1, 1), (2, 0)] {
            let mut state = with_table();
            let begin = || v1::MetaCommand { rules, ..command(begin(10, 5_000)) };
            run_command(&mut state, begin()).unwrap();
            let (before, deadline_ms) =
                (state.header().revision.get(), load(&state).unwrap().deadline_ms);
            pass(&mut state, 2);
            run_command(&mut state, begin()).unwrap();
            assert_eq!(load(&state).unwrap().deadline_ms, deadline_ms + 2_000);
            assert_eq!(state.header().revision.get() - before, expected, "rules {rules}");
            let stored = MetaState::from_rows(state.rows().unwrap()).unwrap();
            assert_eq!(load(&stored), load(&state));
        }
    }

    #[test]
    fn default_timeout_of_a_load_is_documented() {
        let mut state = with_table();
        run(&mut state, begin(10, 0)).unwrap();
        let timeout_ms = load(&state).unwrap().deadline_ms - state.header().time_ms;
        let proto = include_str!("../../../proto/tidewater/v1/admin.proto");
        let documented = format!("0: {} minutes", timeout_ms / 60_000);
        assert!(proto.contains(&documented), "admin.proto does not have {documented:?}");
    }

    #[test]
    fn load_deadline_has_an_upper_limit() {
        let mut state = with_table();
        run(&mut state, begin(10, u64::MAX)).unwrap();
        let before = load(&state).unwrap();
        assert_eq!(before.deadline_ms, before.latest_ms);
        pass(&mut state, 10);
        run(&mut state, begin(10, u64::MAX)).unwrap();
        assert_eq!(load(&state).unwrap().deadline_ms, before.latest_ms);
    }

    #[test]
    fn table_with_a_load_accepts_only_a_drop() {
        let mut state = with_table();
        run(&mut state, begin(10, 0)).unwrap();
        let truncate = v1::TruncateTableRequest { request_id: directory(11), name: "t".to_owned() };
        for other in [begin(12, 0), Kind::BeginTruncateTable(truncate)] {
            let error = run(&mut state, other).unwrap_err();
            assert!(
                matches!(error, CommandError::TableBusy { operation: "loaded", .. }),
                "{error}"
            );
        }
        let drop =
            v1::DropTableRequest { request_id: directory(13), name: "t".to_owned(), table_id: 0 };
        run(&mut state, Kind::BeginDropTable(drop)).unwrap();
        run(&mut state, end(10, true)).unwrap_err();
        run(&mut state, opened(1)).unwrap();
    }

    #[test]
    fn unknown_load_cannot_be_ended() {
        let mut state = with_table();
        let error = run(&mut state, end(10, true)).unwrap_err();
        assert_eq!(error, CommandError::LoadNotFound("t".to_owned()));
        // The request id of another kind of request.
        run(&mut state, end(1, true)).unwrap_err();
        run(&mut state, begin(1, 0)).unwrap_err();
    }
}
