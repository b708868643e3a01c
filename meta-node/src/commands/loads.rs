//! Atomic loads: begun, opened in every region, filled by the loader, then published or given up.
//!
//! A load is a change of its table, so the table takes no other one meanwhile. From the command that
//! publishes it there is no way back. Until then it is given up when its loader says so, or has not
//! been heard of for a while.

use tidewater_common::ids::TableId;
use tidewater_proto::v1::{self, LoadPhase};
use uuid::Uuid;

use super::alter_table::begin as begin_change;
use super::tables::request_id;
use super::{CommandError, Reply};
use crate::catalog::{Change, Load, MetaState, Outcome, OutcomeKind, Table, TableChange};

/// How long a load goes on without a word from its loader, unless that says otherwise.
const TIMEOUT_MS: u64 = 5 * 60_000;
/// How long a load may take, however often its loader is heard of.
const LONGEST_MS: u64 = 24 * 3_600_000;

/// Begins a load. Asking again while it goes on is the sign that the loader lives.
pub(super) fn begin(
    state: &MetaState,
    request: &v1::BeginLoadRequest,
) -> Result<(Reply, Change), CommandError> {
    let area = request_id(&request.request_id)?;
    let now_ms = state.header().time_ms;
    let timeout_ms = match request.timeout_ms {
        0 => TIMEOUT_MS,
        asked => asked.min(LONGEST_MS),
    };
    let deadline_ms = now_ms.saturating_add(timeout_ms);
    if let Some((table, load)) = running(state, area, &request.name) {
        let deadline_ms = deadline_ms.clamp(load.deadline_ms, load.latest_ms.max(load.deadline_ms));
        let change = with(table, Load { deadline_ms, ..load });
        return Ok((Reply::Table(table.id), change));
    }
    if let Some(outcome) = state.outcome(area) {
        let how = match outcome.kind {
            OutcomeKind::PublishLoad => "published",
            OutcomeKind::AbandonLoad => "given up",
            _ => return Err(CommandError::RequestIdReused(area)),
        };
        return Err(CommandError::LoadEnded { table: request.name.clone(), how });
    }
    let kind = OutcomeKind::BeginLoad;
    begin_change(state, kind, &request.request_id, &request.name, |_| {
        let latest_ms = now_ms.saturating_add(LONGEST_MS);
        let phase = LoadPhase::Opening;
        Ok(TableChange::Load(Load { area, deadline_ms, latest_ms, phase }))
    })
}

/// All regions have opened the staging area: the loader may begin.
pub(super) fn opened(state: &MetaState, command: &v1::AdvanceLoad) -> Result<Change, CommandError> {
    match numbered(state, command)? {
        Some((table, load)) if load.phase == LoadPhase::Opening => {
            Ok(with(table, Load { phase: LoadPhase::Staging, ..load }))
        }
        _ => Ok(Change::default()),
    }
}

/// Its time is up, by replicated time.
pub(super) fn expire(state: &MetaState, command: &v1::AdvanceLoad) -> Result<Change, CommandError> {
    match numbered(state, command)? {
        Some((table, load)) if is_overdue(state, &load) => Ok(end_as(
            state,
            table,
            Load { phase: LoadPhase::Abandoning, ..load },
            OutcomeKind::AbandonLoad,
        )),
        _ => Ok(Change::default()),
    }
}

/// Whether nobody has been heard of who could end the load.
pub(crate) fn is_overdue(state: &MetaState, load: &Load) -> bool {
    let waits = matches!(load.phase, LoadPhase::Opening | LoadPhase::Staging);
    waits && load.deadline_ms <= state.header().time_ms
}

