//! The log of one group, as openraft's log store; `reader`: as its log reader.

use std::io;
use std::sync::Arc;

use futures::stream::{self, Stream, StreamExt};
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use rocksdb::{DB, WriteBatch};
use tidewater_common::ids::GroupId;
use tokio::sync::oneshot;

use super::error::StoreError;
use super::operation::{WriteKind, WriteOp};
use super::read::read_stored;
use super::shared::LogStoreContext;
use super::state::{GroupState, ReadPlan};
use super::tail::entry_bytes;
use crate::config::APPEND_BYTES;
use crate::types::{Entry, LogId, TypeConfig, Vote};

mod append_check;
mod reader;

/// A group's log. Clones are the same log; openraft uses one as its log store and others as
/// readers.
#[derive(Debug, Clone)]
pub struct GroupLog {
    shared: Arc<LogStoreContext>,
    state: Arc<GroupState>,
}

impl GroupLog {
    pub(super) fn new(shared: Arc<LogStoreContext>, state: Arc<GroupState>) -> Self {
        Self { shared, state }
    }

    /// Returns the id of the group.
    pub fn group_id(&self) -> GroupId {
        self.state.id
    }

    /// Returns the id of the last entry, or of the last purged one when there is none.
    pub fn last_log_id(&self) -> Option<LogId> {
        let log = self.state.log.lock();
        log.last.max(log.purged)
    }

    /// Returns the id of the last purged entry.
    pub fn purged(&self) -> Option<LogId> {
        self.state.log.lock().purged
    }

    /// Stores the initial vote durably, unless a vote or an entry was stored before. From then on,
    /// [`LogStore::groups`](super::LogStore::groups) lists the group, also after a restart. Openraft stores nothing
    /// before its first message.
    pub async fn establish(&self) -> Result<(), StoreError> {
        let (done, result) = oneshot::channel();
        let vote = Vote::new(0, 0);
        let is_new = self.change(|log| {
            if !log.is_pristine() {
                return Ok((None, false));
            }
            log.vote = Some(vote);
            Ok((Some((WriteKind::Vote { vote, done }, 64)), true))
        })?;
        if is_new {
            wait_flushed(result, "votes").await?;
        }
        Ok(())
    }

    /// Changes the log in memory and queues the operation that makes the change durable. Both
    /// happen under one lock, so that the queue has the order of the changes.
    fn change<T>(
        &self,
        change: impl FnOnce(
            &mut super::state::InMemoryLog,
        ) -> Result<(Option<(WriteKind, usize)>, T), StoreError>,
    ) -> Result<T, StoreError> {
        let mut log = self.state.log.lock();
        if log.removed {
            return Err(StoreError::Closed(format!("group {}: it was removed", self.state.id)));
        }
        let (op, answer) = change(&mut log)?;
        if let Some((kind, bytes)) = op {
            let op = WriteOp { group: Arc::clone(&self.state), kind, bytes };
            self.shared.queue.push(op)?;
        }
        Ok(answer)
    }

    /// Queues rows of the group's state machine for the caller's own column families, in order with
    /// its log, and waits only while the queue is full. The rows are durable at the latest with the
    /// next entry or vote of any group, and before any part of the log is purged after this call.
    /// Until then the log must hold the same changes. `fill` runs again after a full disk; `bytes`
    /// is the approximate size that it adds.
    pub async fn write_behind(
        &self,
        bytes: usize,
        fill: impl Fn(&DB, &mut WriteBatch) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        let kind = WriteKind::State { fill: Box::new(fill), done: None };
        self.shared.queue.wait_capacity(self.shared.pending_bytes).await;
        self.change(|_| Ok((Some((kind, bytes)), ())))
    }

    /// Like [`GroupLog::write_behind`], but durable when it returns, with all operations queued
    /// before it.
    pub async fn write_durably(
        &self,
        bytes: usize,
        fill: impl Fn(&DB, &mut WriteBatch) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        let (done, result) = oneshot::channel();
        let kind = WriteKind::State { fill: Box::new(fill), done: Some(done) };
        self.change(|_| Ok((Some((kind, bytes)), ())))?;
        wait_flushed(result, "rows").await
    }

