//! Refreshable tables: their definition, settings, and the records of their refreshes. The steps of a refresh are those of
//! its procedure.

use bytes::Bytes;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{Generation, SourceId, TableId};
use tidewater_proto::v1::{
    self, AbandonCause, Reason, RefreshOutcome, RefreshRun, RefreshSettings, RefreshTrigger,
};
use uuid::Uuid;

use super::{CommandError, RefreshCommandError};
use crate::catalog::{CatalogChange, MetaState, Procedure, RUNS_KEPT, Refreshes, Source, Table};

/// Level of refreshable tables.
pub(crate) const REFRESH_LEVEL: FeatureLevel = FeatureLevel::new(6);
/// Default and greatest deadline of a refresh.
const MAX_DEADLINE_MS: u64 = 24 * 3_600_000;
/// Shortest interval and deadline.
const MIN_MS: u64 = 1_000;
/// Longest interval: a year.
const MAX_INTERVAL_MS: u64 = 366 * 24 * 3_600_000;
/// Share of the last refresh's rows below which a refresh fails, in percent.
const DEFAULT_MIN_ROWS_PERCENT: u32 = 50;
/// First wait after a failure. It doubles with each failure in a row.
const RETRY_FIRST_MS: u64 = 5_000;
/// Longest wait after a failure, unless the interval is longer.
const RETRY_LONGEST_MS: u64 = 600_000;
/// Least and greatest pause between two refreshes: a tenth of the interval, within these.
const MIN_PAUSE_MS: u64 = 500;
const MAX_PAUSE_MS: u64 = 60_000;
/// Retries in a row of a refresh that was requested.
const MANUAL_RETRIES: u32 = 1;

/// Source and refreshes of a new table.
pub(super) fn definition(
    state: &MetaState,
    table: TableId,
    definition: &v1::RefreshDefinition,
) -> Result<(Source, Refreshes), CommandError> {
    let level = state.header().feature_level;
    if level < REFRESH_LEVEL {
        return Err(CommandError::FeatureLevel { needed: REFRESH_LEVEL, level });
    }
    let settings = definition.settings.unwrap_or_default();
    check(&settings)?;
    // The revision of the table's creation: every later change has a greater one.
    let revision = state.header().revision.get();
    let id = SourceId(revision.checked_add(1).ok_or(CommandError::IdsUsedUp("source"))?);
    let source = Source {
        id,
        kind: definition.source_kind.clone(),
        config: definition.source_config.clone(),
    };
    let refreshes = Refreshes {
        table,
        source: id,
        generation: Generation(0),
        settings,
        paused: false,
        failures: 0,
        next_ms: (settings.interval_ms > 0).then_some(state.header().time_ms.max(1)),
        current: None,
        history: Vec::new(),
        published_rows: 0,
    };
    Ok((source, refreshes))
}

fn check(settings: &RefreshSettings) -> Result<(), RefreshCommandError> {
    let bad = |text| Err(RefreshCommandError::BadSetting(text));
    let RefreshSettings { interval_ms, deadline_ms, min_rows_percent } = *settings;
    if interval_ms != 0 && !(MIN_MS..=MAX_INTERVAL_MS).contains(&interval_ms) {
        return bad(
            "the interval of refreshes must be 1s to 366d, or 0 for refreshes on request only",
        );
    }
    if deadline_ms != 0 && !(MIN_MS..=MAX_DEADLINE_MS).contains(&deadline_ms) {
        return bad("the deadline of a refresh must be 1s to 24h");
    }
    if min_rows_percent.is_some_and(|percent| percent > 100) {
        return bad("the least share of rows must be 0 to 100 percent");
    }
    Ok(())
}

/// Pauses, resumes, or changes settings.
pub(super) fn alter(
    state: &MetaState,
    request: &v1::AlterRefreshRequest,
) -> Result<CatalogChange, CommandError> {
    let (_, refreshes) = named(state, &request.table)?;
    let mut altered = refreshes.clone();
    if let Some(settings) = request.settings {
        check(&settings)?;
        altered.settings = settings;
    }
    if let Some(paused) = request.paused {
        altered.paused = paused;
    }
    if altered == *refreshes {
        return Ok(CatalogChange::default());
    }
    if altered.settings.interval_ms != refreshes.settings.interval_ms {
        let interval_ms = altered.settings.interval_ms;
        let from_ms = refreshes.history.first().map_or(state.header().time_ms, |run| run.begun_ms);
        altered.next_ms = (interval_ms > 0).then_some(from_ms.saturating_add(interval_ms));
    }
    Ok(CatalogChange { refreshes: vec![altered], ..CatalogChange::default() })
}

