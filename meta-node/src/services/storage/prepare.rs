//! Steps before a change of tables: an alteration that makes their oldest readable epochs their own, and the question to
//! their regions for these epochs.

use std::time::Duration;

use tidewater_common::ids::{Epoch, Term};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason};
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::StorageService;
use crate::catalog::MetaState;
use crate::commands::collections::check_level;
use crate::leader::barriers::ChangeInProgress;
use crate::leader::learned_sinces::{UnknownSince, learn, unknown_since};
use crate::services::RunningReplica;

/// Maximum time of the steps.
pub(super) const PREPARED_WITHIN: Duration = Duration::from_secs(30);
/// Pause before a step is repeated, and between looks for the first barrier of a term.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest wait for the first barrier of a term.
const BARRIER_WITHIN: Duration = Duration::from_secs(5);

/// A change of collections that can be proposed.
pub(super) struct PreparedChange {
    pub(super) term: Term,
    pub(super) learned: Vec<v1::LearnedSince>,
}

/// Tables of a change that need a step before it.
#[derive(Debug, Default, PartialEq)]
struct UnpreparedTables {
    /// Names of tables whose oldest readable epoch is not their own.
    to_alter: Vec<String>,
    /// Tables whose oldest readable epoch is not known.
    to_learn: Vec<UnknownSince>,
}

/// Returns the tables that need a step. The command refuses missing tables, and refreshable ones below their level.
fn unprepared(state: &MetaState, tables: &[String]) -> UnpreparedTables {
    let named = tables.iter().filter_map(|name| state.table_named(name));
    let held = named.filter(|table| check_level(state, table).is_ok());
    let mut found = UnpreparedTables::default();
    for table in held {
        if !table.options.explicit_since {
            found.to_alter.push(table.name.clone());
        }
        found.to_learn.extend(unknown_since(state, table.id));
    }
    found
}

impl StorageService {
    /// Takes the steps before a change of tables. Takes no time for tables with records.
    ///
    /// # Errors
    /// Nothing was proposed, apart from the alterations, which have no effect on rows.
    pub(super) async fn prepare(
        &self,
        running: &RunningReplica,
        tables: &[String],
    ) -> Result<PreparedChange, Refusal> {
        let deadline = Instant::now() + self.prepared_within;
        let mut last = None;
        loop {
            let step = timeout_at(deadline, self.step(running, tables)).await;
            match step.unwrap_or_else(|_| Err(Step::Repeat(last.take()))) {
                Ok(prepared) => return Ok(prepared),
                Err(Step::Refused(refusal)) => return Err(refusal),
                Err(Step::Repeat(problem)) if Instant::now() >= deadline => {
                    return Err(not_prepared(tables, self.prepared_within, problem.as_ref()));
                }
                Err(Step::Repeat(problem)) => last = problem,
            }
            sleep(PAUSE).await;
        }
    }

    /// Takes the next steps.
    async fn step(
        &self,
        running: &RunningReplica,
        tables: &[String],
    ) -> Result<PreparedChange, Step> {
        let term = running.group.check_leading().map_err(Step::Refused)?;
        let state = running.group.view.read();
        let unprepared = unprepared(&state, tables);
        for table in &unprepared.to_alter {
            self.make_since_own(running, table).await?;
        }
        if !unprepared.to_alter.is_empty() {
            return Err(Step::Repeat(None));
        }
        let mut learned = Vec::with_capacity(unprepared.to_learn.len());
        for table in &unprepared.to_learn {
            let since = learn(&running.control, &running.observations, &state, table).await;
            learned.push(since.map_err(|problem| Step::Repeat(Some(problem)))?);
        }
        Ok(PreparedChange { term, learned })
    }

