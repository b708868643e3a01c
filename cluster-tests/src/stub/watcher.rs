//! A client that watches the catalog as the client library does, and keeps only its position.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tidewater_client::ClientOptions;
use tidewater_common::backoff::Jitter;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{GetCatalogChangesRequest, GetCatalogRequest, Reason, WatchRequest};
use tidewater_rpc::{Channels, ConnectPolicy, FailedAttempt, attempt, timed};
use tokio::time::{Duration, Instant};
use tonic::Streaming;
use tonic::transport::Channel;

use super::heads::{self, EventHead, Head, SnapshotHead};
use super::meta_search::MetaSearch;

/// Time without an event after which a stream is broken, as in the client library.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Consecutive broken streams before the watcher reads the changes instead, as in the client library.
const BROKEN_STREAMS: u32 = 3;
/// Attempts of one fetch, as in the client library.
const FETCH_ATTEMPTS: u32 = 12;
/// Pages of changes that are read at once, as in the client library.
const MAX_PAGES: u32 = 16;
/// Revisions of which a watcher remembers the time.
const REMEMBERED: usize = 64;

/// Number of events over all watchers.
#[derive(Debug, Default)]
pub struct WatcherCounters {
    /// Snapshots from watches.
    pub snapshots: AtomicU64,
    /// Deltas from watches.
    pub deltas: AtomicU64,
    /// Deltas that did not follow the revision before.
    pub gaps: AtomicU64,
    /// Fetches of the whole catalog that succeeded.
    pub fetches: AtomicU64,
    /// Reads of changes that succeeded.
    pub changes: AtomicU64,
    /// Streams that could not be opened or have broken.
    pub broken: AtomicU64,
}

/// Times at which a watcher reached revisions.
#[derive(Debug, Default)]
struct ReachedRevisions(VecDeque<(u64, Instant)>);

impl ReachedRevisions {
    fn record(&mut self, revision: u64, at: Instant) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back((revision, at));
    }

    /// Time of the first remembered revision at or above `revision`.
    fn first_from(&self, revision: u64) -> Option<Instant> {
        self.0.iter().find(|(reached, _)| *reached >= revision).map(|(_, at)| *at)
    }
}

/// Position of a watcher.
#[derive(Debug, Default)]
pub(super) struct WatcherState {
    revision: AtomicU64,
    reached: Mutex<ReachedRevisions>,
    /// Time of the first event of the current stream.
    connected: Mutex<Option<Instant>>,
}

impl WatcherState {
    /// Revision of the catalog that the watcher has.
    pub(super) fn revision(&self) -> u64 {
        self.revision.load(Ordering::SeqCst)
    }

    /// Time at which the watcher reached a revision.
    pub(super) fn reached(&self, revision: u64) -> Option<Instant> {
        self.reached.lock().first_from(revision)
    }

    /// Time of the first event of the current stream; `None`: the stream has broken.
    pub(super) fn connected(&self) -> Option<Instant> {
        *self.connected.lock()
    }

    fn move_to(&self, revision: u64) {
        self.reached.lock().record(revision, Instant::now());
        self.revision.store(revision, Ordering::SeqCst);
    }
}

/// The task of one watcher.
#[derive(Debug)]
pub(super) struct Watcher {
    state: Arc<WatcherState>,
    counters: Arc<WatcherCounters>,
    options: ClientOptions,
    channels: Channels,
    jitter: Jitter,
    search: MetaSearch,
    cluster: String,
    incarnation: u64,
}

impl Watcher {
    /// Creates watcher number `number` of the cluster with these meta nodes.
    pub(super) fn new(
        metas: &[String],
        number: usize,
        state: Arc<WatcherState>,
        counters: Arc<WatcherCounters>,
    ) -> Self {
        Self {
            state,
            counters,
            options: ClientOptions::default(),
            channels: Channels::new(ConnectPolicy::CLIENT),
            jitter: Jitter::system(),
            search: MetaSearch::new(metas, number),
            cluster: String::new(),
            incarnation: 0,
        }
    }

    /// Fetches the first catalog, as a client that connects.
    pub(super) async fn connect(&mut self) {
        while !self.fetch().await {}
    }

    /// Follows the catalog until the task is dropped.
    pub(super) async fn run(mut self) {
        let mut failures: u32 = 0;
        loop {
            let broken = match self.open().await {
                Ok(stream) => self.follow(stream, &mut failures).await,
                Err(failure) => failure,
            };
            *self.state.connected.lock() = None;
            failures = failures.saturating_add(1);
            self.counters.broken.fetch_add(1, Ordering::Relaxed);
            let retry_after = broken.refusal.retry_after;
            let wait = self.options.watch_backoff.wait(failures, retry_after, self.jitter.bits());
            tokio::time::sleep(wait).await;
            if failures >= BROKEN_STREAMS {
                self.read_changes().await;
            }
        }
    }

    async fn open(&mut self) -> Result<Streaming<EventHead>, FailedAttempt> {
        let request = WatchRequest {
            from_revision: self.state.revision(),
            incarnation: self.incarnation,
            cluster_id: self.cluster.clone(),
            ..WatchRequest::default()
        };
        self.attempt(|channel, _| heads::watch(channel, request)).await
    }

