//! Task of one table.

use std::sync::Arc;

use tidewater_events::{EventBatch, Handled, Notes};
use tokio::time::{Instant, timeout_at};

use super::Shipper;
use super::attempt::{Attempted, attempt};
use crate::retry::{BatchAttempts, NextAttempt};
use crate::spool::ClaimedBatch;
use crate::spool_notes::SpoolNotes;

/// Outcome of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shipped {
    /// Its events are persisted or set aside.
    Complete,
    /// It ended without an effect; the next one has at most this number of events.
    Divided(usize),
}

/// Passes the events of a table until its queue is empty; returns the table.
pub(super) async fn ship(shipper: Arc<Shipper>, table: String) -> String {
    let mut most = shipper.options.batch_events;
    let mut is_divided = false;
    loop {
        if !shipper.wait_for_batch(&table, is_divided).await {
            return table;
        }
        let bytes = shipper.options.batch_limit();
        let name = table.clone();
        let claimed = match shipper.blocking(move |spool| spool.claim(&name, most, bytes)).await {
            Ok(Some(claimed)) => claimed,
            Ok(None) => return table,
            Err(error) => {
                shipper.problems.log("spool", "the event spool cannot be read", &error);
                shipper.pause(shipper.options.pause).await;
                continue;
            }
        };
        let shipped = shipper.ship(&table, claimed).await;
        is_divided = shipped != Shipped::Complete;
        most = match shipped {
            Shipped::Complete => (most * 2).min(shipper.options.batch_events),
            Shipped::Divided(half) => half.max(1),
        };
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

    /// Passes a batch until it is complete or divided.
    async fn ship(&self, table: &str, claimed: ClaimedBatch) -> Shipped {
        let notes = Notes::new(SpoolNotes::new(Arc::clone(&self.spool), table, &claimed));
        let events = claimed.events.len();
        if events == 0 {
            self.complete(table, &claimed, Handled::default()).await;
            return Shipped::Complete;
        }
        let batch = EventBatch::new(table, claimed.events.clone(), notes);
        let mut attempts = BatchAttempts::default();
        loop {
            let limit = self.options.handle_timeout;
            let (failure, text) = match attempt(&self.handler, &batch, limit, &self.problems).await
            {
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
            let has_notes = batch.notes().all().await.map_or(true, |notes| !notes.is_empty());
            match attempts.next(&self.options, events, has_notes) {
                NextAttempt::Retry(wait) => self.pause(wait).await,
                NextAttempt::Divide => {
                    let (name, released) = (table.to_owned(), claimed.clone());
                    if self.until_done(move |spool| spool.release(&name, &released)).await {
                        return Shipped::Divided(events / 2);
                    }
                    self.pause(self.options.pause).await;
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
}
