//! The one thread that writes: what all groups of a node have appended, in order, synced together.
//!
//! An *operation* is what a group wants written. Operations of all groups stand in one queue. The
//! flusher takes what is there, writes it as one batch with at most one sync, and then completes
//! the operations in order; meanwhile the next ones gather. Completing an operation says that it
//! and all before it are durable, so the order is never changed, and after a failure nothing is
//! completed with success any more.
//!
//! A full disk is not a failure: the batch is kept and written again when there is room, after the
//! database was opened anew.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use openraft::storage::IOFlushed;
use parking_lot::Mutex;
use prost::Message;
use rocksdb::{DB, WriteBatch};
use tokio::sync::{oneshot, watch};

use super::database::{Database, WriteError};
use super::disk::Disk;
use super::error::StoreError;
use super::health::{DiskHealth, Room, room};
use super::keys::{self, StateKind, log_key, state_key};
use super::options::LogStoreOptions;
use super::queue::{Next, Queue};
use super::state::GroupState;
use crate::meters;
use crate::types::{Entry, LogId, TypeConfig, Vote, wire};

/// Puts a state machine's rows into a batch. Runs again when the disk was full meanwhile.
pub(super) type Fill = Box<dyn Fn(&DB, &mut WriteBatch) -> Result<(), StoreError> + Send>;

/// What a group wants written.
pub(super) struct Op {
    pub(super) group: Arc<GroupState>,
    pub(super) kind: OpKind,
    /// Near enough; bounds queue and batches.
    pub(super) bytes: usize,
}

pub(super) enum OpKind {
    Append {
        epoch: u64,
        entries: Vec<Entry>,
        callback: IOFlushed<TypeConfig>,
    },
    Vote {
        vote: Vote,
        done: oneshot::Sender<Result<(), StoreError>>,
    },
    Committed(Option<LogId>),
    /// Removes entries with indexes from the first to before the second. Somebody waits for it: a
    /// snapshot that contradicts them may be kept right after it.
    Truncate {
        from: u64,
        end: u64,
        done: oneshot::Sender<Result<(), StoreError>>,
    },
    Purge {
        upto: LogId,
        remove: Option<(u64, u64)>,
    },
    /// Rows of the group's state machine. Somebody waits for them to be durable, or nobody does.
    State {
        fill: Fill,
        done: Option<oneshot::Sender<Result<(), StoreError>>>,
    },
    RemoveGroup {
        done: oneshot::Sender<Result<(), StoreError>>,
    },
}

impl OpKind {
    /// Whether somebody counts on it being durable. The others are written and made durable along
    /// with the next one that needs it, since the order is kept.
    pub(super) fn needs_sync(&self) -> bool {
        match self {
            Self::Append { .. }
            | Self::Vote { .. }
            | Self::Truncate { .. }
            | Self::RemoveGroup { .. } => true,
            Self::State { done, .. } => done.is_some(),
            Self::Committed(_) | Self::Purge { .. } => false,
        }
    }
}

/// What the flusher has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlushStats {
    /// Batches written.
    pub batches: u64,
    /// Batches that were synced.
    pub syncs: u64,
    /// Entries written.
    pub entries: u64,
    /// How often the database was opened again after a full disk.
    pub reopened: u64,
}

pub(super) struct Flusher {
    pub(super) database: Arc<Database>,
    pub(super) queue: Arc<Queue>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) options: LogStoreOptions,
    pub(super) health: watch::Sender<DiskHealth>,
    pub(super) stats: Arc<Mutex<FlushStats>>,
    /// A write met a full disk: the database takes no more until it is opened again.
    pub(super) must_reopen: bool,
    pub(super) scratch: Vec<u8>,
}

impl Flusher {
    /// Runs until the queue is stopped and empty, or a write has failed.
    pub(super) fn run(mut self) {
        loop {
            let ops = match self.queue.take(self.options.batch_bytes, self.options.check_interval) {
                Next::Ops(ops) => ops,
                Next::Idle => {
                    self.look_at_disk();
                    continue;
                }
                Next::Reopen => {
                    self.must_reopen = true;
                    Vec::new()
                }
                Next::Stopped => {
                    self.database.close();
                    break;
                }
            };
            match self.write(&ops) {
                Ok(()) => complete(ops),
                Err(error) => {
                    self.queue.fail(error.clone());
                    if let StoreError::Failed(message) = &error {
                        tracing::error!(
                            error = %message,
                            "the log store cannot write: this node must be restarted"
                        );
                        self.health.send_replace(DiskHealth::Failed(message.clone()));
                    }
                    abandon(ops, &error);
                    abandon(self.queue.drain(), &error);
                    break;
                }
            }
        }
    }