    /// Records the events of the stream until it breaks; returns the cause.
    async fn follow(
        &mut self,
        mut stream: Streaming<EventHead>,
        failures: &mut u32,
    ) -> FailedAttempt {
        loop {
            let event = match tokio::time::timeout(IDLE_TIMEOUT, stream.message()).await {
                Ok(Ok(Some(event))) => event,
                Ok(Ok(None)) => return broken("the watch has ended"),
                Ok(Err(status)) => return FailedAttempt::from_status(&status),
                Err(_) => return broken("the watch sent no event"),
            };
            self.state.connected.lock().get_or_insert_with(Instant::now);
            if let Some(event) = event.event
                && !self.record(event).await
            {
                return broken("the watch sent an event of another cluster");
            }
            *failures = 0;
        }
    }

    /// Records an event; returns false if the stream must be opened again.
    async fn record(&mut self, event: Head) -> bool {
        let known = self.state.revision();
        match event {
            Head::Snapshot(snapshot) => {
                self.counters.snapshots.fetch_add(1, Ordering::Relaxed);
                return self.take(&snapshot);
            }
            Head::Delta(delta) if delta.revision == known + 1 => {
                self.counters.deltas.fetch_add(1, Ordering::Relaxed);
                self.state.move_to(delta.revision);
            }
            Head::Delta(delta) if delta.revision > known => {
                self.counters.gaps.fetch_add(1, Ordering::Relaxed);
                return self.fetch().await;
            }
            // A fetch has already returned this revision.
            Head::Delta(_) | Head::CurrentRevision(_) => {}
        }
        true
    }

    /// Reads the changes since the known revision, or the catalog when they are not kept, with one attempt.
    async fn read_changes(&mut self) {
        for _ in 0..MAX_PAGES {
            if !self.read_page().await {
                return;
            }
        }
    }

    /// Reads one page of changes. Returns whether more may follow.
    async fn read_page(&mut self) -> bool {
        let request = GetCatalogChangesRequest {
            cluster_id: self.cluster.clone(),
            incarnation: self.incarnation,
            revision: self.state.revision(),
        };
        let read =
            self.attempt(|channel, limit| heads::get_changes(channel, timed(request, limit))).await;
        match read {
            Ok(changes) if changes.snapshot_needed => {
                self.fetch_within(1).await;
                false
            }
            Ok(changes) => {
                self.counters.changes.fetch_add(1, Ordering::Relaxed);
                if let Some(last) = changes.deltas.last() {
                    self.state.move_to(last.revision.max(self.state.revision()));
                }
                !changes.deltas.is_empty()
            }
            Err(_) => false,
        }
    }

    /// Fetches the catalog; returns false if no attempt succeeded.
    async fn fetch(&mut self) -> bool {
        self.fetch_within(FETCH_ATTEMPTS).await
    }

    async fn fetch_within(&mut self, attempts: u32) -> bool {
        let timeout = self.options.attempt_timeout;
        for made in 1..=attempts {
            let fetched = self
                .attempt(|channel, limit| {
                    heads::get_catalog(channel, timed(GetCatalogRequest {}, limit))
                })
                .await;
            match fetched {
                Ok(snapshot) => {
                    self.counters.fetches.fetch_add(1, Ordering::Relaxed);
                    return self.take(&snapshot);
                }
                Err(failure) => {
                    let retry_after = failure.refusal.retry_after;
                    let backoff = self.options.backoff;
                    let wait = backoff.wait(made, retry_after, self.jitter.bits());
                    tokio::time::sleep(wait.min(timeout)).await;
                }
            }
        }
        false
    }

    /// Takes a snapshot, unless it is older; returns false if it is of another cluster.
    fn take(&mut self, snapshot: &SnapshotHead) -> bool {
        if !self.cluster.is_empty() && self.cluster != snapshot.cluster_id {
            return false;
        }
        self.cluster.clone_from(&snapshot.cluster_id);
        let is_newer =
            snapshot.incarnation > self.incarnation || snapshot.revision > self.state.revision();
        self.incarnation = self.incarnation.max(snapshot.incarnation);
        if is_newer {
            self.state.move_to(snapshot.revision);
        }
        true
    }

    /// Makes one attempt of a call to the presumed meta leader.
    async fn attempt<T, F>(
        &mut self,
        call: impl FnOnce(Channel, Duration) -> F,
    ) -> Result<T, FailedAttempt>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let limit = self.options.attempt_timeout;
        let address = self.search.next();
        let channel = self.channels.to(&address).map_err(FailedAttempt::not_sent)?;
        let answer = attempt(&address, limit, call(channel, limit)).await;
        match &answer {
            Ok(_) => self.search.record_success(&address),
            Err(failure) => {
                let named = failure.refusal.leader.as_ref().map(|leader| leader.address.as_str());
                self.search.record_failure(&address, named);
            }
        }
        answer
    }
}

fn broken(why: &str) -> FailedAttempt {
    FailedAttempt::not_sent(Refusal::new(Reason::Unavailable, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_last_revisions_are_remembered() {
        let start = Instant::now();
        let at = |step: u64| start + Duration::from_millis(step);
        let mut reached = ReachedRevisions::default();
        for revision in [5, 7, 8] {
            reached.record(revision, at(revision));
        }
        assert_eq!(reached.first_from(6), Some(at(7)));
        assert_eq!(reached.first_from(9), None);
        for revision in 9..9 + REMEMBERED as u64 {
            reached.record(revision, at(revision));
        }
        assert_eq!((reached.0.len(), reached.first_from(0)), (REMEMBERED, Some(at(9))));
    }
}