/// Publishes a load or gives it up, as its loader says. Asking again gives the same answer.
pub(super) fn end(
    state: &MetaState,
    request: &v1::EndLoadRequest,
) -> Result<(Reply, Change), CommandError> {
    let area = request_id(&request.request_id)?;
    let name = &request.name;
    let outcome = state.outcome(area).filter(|outcome| outcome.table_name == *name);
    let outcome = outcome.ok_or_else(|| CommandError::LoadNotFound(name.clone()))?;
    let ended = |how| CommandError::LoadEnded { table: name.clone(), how };
    let wanted = match request.publish {
        true => (LoadPhase::Publishing, OutcomeKind::PublishLoad),
        false => (LoadPhase::Abandoning, OutcomeKind::AbandonLoad),
    };
    match outcome.kind {
        kind if kind == wanted.1 => {
            return Ok((Reply::Table(outcome.table_id), Change::default()));
        }
        OutcomeKind::PublishLoad => return Err(ended("published")),
        OutcomeKind::AbandonLoad => return Err(ended("given up")),
        OutcomeKind::BeginLoad => {}
        _ => return Err(CommandError::RequestIdReused(area)),
    }
    let (table, load) = running(state, area, name).ok_or_else(|| ended("dropped"))?;
    if request.publish && load.phase == LoadPhase::Opening {
        return Err(CommandError::LoadNotOpen(name.clone()));
    }
    let change = end_as(state, table, Load { phase: wanted.0, ..load }, wanted.1);
    Ok((Reply::Table(table.id), change))
}

fn end_as(state: &MetaState, table: &Table, load: Load, kind: OutcomeKind) -> Change {
    let (time_ms, table_id) = (state.header().time_ms, table.id);
    let outcome = Outcome { time_ms, kind, table_name: table.name.clone(), table_id };
    Change { outcome: Some((load.area, outcome)), ..with(table, load) }
}

fn with(table: &Table, load: Load) -> Change {
    let table = Table { change: Some(TableChange::Load(load)), ..table.clone() };
    Change { tables: vec![table], ..Change::default() }
}

/// The load of this request, while it can still be ended.
fn running<'a>(state: &'a MetaState, area: Uuid, name: &str) -> Option<(&'a Table, Load)> {
    let (table, load) = load_of(state.table_named(name)?)?;
    let waits = matches!(load.phase, LoadPhase::Opening | LoadPhase::Staging);
    (load.area == area && waits).then_some((table, load))
}

fn load_of(table: &Table) -> Option<(&Table, Load)> {
    match &table.change {
        Some(TableChange::Load(load)) => Some((table, *load)),
        _ => None,
    }
}