    async fn read(&self, start: u64, end: u64, max_bytes: usize) -> Result<Vec<Entry>, StoreError> {
        let plan = self.state.log.lock().plan_read(start, end, max_bytes);
        let (start, end, then) = match plan {
            ReadPlan::InMemory(entries) => return Ok(entries),
            ReadPlan::Stored { start, end, then } => (start, end, then),
        };
        let shared = Arc::clone(&self.shared);
        let state = Arc::clone(&self.state);
        let read = tokio::task::spawn_blocking(move || {
            let mut entries = read_stored(&shared.database, &state, start, end, max_bytes)?;
            if entries.last().is_some_and(|entry| entry.log_id.index + 1 == end) {
                entries.extend(then);
            }
            Ok(entries)
        });
        match read.await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Closed("reads: the runtime is shutting down".to_owned())),
        }
    }

    /// Streams entries in batches, so that a long backlog is never in memory as a whole.
    fn batches(
        &self,
        start: u64,
        end: u64,
    ) -> impl Stream<Item = Result<Vec<Entry>, StoreError>> + Send + use<> {
        let this = self.clone();
        stream::unfold(Some(start), move |next| {
            let this = this.clone();
            async move {
                let next = next.filter(|next| *next < end)?;
                match this.read(next, end, APPEND_BYTES).await {
                    Ok(entries) => {
                        let last = entries.last()?.log_id.index;
                        Some((Ok(entries), Some(last + 1)))
                    }
                    Err(error) => Some((Err(error), None)),
                }
            }
        })
        // Openraft's apply loop polls past the end, where an unfold would panic.
        .fuse()
    }

    fn current_vote(&self) -> Option<Vote> {
        self.state.log.lock().vote
    }
}

/// Waits for the result of the flusher.
async fn wait_flushed(
    result: oneshot::Receiver<Result<(), StoreError>>,
    what: &str,
) -> Result<(), StoreError> {
    let ended = |_| Err(StoreError::Closed(format!("{what}: the flusher has ended")));
    result.await.unwrap_or_else(ended)
}

impl RaftLogStorage<TypeConfig> for GroupLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let log = self.state.log.lock();
        Ok(LogState { last_purged_log_id: log.purged, last_log_id: log.last.or(log.purged) })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (done, result) = oneshot::channel();
        let vote = *vote;
        self.change(|log| {
            log.vote = Some(vote);
            Ok((Some((WriteKind::Vote { vote, done }, 64)), ()))
        })?;
        Ok(wait_flushed(result, "votes").await?)
    }

    // Openraft awaits it before every apply, so it returns without waiting and is written with the
    // next batch. The queue keeps it behind the entries that it refers to.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.change(|log| {
            log.committed = committed;
            Ok((Some((WriteKind::Committed(committed), 32)), ()))
        })?;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.state.log.lock().committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let bytes = entries.iter().map(entry_bytes).sum();
        self.shared.queue.wait_capacity(self.shared.pending_bytes).await;
        self.change(|log| {
            log.check_follows(self.state.id, &entries)?;
            log.append(&entries);
            let epoch = log.tail.epoch();
            Ok((Some((WriteKind::Append { epoch, entries, callback }, bytes)), ()))
        })?;
        Ok(())
    }

    // Durable when it returns: openraft may install a snapshot that contradicts the removed
    // entries, and its file is not ordered with this queue. After a crash the log would not match
    // the snapshot.
    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let (done, result) = oneshot::channel();
        let removes = self.change(|log| {
            let range = log.truncate_after(self.state.id, last_log_id)?;
            let op = range.map(|(from, end)| (WriteKind::Truncate { from, end, done }, 64));
            Ok((op, range.is_some()))
        })?;
        if removes {
            wait_flushed(result, "truncations").await?;
        }
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.change(|log| {
            if log.purged >= Some(upto) {
                return Ok((None, ()));
            }
            log.purge(upto);
            Ok((Some((WriteKind::Purge(upto), 64)), ()))
        })?;
        Ok(())
    }
}
