//! The queue between groups and the flusher: ordered, and bounded in bytes.
//!
//! An operation without a waiting caller is *lazy*: it does not wake the flusher, and is written
//! with the next one that does. Each commit makes two of them (the committed index, the rows of the
//! state machine), so this halves the wake-ups and writes of a replica under small commands.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::error::StoreError;
use super::operation::{WriteOp, fail_ops};

/// Bytes that may wait lazily. More wake the flusher, so that they do not become one long write
/// ahead of an operation with a waiting caller.
const LAZY_BYTES: usize = 256 * 1024;

/// Next step of the flusher.
pub(super) enum FlusherStep {
    /// Write these operations.
    Ops(Vec<WriteOp>),
    /// No operation arrived within the interval.
    Idle,
    /// A write outside of the queue met a full disk: reopen the database.
    Reopen,
    /// The store is shut down, and the queue is empty.
    Stopped,
}

/// Queue of operations, with the signals between its producers and the flusher.
#[derive(Default)]
pub(super) struct FlushQueue {
    inner: Mutex<QueueState>,
    /// Wakes the flusher: there is work.
    work: Condvar,
    /// Wakes appends: bytes were taken out.
    capacity: Notify,
    /// Wakes writers outside of the queue: the database was reopened, or never will be.
    reopen_done: Condvar,
}

#[derive(Default)]
struct QueueState {
    ops: VecDeque<WriteOp>,
    bytes: usize,
    /// Set when an operation is not lazy, or when the lazy ones are too many bytes.
    urgent: bool,
    stopped: bool,
    failed: Option<StoreError>,
    reopen: bool,
    reopen_count: u64,
}

impl FlushQueue {
    /// Waits until less than `limit` bytes are queued. The queue may exceed its limit by the
    /// operation of one caller.
    pub(super) async fn wait_capacity(&self, limit: usize) {
        loop {
            let notified = self.capacity.notified();
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

    /// Returns the queued bytes.
    pub(super) fn bytes(&self) -> usize {
        self.inner.lock().bytes
    }

    /// Adds an operation. When the queue is closed, completes the operation with the error.
    pub(super) fn push(&self, op: WriteOp) -> Result<(), StoreError> {
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
            fail_ops(vec![op], &error);
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

    /// Takes queued operations up to `max_bytes`, at least one. Waits at most `idle` for an
    /// operation that is not lazy.
    pub(super) fn take(&self, max_bytes: usize, idle: Duration) -> FlusherStep {
        let mut inner = self.inner.lock();
        if !inner.urgent && !inner.stopped && !inner.reopen {
            self.work.wait_for(&mut inner, idle);
        }
        if inner.ops.is_empty() {
            return match (inner.stopped, inner.reopen) {
                (true, _) => FlusherStep::Stopped,
                (false, true) => FlusherStep::Reopen,
                (false, false) => FlusherStep::Idle,
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
        self.capacity.notify_waiters();
        FlusherStep::Ops(ops)
    }

    /// Takes all remaining operations.
    pub(super) fn drain(&self) -> Vec<WriteOp> {
        let mut inner = self.inner.lock();
        inner.bytes = 0;
        inner.ops.drain(..).collect()
    }

    /// Closes the queue for new operations; queued operations are still written.
    pub(super) fn stop(&self) {
        self.inner.lock().stopped = true;
        self.wake_all();
    }

    /// Closes the queue with an error for new operations.
    pub(super) fn fail(&self, error: StoreError) {
        self.inner.lock().failed = Some(error);
        self.wake_all();
    }

    /// Waits for the interval, or until the queue is stopped. Returns whether it is stopped.
    pub(super) fn wait_stopped(&self, interval: Duration) -> bool {
        let mut inner = self.inner.lock();
        let deadline = std::time::Instant::now() + interval;
        // New operations also wake this wait.
        while !inner.stopped {
            if self.work.wait_until(&mut inner, deadline).timed_out() {
                break;
            }
        }
        inner.stopped
    }

    /// Requests the flusher to reopen the database, and waits until it has. Blocking.
    pub(super) fn reopen_and_wait(&self) -> Result<(), StoreError> {
        let mut inner = self.inner.lock();
        inner.reopen = true;
        let seen = inner.reopen_count;
        self.work.notify_one();
        while inner.reopen_count == seen {
            if let Some(error) = &inner.failed {
                return Err(error.clone());
            }
            if inner.stopped {
                return Err(StoreError::Full);
            }
            self.reopen_done.wait(&mut inner);
        }
        Ok(())
    }

    /// Records that the database was reopened, and wakes its waiters.
    pub(super) fn mark_reopened(&self) {
        let mut inner = self.inner.lock();
        inner.reopen = false;
        inner.reopen_count += 1;
        drop(inner);
        self.reopen_done.notify_all();
    }

    fn wake_all(&self) {
        self.work.notify_all();
        self.reopen_done.notify_all();
        self.capacity.notify_waiters();
    }
}

impl std::fmt::Debug for FlushQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let inner = self.inner.lock();
        f.debug_struct("FlushQueue")
            .field("ops", &inner.ops.len())
            .field("bytes", &inner.bytes)
            .field("stopped", &inner.stopped)
            .finish()
    }
}
