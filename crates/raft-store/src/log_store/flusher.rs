//! The flusher: one thread that writes the changes of all groups of a node, in order, with shared
//! syncs.
//!
//! Operations of all groups are in one queue. The flusher
//! takes the queued operations, writes them as one batch with at most one sync, and then completes
//! them in order; the next ones accumulate in parallel. The completion of an operation implies that
//! it and all before it are durable. Hence the order never changes, and after a failure no
//! operation completes with success.
//!
//! A full disk is not a failure: the batch is kept and written again when there is space, after the
//! database was reopened.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::database::{Database, WriteError};
use super::disk::Disk;
use super::error::StoreError;
use super::health::{DiskHealth, DiskSpace, disk_space};
use super::operation::{WriteOp, complete_ops, fail_ops, fill};
use super::options::LogStoreOptions;
use super::queue::{FlushQueue, FlusherStep};
use crate::meters;

/// Counters of the flusher.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlushStats {
    /// Batches written.
    pub batches: u64,
    /// Batches that were synced.
    pub syncs: u64,
    /// Entries written.
    pub entries: u64,
    /// Number of times that the database was reopened after a full disk.
    pub reopened: u64,
}

pub(super) struct Flusher {
    pub(super) database: Arc<Database>,
    pub(super) queue: Arc<FlushQueue>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) options: LogStoreOptions,
    pub(super) health: watch::Sender<DiskHealth>,
    pub(super) stats: Arc<Mutex<FlushStats>>,
    /// A write met a full disk: the database accepts no writes until it is reopened.
    pub(super) must_reopen: bool,
    pub(super) scratch: Vec<u8>,
}

impl Flusher {
    /// Runs until the queue is stopped and empty, or until a write fails.
    pub(super) fn run(mut self) {
        loop {
            let ops = match self.queue.take(self.options.batch_bytes, self.options.check_interval) {
                FlusherStep::Ops(ops) => ops,
                FlusherStep::Idle => {
                    self.check_disk();
                    continue;
                }
                FlusherStep::Reopen => {
                    self.must_reopen = true;
                    Vec::new()
                }
                FlusherStep::Stopped => {
                    self.database.close();
                    break;
                }
            };
            match self.write(&ops) {
                Ok(()) => complete_ops(ops),
                Err(error) => {
                    self.queue.fail(error.clone());
                    if let StoreError::Failed(message) = &error {
                        tracing::error!(
                            error = %message,
                            "the log store cannot write; restart this node"
                        );
                        self.health.send_replace(DiskHealth::Failed(message.clone()));
                    }
                    fail_ops(ops, &error);
                    fail_ops(self.queue.drain(), &error);
                    break;
                }
            }
        }
    }

    /// Writes a batch, waiting while the disk is full. Fails when the store is closed while the
    /// disk is full, or with an error that makes writing impossible.
    fn write(&mut self, ops: &[WriteOp]) -> Result<(), StoreError> {
        loop {
            if self.check_disk() != DiskSpace::None {
                match self.try_write(ops) {
                    Ok(()) => {
                        // The disk may have been full until now.
                        self.after_write();
                        return Ok(());
                    }
                    Err(WriteError::Other(error)) => {
                        return Err(StoreError::Failed(error.to_string()));
                    }
                    Err(WriteError::NoSpace) => {
                        self.must_reopen = true;
                        self.set_full(true);
                    }
                }
            }
            if self.queue.wait_stopped(self.options.check_interval) {
                return Err(StoreError::Full);
            }
        }
    }

    fn try_write(&mut self, ops: &[WriteOp]) -> Result<(), WriteError> {
        if self.must_reopen {
            match self.database.reopen() {
                Ok(()) => {
                    self.must_reopen = false;
                    self.stats.lock().reopened += 1;
                    self.queue.mark_reopened();
                    tracing::info!("log store reopened after the disk was full");
                }
                Err(StoreError::Full) => return Err(WriteError::NoSpace),
                Err(error) => return Err(WriteError::Other(error)),
            }
        }
        if ops.is_empty() {
            return Ok(());
        }
        if let Err(message) = self.disk.before_write() {
            return Err(if super::error::is_no_space(&message) {
                WriteError::NoSpace
            } else {
                WriteError::Other(StoreError::Failed(message))
            });
        }
        let sync = ops.iter().any(|op| op.kind.needs_sync());
        let started = Instant::now();
        let scratch = &mut self.scratch;
        let mut entries = 0;
        let mut bytes = 0;
        self.database.write_once(sync, |db, batch| {
            for op in ops {
                entries += fill(db, batch, op, scratch)?;
            }
            bytes = batch.size_in_bytes();
            Ok(())
        })?;
        let mut stats = self.stats.lock();
        stats.batches += 1;
        stats.syncs += u64::from(sync);
        stats.entries += entries;
        drop(stats);
        if sync {
            meters::record_sync(started.elapsed(), entries, bytes);
        }
        Ok(())
    }

    fn after_write(&mut self) {
        if self.options.free_space_floor == 0 {
            self.set_full(false);
        } else if *self.health.borrow() == DiskHealth::Full {
            self.check_disk();
        }
    }

    /// Compares free space with the floor and updates the health.
    fn check_disk(&mut self) -> DiskSpace {
        if self.options.free_space_floor == 0 {
            return DiskSpace::Enough;
        }
        let free = match self.disk.free_bytes(self.database.path()) {
            Ok(free) => free,
            Err(error) => {
                tracing::warn!(%error, "cannot read the free space of the disk");
                return DiskSpace::Enough;
            }
        };
        meters::set_disk_free(free);
        let was_low = *self.health.borrow() == DiskHealth::Full;
        let space = disk_space(free, self.options.free_space_floor, was_low);
        if space != DiskSpace::Enough && !was_low {
            tracing::warn!(
                free_bytes = free,
                floor_bytes = self.options.free_space_floor,
                "the disk is almost full; refusing new writes until there is space"
            );
        }
        match space {
            DiskSpace::Enough if !self.must_reopen => self.set_full(false),
            DiskSpace::Enough => {}
            DiskSpace::Low | DiskSpace::None => self.set_full(true),
        }
        space
    }

    fn set_full(&self, full: bool) {
        let new_health = if full { DiskHealth::Full } else { DiskHealth::Ok };
        self.health.send_if_modified(|health| {
            let changes = *health != new_health && !matches!(health, DiskHealth::Failed(_));
            if changes {
                *health = new_health;
            }
            changes
        });
    }
}
