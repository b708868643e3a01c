//! Tasks that pass the events of the spool to the handler: one for each table, so that a table that cannot be written
//! holds up no other.

mod attempt;
mod table;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidewater_events::{EventHandler, Handled, RecordedEvent};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::counters::Counters;
use crate::failing::FailingTables;
use crate::options::EventRecorderOptions;
use crate::problem_log::ProblemLog;
use crate::set_aside::{SetAside, SetAsideFile};
use crate::spool::{ClaimedBatch, Spool, SpoolError};

/// Wait before the tasks are started again after one has panicked.
const RESTART: Duration = Duration::from_secs(1);

/// State that the tasks share.
#[derive(Debug)]
pub(crate) struct Shipper {
    pub(crate) spool: Arc<Spool>,
    pub(crate) handler: Arc<dyn EventHandler>,
    pub(crate) options: EventRecorderOptions,
    pub(crate) counters: Arc<Counters>,
    pub(crate) set_aside: Arc<SetAsideFile>,
    pub(crate) problems: Arc<ProblemLog>,
    pub(crate) failing: Arc<FailingTables>,
    /// True once no event follows: what is left is passed at once.
    pub(crate) closing: watch::Receiver<bool>,
}

/// Runs a task for each table until the spool is empty and closing, or the caller aborts it.
pub(crate) async fn run(shipper: Arc<Shipper>) {
    let mut sizes = shipper.spool.sizes();
    let mut closing = shipper.closing.clone();
    let mut tasks = JoinSet::new();
    let mut running = BTreeSet::new();
    loop {
        let waiting: Vec<String> = {
            let sizes = sizes.borrow_and_update();
            let tables = sizes.tables.iter().filter(|(_, events)| !events.is_empty());
            tables.map(|(name, _)| name.clone()).collect()
        };
        for table in waiting {
            if running.insert(table.clone()) {
                tasks.spawn(table::ship(Arc::clone(&shipper), table));
            }
        }
        let is_closing = *closing.borrow_and_update();
        if is_closing && tasks.is_empty() {
            return;
        }
        tokio::select! {
            ended = tasks.join_next(), if !tasks.is_empty() => {
                if let Some(Ok(table)) = ended {
                    running.remove(&table);
                } else {
                    // A task has panicked: all are started again, since its table is unknown.
                    tasks.shutdown().await;
                    running.clear();
                    sleep(RESTART).await;
                }
            }
            changed = closing.changed(), if !is_closing => {
                if changed.is_err() {
                    // The recorder is dropped.
                    return;
                }
            }
            // The sender is part of the spool, which outlasts this task.
            _ = sizes.changed() => {}
        }
    }
}

impl Shipper {
    /// Sets events aside, and removes the batch from the spool.
    async fn complete(&self, table: &str, claimed: &ClaimedBatch, handled: Handled) {
        let mut set_aside: Vec<SetAside> = Vec::new();
        let mut aside: Vec<&RecordedEvent> = Vec::new();
        for (id, reason) in handled.set_aside {
            let found = claimed.events.iter().find(|event| event.id == id);
            let Some(event) = found.filter(|_| !aside.iter().any(|known| known.id == id)) else {
                continue;
            };
            self.problems.log(table, "an event was set aside", &reason);
            aside.push(event);
            set_aside.push(SetAside::Event { event: event.clone(), reason });
        }
        let is_aside = |event: &&RecordedEvent| aside.iter().any(|known| known.id == event.id);
        let written = claimed.events.iter().filter(|event| !is_aside(event)).count();
        for (record, reason) in &claimed.unreadable {
            self.problems.log(table, "an event of the spool cannot be read", reason);
            set_aside.push(SetAside::Record {
                table: table.to_owned(),
                record: record.clone(),
                reason: reason.clone(),
            });
        }
        let count = set_aside.len() as u64;
        let set_aside = Arc::new(set_aside);
        while !set_aside.is_empty() {
            let file = Arc::clone(&self.set_aside);
            let events = Arc::clone(&set_aside);
            let appended = tokio::task::spawn_blocking(move || file.append(&events)).await;
            let error = match appended {
                Ok(Ok(())) => break,
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            self.problems.log(table, "events cannot be set aside; they stay in the spool", &error);
            self.failing.record(table, &error);
            sleep(self.options.pause).await;
        }
        let name = table.to_owned();
        let removed = claimed.clone();
        self.until_done(move |spool| spool.complete(&name, &removed)).await;
        self.failing.clear(table);
        self.counters.count_written(written as u64);
        self.counters.count_set_aside(count);
    }

    /// Repeats a change of the spool until the disk takes it.
    async fn until_done<T: Send + 'static>(
        &self,
        change: impl Fn(&Spool) -> Result<T, SpoolError> + Send + Sync + Clone + 'static,
    ) -> T {
        loop {
            let change = change.clone();
            match self.blocking(move |spool| change(spool)).await {
                Ok(done) => return done,
                Err(error) => {
                    self.problems.log("spool", "the event spool cannot be written", &error);
                    sleep(self.options.pause).await;
                }
            }
        }
    }

    /// Waits; a closing recorder ends the wait.
    async fn pause(&self, wait: Duration) {
        let mut closing = self.closing.clone();
        let is_closing = *closing.borrow_and_update();
        tokio::select! {
            () = sleep(wait) => {}
            _ = closing.changed(), if !is_closing => {}
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Spool) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, SpoolError> {
        let spool = Arc::clone(&self.spool);
        match tokio::task::spawn_blocking(move || work(&spool)).await {
            Ok(result) => result,
            Err(error) => Err(self.spool.disk_error(&error)),
        }
    }
}
