//! Tasks that pass the events of the spool to the handler: one for each table, so that a table that cannot be written
//! holds up no other.

mod attempt;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use self::attempt::{Attempted, attempt};
use crate::counters::Counters;
use crate::handler::{EventBatch, EventHandler, Handled};
use crate::options::EventRecorderOptions;
use crate::problem_log::ProblemLog;
use crate::recorded::RecordedEvent;
use crate::retry::{AttemptFailure, BatchState, NextAttempt, next_attempt};
use crate::set_aside::SetAsideFile;
use crate::spool::{ClaimedBatch, Spool, SpoolError};

/// Wait before a task that has ended is started again.
const RESTART: Duration = Duration::from_secs(1);

/// State that the tasks share.
#[derive(Debug)]
pub(crate) struct Shipper {
    pub(crate) spool: Arc<Spool>,
    pub(crate) handler: Arc<dyn EventHandler>,
    pub(crate) options: EventRecorderOptions,
    pub(crate) counters: Arc<Counters>,
    pub(crate) set_aside: SetAsideFile,
    pub(crate) problems: Arc<ProblemLog>,
    /// Changes after each addition to the spool.
    pub(crate) added: watch::Receiver<u64>,
    /// True once no event follows: what is left is passed at once.
    pub(crate) closing: watch::Receiver<bool>,
}

/// Runs a task for each table until the spool is empty and closing, or the caller aborts it.
pub(crate) async fn run(shipper: Arc<Shipper>) {
    let mut added = shipper.added.clone();
    let mut closing = shipper.closing.clone();
    let mut tasks = JoinSet::new();
    let mut running = BTreeSet::new();
    loop {
        added.borrow_and_update();
        for (table, events) in shipper.spool.tables() {
            if events > 0 && running.insert(table.clone()) {
                tasks.spawn(ship_table(Arc::clone(&shipper), table));
            }
        }
        let is_closing = *closing.borrow_and_update();
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
            _ = closing.changed(), if !is_closing => {}
            changed = added.changed(), if !is_closing => {
                if changed.is_err() && tasks.is_empty() {
                    return;
                }
            }
            () = std::future::ready(()), if is_closing && tasks.is_empty() => return,
        }
    }
}

/// Passes the events of a table until its queue is empty; returns the table.
async fn ship_table(shipper: Arc<Shipper>, table: String) -> String {
    let mut most = shipper.options.batch_events;
    loop {
        if !shipper.wait_for_batch(&table).await {
            return table;
        }
        let (limit, bytes) = (most, shipper.options.batch_bytes);
        let name = table.clone();
        let claimed = match shipper.blocking(move |spool| spool.claim(&name, limit, bytes)).await {
            Ok(Some(claimed)) => claimed,
            Ok(None) => return table,
            Err(error) => {
                shipper.problems.log("spool", "the event spool cannot be read", &error);
                shipper.pause(shipper.options.pause).await;
                continue;
            }
        };
        most = match shipper.ship(&table, claimed).await {
            Shipped::Complete => (most * 2).min(shipper.options.batch_events),
            Shipped::Divided(half) => half,
        };
    }
}

/// Outcome of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shipped {
    /// Its events are persisted or set aside.
    Complete,
    /// It ended without an effect; the next one has at most this number of events.
    Divided(usize),
}

impl Shipper {
    /// Waits until the events of a table fill a batch, or the first of them has waited for the interval; returns false
    /// if there are none.
    async fn wait_for_batch(&self, table: &str) -> bool {
        let mut added = self.added.clone();
        let mut closing = self.closing.clone();
        let due = Instant::now() + self.options.batch_interval;
        loop {
            added.borrow_and_update();
            let events = self.spool.events_of(table);
            if events.waiting == 0 && events.in_batch == 0 {
                return false;
            }
            let is_full = events.waiting >= self.options.batch_events as u64;
            if is_full || events.in_batch > 0 || *closing.borrow_and_update() {
                return true;
            }
            let changed = async {
                tokio::select! {
                    changed = added.changed() => changed.is_ok(),
                    changed = closing.changed() => changed.is_ok(),
                }
            };
            match timeout_at(due, changed).await {
                Ok(true) => {}
                Ok(false) | Err(_) => return true,
            }
        }
    }

    /// Passes a batch until it is complete or divided.
    async fn ship(&self, table: &str, claimed: ClaimedBatch) -> Shipped {
        let batch = EventBatch::spooled(table, claimed.events.clone(), Arc::clone(&self.spool));
        let mut failures = 0;
        let mut only_panics = true;
        loop {
            let (failure, text) =
                match attempt(&self.handler, &batch, self.options.handle_timeout).await {
                    Attempted::Handled(handled) => {
                        self.complete(table, &claimed, handled).await;
                        return Shipped::Complete;
                    }
                    Attempted::Failed(failure, text) => (failure, text),
                };
            self.counters.count_retried();
            self.problems.log(table, "events were not written; they stay in the spool", &text);
            failures += 1;
            only_panics &= failure == AttemptFailure::Panicked;
            let has_notes = batch.notes().all().await.map_or(true, |notes| !notes.is_empty());
            let events = claimed.events.len();
            let state = BatchState { events, has_notes, failures, only_panics };
            match next_attempt(&self.options, state) {
                NextAttempt::Retry(wait) => self.pause(wait).await,
                NextAttempt::Divide => {
                    let name = table.to_owned();
                    let released = claimed.clone();
                    self.until_done(move |spool| spool.release(&name, &released)).await;
                    return Shipped::Divided(events / 2);
                }
                NextAttempt::SetAside => {
                    let ids = claimed.events.iter().map(|event| (event.id, text.clone()));
                    let handled = Handled { set_aside: ids.collect() };
                    self.complete(table, &claimed, handled).await;
                    return Shipped::Complete;
                }
            }
        }
    }

    /// Sets events aside, and removes the batch from the spool.
    async fn complete(&self, table: &str, claimed: &ClaimedBatch, handled: Handled) {
        let mut set_aside: Vec<(RecordedEvent, String)> = Vec::new();
        for (id, reason) in handled.set_aside {
            if set_aside.iter().any(|(known, _)| known.id == id) {
                continue;
            }
            if let Some(event) = claimed.events.iter().find(|event| event.id == id) {
                set_aside.push((event.clone(), reason));
            }
        }
        for error in &claimed.unreadable {
            self.problems.log("spool", "an event of the spool is lost", error);
        }
        for (_, reason) in &set_aside {
            self.problems.log(table, "an event was set aside", reason);
        }
        let aside = set_aside.len() as u64;
        while !set_aside.is_empty() {
            let file = self.set_aside.clone();
            let events = set_aside.clone();
            match tokio::task::spawn_blocking(move || file.append(&events)).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => self.problems.log("spool", "events cannot be set aside", &error),
                Err(error) => self.problems.log("spool", "events cannot be set aside", &error),
            }
            sleep(self.options.pause).await;
        }
        let (name, removed) = (table.to_owned(), claimed.clone());
        self.until_done(move |spool| spool.complete(&name, &removed)).await;
        let written = claimed.events.len() as u64 - aside;
        self.counters.count_written(written);
        self.counters.count_set_aside(aside + claimed.unreadable.len() as u64);
    }

    /// Repeats a change of the spool until the disk takes it.
    async fn until_done(
        &self,
        change: impl Fn(&Spool) -> Result<(), SpoolError> + Send + Sync + Clone + 'static,
    ) {
        loop {
            let change = change.clone();
            match self.blocking(move |spool| change(spool)).await {
                Ok(()) => return,
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