/// Returns the refreshable table with this name.
///
/// # Errors
/// [`CommandError::TableNotFound`], [`RefreshCommandError::NotRefreshable`].
pub(crate) fn named<'a>(
    state: &'a MetaState,
    name: &str,
) -> Result<(&'a Table, &'a Refreshes), CommandError> {
    let table =
        state.table_named(name).ok_or_else(|| CommandError::TableNotFound(name.to_owned()))?;
    let refreshes = state.refreshes_of(table.id);
    let refreshes =
        refreshes.ok_or_else(|| RefreshCommandError::NotRefreshable(name.to_owned()))?;
    Ok((table, refreshes))
}

/// Refuses an operation that a refreshable table does not permit.
pub(crate) fn check_written_by_clients(
    state: &MetaState,
    table: &Table,
    operation: &'static str,
) -> Result<(), CommandError> {
    if state.refreshes_of(table.id).is_none() {
        return Ok(());
    }
    Err(RefreshCommandError::Refreshable { table: table.name.clone(), operation }.into())
}

/// Checks that a table can be refreshed from a source: 0: its own.
///
/// # Errors
/// [`CommandError::TableIdNotFound`] and [`RefreshCommandError`].
pub(super) fn validate_refreshable_table(
    state: &MetaState,
    table: TableId,
    named: SourceId,
) -> Result<(&Table, &Refreshes), CommandError> {
    let row = state.table(table).ok_or(CommandError::TableIdNotFound(table))?;
    let name = || row.name.clone();
    let refreshes =
        state.refreshes_of(table).ok_or_else(|| RefreshCommandError::NotRefreshable(name()))?;
    let expected = refreshes.source;
    if named != SourceId(0) && named != expected {
        return Err(RefreshCommandError::SourceMismatch { table: name(), expected, named }.into());
    }
    if let Some(current) = &refreshes.current {
        let generation = Generation(current.generation);
        return Err(RefreshCommandError::AlreadyRefreshing { table: name(), generation }.into());
    }
    Ok((row, refreshes))
}

/// Returns the refreshes with a new one in progress. One that a user requests counts its failures anew.
pub(super) fn begun(
    state: &MetaState,
    refreshes: &Refreshes,
    request: &v1::RefreshRequest,
    id: Uuid,
) -> Result<Refreshes, CommandError> {
    let generation = refreshes.generation.get().checked_add(1);
    let generation = Generation(generation.ok_or(CommandError::IdsUsedUp("generation"))?);
    let current = RefreshRun {
        generation: generation.get(),
        trigger: request.trigger,
        force: request.force,
        request_id: Bytes::copy_from_slice(id.as_bytes()),
        begun_ms: state.header().time_ms,
        ..RefreshRun::default()
    };
    let is_manual = request.trigger() == RefreshTrigger::Manual;
    let failures = if is_manual { 0 } else { refreshes.failures };
    let current = Some(current);
    Ok(Refreshes { generation, current, next_ms: None, failures, ..refreshes.clone() })
}

/// Returns the replicated time at which a refresh is abandoned.
pub(super) fn deadline_ms(state: &MetaState, settings: &RefreshSettings) -> u64 {
    let limit_ms = match settings.deadline_ms {
        0 => MAX_DEADLINE_MS,
        limit_ms => limit_ms,
    };
    state.header().time_ms.saturating_add(limit_ms)
}

/// Guards against a source that is empty or has shrunk, unless the refresh is forced.
pub(super) fn guard(
    refreshes: &Refreshes,
    rows: u64,
    force: bool,
) -> Result<(), RefreshCommandError> {
    let percent = refreshes.settings.min_rows_percent.unwrap_or(DEFAULT_MIN_ROWS_PERCENT);
    let before = refreshes.published_rows;
    let least = u128::from(before) * u128::from(percent);
    if force || u128::from(rows) * 100 >= least {
        return Ok(());
    }
    Err(RefreshCommandError::SourceShrunk { rows, before, percent })
}

