//! Votes and entries of all groups of a node, in one RocksDB.
//!
//! Each group's log state (vote, committed, purged, last) and its most recent entries (the *tail*)
//! are kept in memory; the database is the durable copy. A change is made in memory and queued
//! under the group's lock. The *flusher*, one thread for all groups, makes the queue durable in
//! order. Appended entries can therefore be read immediately, apply and replication hardly ever
//! read the disk, and one synced write serves all groups.
//!
//! # Layout
//!
//! - `group`: a group's log, as openraft's log store; `state`: its decisions, without I/O; `tail`:
//!   the entries in memory.
//! - `operation`, `queue`, `flusher`: from memory to disk; `health`, `disk`: behaviour on a full
//!   disk.
//! - `reclaim`: release of the disk space of purged entries; `purge_points`: what compactions may
//!   drop; `usage`: bytes on disk.
//! - `database`: RocksDB, which can be reopened; `options`, `keys`, `read`: its settings, layout
//!   and reads.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rocksdb::{DB, WriteBatch};
use tidewater_common::ids::GroupId;
use tokio::sync::{oneshot, watch};

mod database;
mod disk;
mod error;
mod flusher;
mod group;
mod health;
mod keys;
mod operation;
mod options;
mod purge_points;
mod queue;
mod read;
mod reclaim;
mod shared;
mod state;
mod tail;
pub(crate) mod usage;

pub use database::Database;
pub use error::StoreError;
pub use flusher::FlushStats;
pub use group::GroupLog;
pub use health::{DiskHealth, retry_while_disk_full};
pub use options::LogStoreOptions;
pub use usage::LogUsage;

use database::WriteError;
#[cfg(test)]
pub(crate) use disk::Disk;
#[cfg(not(test))]
use disk::Disk;
use disk::SystemDisk;
use flusher::Flusher;
use operation::{WriteKind, WriteOp};
use purge_points::PurgePoints;
use queue::FlushQueue;
use reclaim::Reclaimer;
use shared::LogStoreContext;
use state::{GroupState, InMemoryLog};

/// The logs of all groups of a node, with the threads that flush them and release their space.
#[derive(Debug)]
pub struct LogStore {
    shared: Arc<LogStoreContext>,
    health: watch::Receiver<DiskHealth>,
    stats: Arc<Mutex<FlushStats>>,
    usage: Arc<Mutex<LogUsage>>,
    flusher: Mutex<Option<JoinHandle<()>>>,
    reclaimer: Mutex<Option<ReclaimerThread>>,
    /// Another reclaimer, for tests: passes without a thread.
    #[cfg(test)]
    manual_reclaimer: Reclaimer,
}

/// The reclaimer's thread, which ends when `stop` is dropped.
#[derive(Debug)]
struct ReclaimerThread {
    stop: mpsc::SyncSender<()>,
    thread: JoinHandle<()>,
}

impl LogStore {
    /// Opens the logs in a directory, creating it if missing. Blocking.
    pub fn open(dir: &Path, options: LogStoreOptions) -> Result<Arc<Self>, StoreError> {
        Self::open_on(dir, options, Arc::new(SystemDisk))
    }

    pub(crate) fn open_on(
        dir: &Path,
        options: LogStoreOptions,
        disk: Arc<dyn Disk>,
    ) -> Result<Arc<Self>, StoreError> {
        let purge_points = Arc::new(PurgePoints::default());
        let database = Database::open(dir, options.clone(), Arc::clone(&purge_points))?;
        let database = Arc::new(database);
        let groups: BTreeMap<_, _> = read::load_groups(&database, options.cache_bytes_per_group)?
            .into_iter()
            .map(|(id, log)| (id, Arc::new(GroupState { id, log: Mutex::new(log) })))
            .collect();
        let queue = Arc::new(FlushQueue::default());
        let stats = Arc::new(Mutex::new(FlushStats::default()));
        let (sender, health) = watch::channel(DiskHealth::Ok);
        let shared = Arc::new(LogStoreContext {
            database: Arc::clone(&database),
            queue: Arc::clone(&queue),
            groups: Mutex::new(groups),
            purge_points,
            reclaim_gate: tokio::sync::Mutex::new(()),
            pending_bytes: options.pending_bytes,
            cache_bytes_per_group: options.cache_bytes_per_group,
        });
        let usage = Arc::new(Mutex::new(LogUsage::default()));
        let reclaimer = Reclaimer {
            context: Arc::clone(&shared),
            disk: Arc::clone(&disk),
            options: options.clone(),
            usage: Arc::clone(&usage),
        };
        let flusher = Flusher {
            database,
            queue,
            disk,
            options,
            health: sender,
            stats: Arc::clone(&stats),
            must_reopen: false,
            scratch: Vec::new(),
        };
        let thread = std::thread::Builder::new()
            .name("raft-flusher".to_owned())
            .spawn(move || flusher.run())
            .map_err(|error| StoreError::Failed(format!("cannot start the flusher: {error}")))?;
        let store = Arc::new(Self {
            shared,
            health,
            stats,
            usage,
            flusher: Mutex::new(Some(thread)),
            reclaimer: Mutex::new(None),
            #[cfg(test)]
            manual_reclaimer: reclaimer.clone(),
        });
        let (stop, stopped) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("raft-reclaimer".to_owned())
            .spawn(move || reclaimer.run(&stopped))
            .map_err(|error| StoreError::Failed(format!("cannot start the reclaimer: {error}")))?;
        *store.reclaimer.lock() = Some(ReclaimerThread { stop, thread });
        Ok(store)
    }