    async fn make_since_own(&self, running: &RunningReplica, table: &str) -> Result<(), Step> {
        let request = v1::AlterTableRequest {
            request_id: Uuid::now_v7().to_string(),
            name: table.to_owned(),
            explicit_since: true,
            ..v1::AlterTableRequest::default()
        };
        let Err(refusal) = self.admin.alter(request).await else { return Ok(()) };
        let is_own = |table: &crate::catalog::Table| table.options.explicit_since;
        match running.group.view.read().table_named(table) {
            // Another call has altered it.
            Some(table) if is_own(table) => Ok(()),
            Some(_) if refusal.reason == Reason::TableBusy => Err(Step::Repeat(Some(refusal))),
            _ => Err(Step::Refused(refusal)),
        }
    }
}

/// Reason for which a change cannot be proposed yet.
enum Step {
    /// The steps are to be repeated.
    Repeat(Option<Refusal>),
    /// The change is refused.
    Refused(Refusal),
}

/// Returns the error of tables that were not prepared in time. Nothing was changed.
fn not_prepared(tables: &[String], limit: Duration, problem: Option<&Refusal>) -> Refusal {
    let tables = tables.join(", ");
    let problem = problem.map(|problem| format!(": {problem}")).unwrap_or_default();
    let limit = limit.as_secs();
    let text =
        format!("tables {tables} were not prepared for the change within {limit} s{problem}");
    Refusal::new(Reason::TableBusy, text)
}

/// Begins a change as of the last barrier. Waits for the first one of the term.
///
/// # Errors
/// No barrier was sent in time; nothing was proposed.
pub(super) async fn begin_change(
    running: &RunningReplica,
    term: Term,
) -> Result<ChangeInProgress, Refusal> {
    let sent = &running.observations.sent_epochs;
    after_a_barrier(running, term, || sent.begin_change(term)).await
}

/// Returns oldest readable epoch and epoch of the last barrier. Waits for the first one of the term.
///
/// # Errors
/// No barrier was sent in time, or this node does not lead.
pub(super) async fn last_barrier(running: &RunningReplica) -> Result<(Epoch, Epoch), Refusal> {
    let term = running.group.check_leading()?;
    after_a_barrier(running, term, || running.observations.sent_epochs.last(term)).await
}

/// Waits until `found` returns a value, which it does after the first barrier of a term.
async fn after_a_barrier<T>(
    running: &RunningReplica,
    term: Term,
    found: impl Fn() -> Option<T> + Send,
) -> Result<T, Refusal> {
    let deadline = Instant::now() + BARRIER_WITHIN;
    loop {
        if let Some(value) = found() {
            return Ok(value);
        }
        if running.group.check_leading()? != term {
            return Err(running.group.not_leader());
        }
        if Instant::now() >= deadline {
            let text = "the meta leader has sent no barrier yet";
            return Err(Refusal::new(Reason::Overloaded, text).retry_after(PAUSE));
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::TableId;
    use tidewater_proto::v1::meta_command::Kind;

    use super::*;
    use crate::commands::collections::testing::{acquire, change, with_tables};
    use crate::commands::testing::{run, table};

    #[test]
    fn tables_without_records_are_altered_and_asked() {
        let mut state = with_tables();
        run(&mut state, Kind::CreateTable(table(9, "new"))).unwrap();
        let names = ["t", "new", "nowhere"].map(str::to_owned);
        let found = unprepared(&state, &names);
        assert_eq!(found.to_alter, ["new"]);
        assert_eq!(found.to_learn, [unknown_since(&state, TableId(1)).unwrap()]);
        run(&mut state, change(20, acquire(1, "h", &["t"], 0))).unwrap();
        assert_eq!(unprepared(&state, &names[..1]), UnpreparedTables::default());
    }

    #[test]
    fn late_preparation_has_no_effect_and_names_the_problem() {
        let problem =
            Refusal::new(Reason::RegionLoading, "the leader of region 7 has not answered");
        let tables = ["t", "u"].map(str::to_owned);
        let refusal = not_prepared(&tables, PREPARED_WITHIN, Some(&problem));
        let expected = "tables t, u were not prepared for the change within 30 s";
        assert!(refusal.message.starts_with(expected), "{refusal}");
        assert!(refusal.message.contains("region 7"), "{refusal}");
    }
}