/// Returns the refreshes after the one in progress was published and cleaned up.
pub(super) fn published(state: &MetaState, refreshes: &Refreshes) -> Refreshes {
    let rows = refreshes.current.as_ref().map_or(0, |run| run.source_rows);
    let mut ended = ended(state, refreshes, RefreshOutcome::Published);
    ended.failures = 0;
    ended.published_rows = rows;
    ended.next_ms = ended.history.first().and_then(|run| next_ms(&ended, run, run.begun_ms));
    ended
}

/// Returns the refreshes after the one in progress was abandoned. A failed one is retried.
pub(super) fn abandoned(
    state: &MetaState,
    refreshes: &Refreshes,
    procedure: &Procedure,
) -> Refreshes {
    let is_cancelled = procedure.cause == AbandonCause::Operator;
    let outcome = if is_cancelled { RefreshOutcome::Cancelled } else { RefreshOutcome::Failed };
    let mut ended = ended(state, refreshes, outcome);
    let Some(run) = ended.history.first_mut() else { return ended };
    if procedure.cause == AbandonCause::Deadline {
        run.error_reason = Reason::DeadlineExceeded.into();
        let cause = if run.error.is_empty() { String::new() } else { format!(": {}", run.error) };
        run.error = format!("the refresh was not complete at its deadline{cause}");
    }
    if !is_cancelled && run.error.is_empty() {
        let (reason, error) = match procedure.cause {
            AbandonCause::Superseded => {
                (Reason::ProcedureSuperseded, "a data group has ended the refresh of its region")
            }
            _ => (Reason::Internal, "the refresh was abandoned, and its error was not recorded"),
        };
        run.error_reason = reason.into();
        run.error = error.to_owned();
    }
    let run = run.clone();
    if is_cancelled {
        ended.next_ms = next_ms(&ended, &run, run.ended_ms);
        return ended;
    }
    ended.failures = ended.failures.saturating_add(1);
    let wait_ms = RETRY_FIRST_MS.saturating_mul(1 << ended.failures.saturating_sub(1).min(16));
    let wait_ms = wait_ms.min(RETRY_LONGEST_MS.max(ended.settings.interval_ms));
    let is_retried = ended.settings.interval_ms > 0
        || (ended.failures <= MANUAL_RETRIES
            && run.error_reason != i32::from(Reason::SourceShrunk));
    ended.next_ms = is_retried.then_some(state.header().time_ms.saturating_add(wait_ms));
    ended
}

fn ended(state: &MetaState, refreshes: &Refreshes, outcome: RefreshOutcome) -> Refreshes {
    let mut ended = Refreshes { current: None, ..refreshes.clone() };
    if let Some(run) = refreshes.current.clone() {
        let ended_ms = state.header().time_ms;
        ended.history.insert(0, RefreshRun { ended_ms, outcome: outcome.into(), ..run });
        ended.history.truncate(RUNS_KEPT);
    }
    ended
}

/// Returns the time of the refresh after `run`: one interval after `from_ms`, and up to a tenth later, so that tables that
/// were created together are not refreshed together. A refresh that takes as long as its interval leaves a pause for other
/// changes of its table.
fn next_ms(refreshes: &Refreshes, run: &RefreshRun, from_ms: u64) -> Option<u64> {
    let interval_ms = refreshes.settings.interval_ms;
    if interval_ms == 0 {
        return None;
    }
    let seed =
        [u64::from(refreshes.table.get()).to_le_bytes(), run.generation.to_le_bytes()].concat();
    let jitter_ms = u64::from(crc32c::crc32c(&seed)) % (interval_ms / 10).max(1);
    let pause_ms = (interval_ms / 10).clamp(MIN_PAUSE_MS, MAX_PAUSE_MS);
    let next_ms = from_ms.saturating_add(interval_ms).saturating_add(jitter_ms);
    Some(next_ms.max(run.ended_ms.saturating_add(pause_ms)))
}
