//! The reclaimer: one thread that releases the disk space of purged entries, off the path of Raft.
//!
//! The keys of the entries are (group, index), and each group is purged from its front. A *pass*
//!
//! 1. reads the purge points from the database, and makes them durable;
//! 2. deletes the files whose entries are all purged, which costs nothing else;
//! 3. compacts the neighbouring files whose dead entries are at least half of their bytes, when all
//!    dead entries together exceed a slack. A compaction drops the entries below the purge points
//!    ([`PurgePoints`](super::purge_points::PurgePoints)), as do RocksDB's own compactions.
//!
//! Files hold entries of several groups when the logs of many groups are flushed together. An idle
//! group pins no more than its own entries: step 3 copies them when the others are purged. The disk
//! therefore holds at most twice the live entries, the slack, and a few files of level 0.
//!
//! A compaction is followed by a pause of four times its duration, so that it takes at most a fifth
//! of the disk's and one core's time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Instant;

use parking_lot::Mutex;
use tidewater_common::ids::GroupId;

use super::Disk;
use super::error::StoreError;
use super::options::LogStoreOptions;
use super::shared::LogStoreContext;
use super::usage::LogUsage;
use crate::meters;

mod files;
pub(super) mod plan;

use files::LogFile;
use plan::{LiveLogs, LogSpan, MeasuredFile, span_to_compact};

/// Pause after a compaction, as a multiple of its duration.
const PAUSE_FACTOR: u32 = 4;
/// Largest total size of the files of one compaction, unless a single file is larger.
const COMPACTION_BYTES: u64 = 256 * 1024 * 1024;

#[derive(Debug, Clone)]
pub(super) struct Reclaimer {
    pub(super) context: Arc<LogStoreContext>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) options: LogStoreOptions,
    pub(super) usage: Arc<Mutex<LogUsage>>,
}

/// Bytes of log files that a pass has released.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ReleasedBytes {
    pub(super) deleted: u64,
    pub(super) compacted: u64,
}

impl Reclaimer {
    /// Runs until the sender of `stop` is dropped.
    pub(super) fn run(self, stop: &Receiver<()>) {
        let mut pause = self.options.reclaim_interval;
        while stop.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            let started = Instant::now();
            pause = self.options.reclaim_interval;
            match self.pass() {
                Ok(released) if released.compacted > 0 => {
                    pause = pause.max(started.elapsed() * PAUSE_FACTOR);
                }
                Ok(_) => {}
                // The flusher reports and repairs it, or the store is closing.
                Err(StoreError::Full | StoreError::Closed(_)) => {}
                Err(error) => tracing::warn!(%error, "cannot release the space of purged logs"),
            }
        }
    }

    /// Releases the space of entries that are purged. Blocking.
    pub(super) fn pass(&self) -> Result<ReleasedBytes, StoreError> {
        let mut released = ReleasedBytes::default();
        let logs = {
            // No group is created again during this block: see `LogStore::remove_group`.
            let _gate = self.context.reclaim_gate.blocking_lock();
            let logs = self.durable_purge_points()?;
            self.context.purge_points.publish(logs.0.clone());
            released.deleted = self.delete_whole_files(&logs)?;
            logs
        };
        let measured = self.measure(&logs)?;
        if let Some(span) =
            span_to_compact(&measured, self.options.reclaim_slack_bytes, COMPACTION_BYTES)
            && self.has_space_for(span, &measured)
        {
            let before = total_bytes(&files::list(&self.context.database)?);
            files::compact(&self.context.database, span)?;
            let after = total_bytes(&files::list(&self.context.database)?);
            // A lower bound: new entries may have been flushed since.
            released.compacted = before.saturating_sub(after).max(1);
            self.measure(&logs)?;
        }
        meters::record_released(released.deleted + released.compacted);
        if released != ReleasedBytes::default() {
            tracing::debug!(?released, "released the space of purged logs");
        }
        Ok(released)
    }

    /// Reads the purge points that are in the database and makes them durable. Purge points in
    /// memory may be ahead: a crash would forget them, but not a deletion of files.
    fn durable_purge_points(&self) -> Result<LiveLogs, StoreError> {
        let groups: Vec<GroupId> = {
            let groups = self.context.groups.lock();
            let present = groups.values().filter(|state| !state.log.lock().removed);
            present.map(|state| state.id).collect()
        };
        let mut live_from = BTreeMap::new();
        for group in groups {
            let purged = super::read::stored_purge_point(&self.context.database, group)?;
            live_from.insert(group, purged.map_or(0, |purged| purged.index + 1));
        }
        // Published points are durable: an idle node does not sync.
        if !self.context.purge_points.are_published(&live_from) {
            self.sync()?;
        }
        Ok(LiveLogs(live_from))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.disk.before_write().map_err(StoreError::Failed)?;
        self.context.database.sync()
    }

    fn delete_whole_files(&self, logs: &LiveLogs) -> Result<u64, StoreError> {
        let before = files::list(&self.context.database)?;
        for (group, first, last) in logs.purged() {
            let holds_purged = |file: &LogFile| {
                file.span.from >= (group, first) && file.span.from <= (group, last)
            };
            // Each deletion writes to the database's manifest.
            if before.iter().any(holds_purged) {
                files::delete_within(&self.context.database, group, first, last)?;
            }
        }
        let after = files::list(&self.context.database)?;
        Ok(before
            .iter()
            .filter(|file| after.iter().all(|other| other.name != file.name))
            .map(|file| file.bytes)
            .sum())
    }

    /// Measures all files, and publishes the sizes.
    fn measure(&self, logs: &LiveLogs) -> Result<Vec<MeasuredFile>, StoreError> {
        let database = &self.context.database;
        let listed = files::list(database)?;
        let mut measured = Vec::with_capacity(listed.len());
        for file in &listed {
            let mut spans = logs.live_within(file.span);
            spans.push(file.span);
            let mut sizes = files::sizes(database, &spans)?;
            let span_bytes = sizes.pop().unwrap_or(0);
            let live_bytes = sizes.iter().sum();
            let LogFile { span, level, bytes, .. } = *file;
            measured.push(MeasuredFile { span, level, bytes, span_bytes, live_bytes });
        }
        let live = logs.live_within(LogSpan::ALL);
        let sizes = files::sizes(database, &live)?;
        let largest = live.iter().zip(&sizes).max_by_key(|(_, bytes)| **bytes);
        let usage = LogUsage {
            file_bytes: total_bytes(&listed),
            live_bytes: sizes.iter().sum(),
            wal_bytes: files::wal_bytes(database.path()),
            largest_group: largest.map(|(span, bytes)| (span.from.0, *bytes)),
        };
        meters::set_log_usage(&usage);
        *self.usage.lock() = usage;
        Ok(measured)
    }

    /// Returns whether the disk has space for the result of a compaction, without coming near the
    /// floor below which nothing is written.
    fn has_space_for(&self, span: LogSpan, measured: &[MeasuredFile]) -> bool {
        let within =
            |file: &&MeasuredFile| span.from <= file.span.from && file.span.end <= span.end;
        let bytes: u64 = measured.iter().filter(within).map(|file| file.bytes).sum();
        let floor = self.options.free_space_floor;
        let needed = floor.saturating_add(floor / 4).saturating_add(bytes.saturating_mul(2));
        floor == 0
            || self.disk.free_bytes(self.context.database.path()).is_ok_and(|free| free >= needed)
    }
}

fn total_bytes(files: &[LogFile]) -> u64 {
    files.iter().map(|file| file.bytes).sum()
}