    /// Writes a batch, however long the disk is full. Fails when it is full and the store is being
    /// closed, or with what makes writing impossible.
    fn write(&mut self, ops: &[Op]) -> Result<(), StoreError> {
        loop {
            if self.look_at_disk() != Room::None {
                match self.try_write(ops) {
                    Ok(()) => {
                        // It may have been full until now.
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

    fn try_write(&mut self, ops: &[Op]) -> Result<(), WriteError> {
        if self.must_reopen {
            match self.database.reopen() {
                Ok(()) => {
                    self.must_reopen = false;
                    self.stats.lock().reopened += 1;
                    self.queue.reopened();
                    tracing::info!("the log store was opened again after the disk was full");
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
            self.look_at_disk();
        }
    }

    /// Compares free space with the floor and says so in the health.
    fn look_at_disk(&mut self) -> Room {
        if self.options.free_space_floor == 0 {
            return Room::Enough;
        }
        let free = match self.disk.free_bytes(self.database.path()) {
            Ok(free) => free,
            Err(error) => {
                tracing::warn!(%error, "cannot tell how much room the disk has");
                return Room::Enough;
            }
        };
        meters::set_disk_free(free);
        let was_low = *self.health.borrow() == DiskHealth::Full;
        let room = room(free, self.options.free_space_floor, was_low);
        if room != Room::Enough && !was_low {
            tracing::warn!(
                free_bytes = free,
                floor_bytes = self.options.free_space_floor,
                "the disk is almost full: no new writes are taken until there is room"
            );
        }
        match room {
            Room::Enough if !self.must_reopen => self.set_full(false),
            Room::Enough => {}
            Room::Low | Room::None => self.set_full(true),
        }
        room
    }

    fn set_full(&self, full: bool) {
        let wanted = if full { DiskHealth::Full } else { DiskHealth::Ok };
        self.health.send_if_modified(|health| {
            let changes = *health != wanted && !matches!(health, DiskHealth::Failed(_));
            if changes {
                *health = wanted;
            }
            changes
        });
    }
}

/// Puts an operation into a batch; answers how many entries it holds.
fn fill(
    db: &DB,
    batch: &mut WriteBatch,
    op: &Op,
    scratch: &mut Vec<u8>,
) -> Result<u64, StoreError> {
    let family = |name: &str| {
        db.cf_handle(name)
            .ok_or_else(|| StoreError::Failed(format!("column family {name} is missing")))
    };
    let group = op.group.id;
    let state = family(keys::STATE)?;
    match &op.kind {
        OpKind::Append { entries, .. } => {
            let log = family(keys::LOG)?;
            for entry in entries {
                scratch.clear();
                wire::entry_to_wire(entry).encode_raw(scratch);
                batch.put_cf(log, log_key(group, entry.log_id.index), &scratch);
            }
            return Ok(entries.len() as u64);
        }
        OpKind::Vote { vote, .. } => {
            let value = wire::vote_to_wire(vote).encode_to_vec();
            batch.put_cf(state, state_key(group, StateKind::Vote), value);
        }
        OpKind::Committed(committed) => match committed {
            Some(id) => {
                let value = wire::log_id_to_wire(id).encode_to_vec();
                batch.put_cf(state, state_key(group, StateKind::Committed), value);
            }
            None => batch.delete_cf(state, state_key(group, StateKind::Committed)),
        },
        OpKind::Truncate { from, end, .. } => {
            batch.delete_range_cf(family(keys::LOG)?, log_key(group, *from), log_key(group, *end));
        }
        OpKind::Purge { upto, remove } => {
            let value = wire::log_id_to_wire(upto).encode_to_vec();
            batch.put_cf(state, state_key(group, StateKind::Purged), value);
            if let Some((from, end)) = remove {
                let log = family(keys::LOG)?;
                batch.delete_range_cf(log, log_key(group, *from), log_key(group, *end));
            }
        }
        OpKind::State { fill, .. } => fill(db, batch)?,
        OpKind::RemoveGroup { .. } => {
            let (from, end) = (log_key(group, 0), log_key(group, u64::MAX));
            batch.delete_range_cf(family(keys::LOG)?, from, end);
            for kind in [StateKind::Vote, StateKind::Committed, StateKind::Purged] {
                batch.delete_cf(state, state_key(group, kind));
            }
        }
    }
    Ok(0)
}

fn complete(ops: Vec<Op>) {
    for op in ops {
        match op.kind {
            OpKind::Append { epoch, entries, callback } => {
                if let Some(last) = entries.last() {
                    op.group.log.lock().tail.mark_flushed(epoch, last.log_id.index + 1);
                }
                callback.io_completed(Ok(()));
            }
            OpKind::Vote { done, .. }
            | OpKind::Truncate { done, .. }
            | OpKind::RemoveGroup { done }
            | OpKind::State { done: Some(done), .. } => {
                // The caller may have gone.
                let _ = done.send(Ok(()));
            }
            OpKind::State { done: None, .. } | OpKind::Committed(_) | OpKind::Purge { .. } => {}
        }
    }
}

pub(super) fn abandon(ops: Vec<Op>, error: &StoreError) {
    for op in ops {
        match op.kind {
            OpKind::Append { callback, .. } => {
                callback.io_completed(Err(io::Error::from(error.clone())));
            }
            OpKind::Vote { done, .. }
            | OpKind::Truncate { done, .. }
            | OpKind::RemoveGroup { done }
            | OpKind::State { done: Some(done), .. } => {
                let _ = done.send(Err(error.clone()));
            }
            OpKind::State { done: None, .. } | OpKind::Committed(_) | OpKind::Purge { .. } => {}
        }
    }
}
