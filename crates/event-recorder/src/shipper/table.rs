//! Task of one table.

use std::sync::Arc;
use std::time::Duration;

use tidewater_events::{EventBatch, Handled, Notes};
use tokio::time::{Instant, timeout_at};

use super::Shipper;
use super::attempt::{Attempted, attempt};
use crate::retry::{BatchAttempts, NextAttempt};
use crate::spool::ClaimedBatch;
use crate::spool_notes::SpoolNotes;

/// Outcome of an attempt to have a batch persisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shipped {
    /// Its events are persisted or set aside.
    Complete,
    /// It ended without an effect; the next one has at most this number of events.
    Divided(usize),
    /// It is to be passed again after this time.
    Failed(Duration),
}

/// Passes the events of a table until its queue is empty; returns the table.
pub(super) async fn ship(shipper: Arc<Shipper>, table: String) -> String {
    let mut most = shipper.options.batch_events;
    let mut is_divided = false;
    let mut attempts = BatchAttempts::default();
    loop {
        if !shipper.wait_for_batch(&table, is_divided).await {
            return table;
        }
        let bytes = shipper.options.batch_limit();
        let name = table.clone();
        // A claim for each attempt: an aborted call may have left a note to a thread, which the spool refuses from now on.
        let claimed = match shipper.blocking(move |spool| spool.claim(&name, most, bytes)).await {
            Ok(Some(claimed)) => claimed,
            Ok(None) => return table,
            Err(error) => {
                shipper.problems.log("spool", "the event spool cannot be read", &error);
                shipper.pause(shipper.options.pause).await;
                continue;
            }
        };
        match shipper.ship(&table, claimed, &mut attempts).await {
            Shipped::Complete => {
                attempts = BatchAttempts::default();
                is_divided = false;
                most = (most * 2).min(shipper.options.batch_events);
            }
            Shipped::Divided(half) => {
                attempts = BatchAttempts::default();
                is_divided = true;
                most = half.max(1);
            }
            Shipped::Failed(wait) => shipper.pause(wait).await,
        }
    }
}

impl Shipper {
    /// Waits until the events of a table fill a batch, or the first of them has waited for the interval; returns false
    /// if there are none. `at_once`: does not wait for more events.
    async fn wait_for_batch(&self, table: &str, at_once: bool) -> bool {
        let mut sizes = self.spool.sizes();
        let mut closing = self.closing.clone();
        let due = Instant::now() + self.options.batch_interval;
        loop {
            let events = sizes.borrow_and_update().tables.get(table).copied().unwrap_or_default();
            if events.is_empty() {
                return false;
            }
            let is_full = events.waiting.events >= self.options.batch_events as u64
                || events.waiting.bytes >= self.options.batch_limit() as u64;
            let is_started = events.in_batch.events > 0;
            if at_once || is_full || is_started || *closing.borrow_and_update() {
                return true;
            }
            let changed = async {
                tokio::select! {
                    changed = sizes.changed() => changed.is_ok(),
                    changed = closing.changed() => changed.is_ok(),
                }
            };
            match timeout_at(due, changed).await {
                Ok(true) => {}
                Ok(false) | Err(_) => return true,
            }
        }
    }

    /// Passes a batch once. `attempts`: those with the same batch.
    async fn ship(
        &self,
        table: &str,
        claimed: ClaimedBatch,
        attempts: &mut BatchAttempts,
    ) -> Shipped {
        let events = claimed.events.len();
        if events == 0 {
            self.complete(table, &claimed, Handled::default()).await;
            return Shipped::Complete;
        }
        let notes = Notes::new(SpoolNotes::new(Arc::clone(&self.spool), table, &claimed));
        let batch = EventBatch::new(table, claimed.events.clone(), notes.clone());
        let limit = self.options.handle_timeout;
        let (failure, text) = match attempt(&self.handler, batch, limit, &self.problems).await {
            Attempted::Handled(handled) => {
                self.complete(table, &claimed, handled).await;
                return Shipped::Complete;
            }
            Attempted::Failed(failure, text) => (failure, text),
        };
        self.counters.count_retried();
        self.problems.log(table, "events were not written; they stay in the spool", &text);
        self.failing.record(table, &text);
        attempts.record(failure);
        let has_notes = notes.all().await.map_or(true, |notes| !notes.is_empty());
        match attempts.next(&self.options, events, has_notes) {
            NextAttempt::Retry(wait) => Shipped::Failed(wait),
            NextAttempt::Divide => {
                let name = table.to_owned();
                if self.until_done(move |spool| spool.release(&name, &claimed)).await {
                    Shipped::Divided(events / 2)
                } else {
                    Shipped::Failed(self.options.pause)
                }
            }
            NextAttempt::SetAside => {
                let ids = claimed.events.iter().map(|event| (event.id, text.clone()));
                let handled = Handled { set_aside: ids.collect() };
                self.complete(table, &claimed, handled).await;
                Shipped::Complete
            }
        }
    }
}
