//! The queue between groups and the flusher: ordered, and bounded in bytes.
//!
//! An operation for whose durability nobody waits is *lazy*: it does not wake the flusher, but goes
//! along with the next one that does. Each commit makes two of them (the committed index, the rows
//! of the state machine), so this halves the wake-ups and writes of a replica under small commands.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::error::StoreError;
use super::flusher::{Op, abandon};

/// Bytes that may wait lazily. More wake the flusher, so that they do not become one long write in
/// front of somebody who waits.
const LAZY_BYTES: usize = 256 * 1024;

/// What the flusher is to do next.
pub(super) enum Next {
    /// Write these.
    Ops(Vec<Op>),
    /// Nothing came within the interval.
    Idle,
    /// A write outside of the queue met a full disk: open the database again.
    Reopen,
    /// The store is shut down, and nothing is left.
    Stopped,
}

/// See the module.
#[derive(Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    /// For the flusher: something to do.
    work: Condvar,
    /// For appends: bytes were taken out.
    room: Notify,
    /// For writers outside of the queue: the database was opened again, or never will be.
    reopened: Condvar,
}

#[derive(Default)]
struct Inner {
    ops: VecDeque<Op>,
    bytes: usize,
    /// Something in it is not lazy, or it is too much to be.
    urgent: bool,
    stopped: bool,
    failed: Option<StoreError>,
    reopen: bool,
    reopened: u64,
}

impl Queue {
    /// Waits until less than `limit` bytes are queued. A queue may exceed its limit by what one
    /// caller adds.
    pub(super) async fn wait_room(&self, limit: usize) {
        loop {
            let notified = self.room.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            {
                let inner = self.inner.lock();
                if inner.bytes < limit || inner.stopped || inner.failed.is_some() {
                    return;
                }
            }
            notified.await;
        }
    }

    /// Bytes that are queued.
    pub(super) fn bytes(&self) -> usize {
        self.inner.lock().bytes
    }

    /// Adds an operation. One that is not taken any more is completed with the error.
    pub(super) fn push(&self, op: Op) -> Result<(), StoreError> {
        let mut inner = self.inner.lock();
        let refused = match &inner.failed {
            Some(error) => Some(error.clone()),
            None if inner.stopped => {
                Some(StoreError::Closed("writes: the node is shutting down".to_owned()))
            }
            None => None,
        };
        if let Some(error) = refused {
            drop(inner);
            abandon(vec![op], &error);
            return Err(error);
        }
        inner.bytes += op.bytes;
        let wakes = !inner.urgent && (op.kind.needs_sync() || inner.bytes > LAZY_BYTES);
        inner.urgent |= wakes;
        inner.ops.push_back(op);
        drop(inner);
        if wakes {
            self.work.notify_one();
        }
        Ok(())
    }

    /// Takes what is there, up to `max_bytes`, at least one; waits at most `idle` for more than lazy
    /// operations.
    pub(super) fn take(&self, max_bytes: usize, idle: Duration) -> Next {
        let mut inner = self.inner.lock();
        if !inner.urgent && !inner.stopped && !inner.reopen {
            self.work.wait_for(&mut inner, idle);
        }
        if inner.ops.is_empty() {
            return match (inner.stopped, inner.reopen) {
                (true, _) => Next::Stopped,
                (false, true) => Next::Reopen,
                (false, false) => Next::Idle,
            };
        }
        let mut ops = Vec::new();
        let mut bytes = 0;
        while let Some(op) = inner.ops.front() {
            if !ops.is_empty() && bytes + op.bytes > max_bytes {
                break;
            }
            bytes += op.bytes;
            ops.extend(inner.ops.pop_front());
        }
        inner.bytes -= bytes;
        inner.urgent = !inner.ops.is_empty();
        drop(inner);
        self.room.notify_waiters();
        Next::Ops(ops)
    }

    /// Takes all that is left.
    pub(super) fn drain(&self) -> Vec<Op> {
        let mut inner = self.inner.lock();
        inner.bytes = 0;
        inner.ops.drain(..).collect()
    }

    /// Takes no more operations; those queued are still written.
    pub(super) fn stop(&self) {
        self.inner.lock().stopped = true;
        self.wake_all();
    }

    /// Takes no more operations, for this reason.
    pub(super) fn fail(&self, error: StoreError) {
        self.inner.lock().failed = Some(error);
        self.wake_all();
    }

    /// Waits for the interval, or less when the queue is stopped; whether it is.
    pub(super) fn wait_stopped(&self, interval: Duration) -> bool {
        let mut inner = self.inner.lock();
        let deadline = std::time::Instant::now() + interval;
        // Operations that are added meanwhile wake this up, too.
        while !inner.stopped {
            if self.work.wait_until(&mut inner, deadline).timed_out() {
                break;
            }
        }
        inner.stopped
    }

    /// Asks the flusher to open the database again, and waits until it has. Blocking.
    pub(super) fn reopen_and_wait(&self) -> Result<(), StoreError> {
        let mut inner = self.inner.lock();
        inner.reopen = true;
        let seen = inner.reopened;
        self.work.notify_one();
        while inner.reopened == seen {
            if let Some(error) = &inner.failed {
                return Err(error.clone());
            }
            if inner.stopped {
                return Err(StoreError::Full);
            }
            self.reopened.wait(&mut inner);
        }
        Ok(())
    }

    /// The database was opened again.
    pub(super) fn reopened(&self) {
        let mut inner = self.inner.lock();
        inner.reopen = false;
        inner.reopened += 1;
        drop(inner);
        self.reopened.notify_all();
    }

    fn wake_all(&self) {
        self.work.notify_all();
        self.reopened.notify_all();
        self.room.notify_waiters();
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let inner = self.inner.lock();
        f.debug_struct("Queue")
            .field("ops", &inner.ops.len())
            .field("bytes", &inner.bytes)
            .field("stopped", &inner.stopped)
            .finish()
    }
}