    /// Returns the log of a group; it is empty when nothing is stored for the group.
    pub fn group(&self, id: GroupId) -> GroupLog {
        let mut groups = self.shared.groups.lock();
        let state = groups.entry(id).or_insert_with(|| {
            let log = Mutex::new(InMemoryLog::empty(self.shared.cache_bytes_per_group));
            Arc::new(GroupState { id, log })
        });
        GroupLog::new(Arc::clone(&self.shared), Arc::clone(state))
    }

    /// Returns the groups with a stored vote or entry.
    pub fn groups(&self) -> Vec<GroupId> {
        let groups = self.shared.groups.lock();
        groups.values().filter(|state| !state.log.lock().is_pristine()).map(|s| s.id).collect()
    }

    /// Returns whether no group has a stored vote or entry.
    pub fn is_empty(&self) -> bool {
        self.groups().is_empty()
    }

    /// Removes all data of a group, durably. Its Raft must have been shut down: remaining handles
    /// return [`StoreError::Closed`].
    pub async fn remove_group(&self, id: GroupId) -> Result<(), StoreError> {
        let Some(state) = self.shared.groups.lock().get(&id).cloned() else { return Ok(()) };
        let (done, result) = oneshot::channel();
        {
            let mut log = state.log.lock();
            log.removed = true;
            let op = WriteOp {
                group: Arc::clone(&state),
                kind: WriteKind::RemoveGroup { done },
                bytes: 64,
            };
            self.shared.queue.push(op)?;
        }
        let result = result
            .await
            .unwrap_or_else(|_| Err(StoreError::Closed("the flusher has ended".to_owned())));
        let _gate = self.shared.reclaim_gate.lock().await;
        self.shared.purge_points.withdraw(id);
        self.shared.groups.lock().remove(&id);
        result
    }

    /// Returns the health of the disk. Refuse proposals while it is [`DiskHealth::Full`]; exit when
    /// it is [`DiskHealth::Failed`].
    pub fn health(&self) -> watch::Receiver<DiskHealth> {
        self.health.clone()
    }

    /// Returns whether entries of other leaders should be accepted: not while the disk is full and
    /// half of the memory for pending writes is used.
    pub fn accepts_entries(&self) -> bool {
        *self.health.borrow() != DiskHealth::Full
            || self.shared.queue.bytes() < self.shared.pending_bytes / 2
    }

    /// Returns the flusher's counters.
    pub fn stats(&self) -> FlushStats {
        *self.stats.lock()
    }

    /// Returns the bytes on disk at the last pass of the reclaimer.
    pub fn usage(&self) -> LogUsage {
        *self.usage.lock()
    }

    /// Returns the database, for the caller's own column families. Do not keep a handle of RocksDB.
    pub fn db(&self) -> &Arc<Database> {
        &self.shared.database
    }

    /// Writes one batch to the caller's column families, durable when it returns. It is not ordered
    /// with the queue. `fill` runs again after a full disk. Blocking while the disk is full.
    pub fn write_synced(
        &self,
        fill: impl Fn(&DB, &mut WriteBatch) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        loop {
            match self.shared.database.write_once(true, &fill) {
                Ok(()) => return Ok(()),
                Err(WriteError::Other(error)) => return Err(error),
                Err(WriteError::NoSpace) => self.shared.queue.reopen_and_wait()?,
            }
        }
    }

    /// Fails pending and future writes if the disk is full. Call it before groups are stopped for
    /// good: a group whose Raft waits for a vote or a truncation would otherwise not stop before
    /// there is space. Does nothing while the disk accepts writes.
    pub fn fail_pending_if_full(&self) {
        if *self.health.borrow() == DiskHealth::Full {
            self.shared.queue.stop();
        }
    }

    /// Writes and completes the queue, and closes the database. While the disk is full, the queued
    /// writes fail instead. Blocking.
    pub fn shutdown(&self) {
        self.shared.queue.stop();
        let reclaimer = self.reclaimer.lock().take().map(|reclaimer| {
            drop(reclaimer.stop);
            reclaimer.thread
        });
        // A panic in a thread has been reported by the panic hook.
        if let Some(thread) = self.flusher.lock().take() {
            let _ = thread.join();
        }
        if let Some(thread) = reclaimer {
            // The flusher does not close the database after an error.
            self.shared.database.cancel_compactions();
            let _ = thread.join();
        }
    }
}

impl Drop for LogStore {
    fn drop(&mut self) {
        self.shutdown();
    }
}

#[cfg(test)]
mod tests;