fn numbered<'a>(
    state: &'a MetaState,
    command: &v1::AdvanceLoad,
) -> Result<Option<(&'a Table, Load)>, CommandError> {
    let id = TableId(command.table_id);
    let table = state.table(id).ok_or(CommandError::TableIdNotFound(id))?;
    Ok(load_of(table).filter(|_| table.changes == command.number))
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::meta_command::Kind;

    use super::*;
    use crate::commands::testing::{directory, run, table, with_groups};

    fn with_table() -> MetaState {
        let mut state = with_groups(1, 1);
        run(&mut state, Kind::CreateTable(table(1, "t"))).unwrap();
        run(&mut state, Kind::ActivateTable(v1::ActivateTable { table_id: 1 })).unwrap();
        state
    }

    fn begin(id: u64, timeout_ms: u64) -> Kind {
        let (request_id, name) = (directory(id), "t".to_owned());
        Kind::BeginLoad(v1::BeginLoadRequest { request_id, name, timeout_ms })
    }

    fn end(id: u64, publish: bool) -> Kind {
        let (request_id, name) = (directory(id), "t".to_owned());
        Kind::EndLoad(v1::EndLoadRequest { request_id, name, publish })
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

    fn load(state: &MetaState) -> Option<Load> {
        load_of(state.table(TableId(1)).unwrap()).map(|(_, load)| load)
    }

    fn phase(state: &MetaState) -> Option<LoadPhase> {
        load(state).map(|load| load.phase)
    }

    /// Replicated time goes on by a second at a time.
    fn pass(state: &mut MetaState, seconds: u64) {
        for _ in 0..seconds {
            let now_ms = state.header().time_ms + 1_000;
            run(state, Kind::AdvanceTime(v1::AdvanceTime { now_ms })).unwrap();
        }
    }

    #[test]
    fn a_load_is_opened_published_and_over() {
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
        // No way back, and no expiry.
        run(&mut state, end(10, false)).unwrap_err();
        pass(&mut state, 400);
        run(&mut state, expire(1)).unwrap();
        run(&mut state, opened(1)).unwrap();
        assert_eq!(phase(&state), Some(LoadPhase::Publishing));
        let drop = v1::DropTableRequest { request_id: directory(11), name: "t".to_owned() };
        let error = run(&mut state, Kind::BeginDropTable(drop)).unwrap_err();
        assert!(matches!(error, CommandError::TableBusy { by: "loaded", .. }), "{error}");
        run(&mut state, finish(1)).unwrap();
        assert_eq!(load(&state), None);
        // The same answer, also when it is over.
        run(&mut state, end(10, true)).unwrap();
        let stored = MetaState::from_rows(state.rows().unwrap()).unwrap();
        assert_eq!(stored.outcomes_before(u64::MAX, 100), state.outcomes_before(u64::MAX, 100));
        run(&mut state, begin(10, 0)).unwrap_err();
    }

    #[test]
    fn a_load_is_given_up_by_its_loader_or_without_a_word_from_it() {
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
        // A sign of life.
        run(&mut state, begin(11, 5_000)).unwrap();
        pass(&mut state, 4);
        run(&mut state, expire(2)).unwrap();
        assert_eq!(phase(&state), Some(LoadPhase::Staging));
        pass(&mut state, 2);
        run(&mut state, expire(2)).unwrap();
        assert_eq!(phase(&state), Some(LoadPhase::Abandoning));
        let error = run(&mut state, end(11, true)).unwrap_err();
        let ended = CommandError::LoadEnded { table: "t".to_owned(), how: "given up" };
        assert_eq!(error, ended);
        assert_eq!(run(&mut state, begin(11, 5_000)).unwrap_err(), ended);
    }

    #[test]
    fn signs_of_life_do_not_help_for_ever() {
        let mut state = with_table();
        run(&mut state, begin(10, u64::MAX)).unwrap();
        let before = load(&state).unwrap();
        assert_eq!(before.deadline_ms, before.latest_ms);
        pass(&mut state, 10);
        run(&mut state, begin(10, u64::MAX)).unwrap();
        assert_eq!(load(&state).unwrap().deadline_ms, before.latest_ms);
    }

    #[test]
    fn a_table_that_is_loaded_takes_no_other_change_but_can_be_dropped() {
        let mut state = with_table();
        run(&mut state, begin(10, 0)).unwrap();
        let (request_id, name) = (directory(11), "t".to_owned());
        let truncate = v1::TruncateTableRequest { request_id, name };
        for other in [begin(12, 0), Kind::BeginTruncateTable(truncate)] {
            let error = run(&mut state, other).unwrap_err();
            assert!(matches!(error, CommandError::TableBusy { by: "loaded", .. }), "{error}");
        }
        let drop = v1::DropTableRequest { request_id: directory(13), name: "t".to_owned() };
        run(&mut state, Kind::BeginDropTable(drop)).unwrap();
        run(&mut state, end(10, true)).unwrap_err();
        run(&mut state, opened(1)).unwrap();
    }

    #[test]
    fn what_was_never_begun_cannot_be_ended() {
        let mut state = with_table();
        let error = run(&mut state, end(10, true)).unwrap_err();
        assert_eq!(error, CommandError::LoadNotFound("t".to_owned()));
        // The id of another request.
        run(&mut state, end(1, true)).unwrap_err();
        run(&mut state, begin(1, 0)).unwrap_err();
    }
}
