//! The replicated state machine of a data group, as driven by openraft: a thin shell around
//! [`apply`](super::apply).
//!
//! The state is in memory; the snapshot file is its durable form. A restart installs the last
//! snapshot and applies the log after it again, so applying an entry twice over a snapshot must
//! give the same state: the region skips rows at or below its flushed sequence, and everything else
//! is decided from the log alone.

mod files;
mod install;
#[cfg(test)]
mod rows_tests;
mod sink;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, RaftSnapshotBuilder};
use tidewater_common::ids::{GroupId, LogIndex, ManifestVersion};
use tidewater_proto::v1::Reason;
use tidewater_raft_store::types::{LogId, Snapshot, SnapshotMeta, StoredMembership};
use tidewater_raft_store::{
    DiskHealth, PeerInput, Reply, SnapshotFile, TypeConfig, retry_while_disk_full,
};
use tidewater_region_engine::memory::Pressure;
use tokio::sync::watch;
use tokio::time::Instant;

pub use self::files::SnapshotFiles;
use self::sink::RegionSink;
use super::apply::{ApplyEffect, apply};
use super::entry::{EntryError, EntryOutcome, check_kind, decode, detach, encode_reply};
use super::shared::ReplicaState;
use super::snapshot::SnapshotView;

/// Bytes as which an entry counts at least: a start replays the entries since the last snapshot, and an idle group has
/// one small entry for each barrier.
const LEAST_ENTRY_BYTES: u64 = 512;
/// Interval of memory checks while apply on a follower waits.
const MEMORY_POLL: Duration = Duration::from_millis(50);
/// Interval of reloads of all manifests while apply waits for memory.
const MEMORY_RELOAD: Duration = Duration::from_secs(1);

/// State machine of one replica; see the module documentation for its recovery.
#[derive(Debug)]
pub struct GroupStateMachine {
    shared: Arc<ReplicaState>,
    files: Arc<SnapshotFiles>,
    disk: watch::Receiver<DiskHealth>,
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshot_bytes: u64,
}

/// Writer of one snapshot.
#[derive(Debug)]
pub struct SnapshotBuilder {
    view: Arc<SnapshotView>,
    files: Arc<SnapshotFiles>,
    disk: watch::Receiver<DiskHealth>,
    shared: Arc<ReplicaState>,
}

impl GroupStateMachine {
    /// Creates an empty state machine; openraft installs the last snapshot of `files` into it. A
    /// snapshot is due after `snapshot_bytes` of log.
    pub fn new(
        shared: Arc<ReplicaState>,
        files: Arc<SnapshotFiles>,
        disk: watch::Receiver<DiskHealth>,
        snapshot_bytes: u64,
    ) -> Self {
        record_length(&shared, &files);
        Self {
            shared,
            files,
            disk,
            applied: None,
            membership: StoredMembership::default(),
            snapshot_bytes,
        }
    }

    /// Directory of the snapshots.
    pub fn folder(&self) -> PathBuf {
        self.files.folder().to_owned()
    }

    fn apply_command(&mut self, index: LogIndex, bytes: &bytes::Bytes) -> io::Result<bytes::Bytes> {
        let mut entry = match decode(bytes) {
            Ok(entry) => entry,
            // A later release applies the entry: skipping it would make this replica differ.
            Err(error @ (EntryError::UnknownKind | EntryError::LevelAboveRelease(_))) => {
                let text = format!("group {}, log index {index}: {error}", self.shared.group);
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            // No release can apply the entry: every replica skips it.
            Err(error) => {
                tracing::error!(group = %self.shared.group, %index, %error, "skipped a log entry");
                self.shared.set_applied(index);
                let refused = EntryOutcome::refused(Reason::InvalidArgument, error.to_string());
                return Ok(encode_reply(vec![refused]));
            }
        };
        detach(&mut entry, bytes.len());
        let sink = RegionSink { shared: &self.shared };
        let applied = {
            let mut state = self.shared.state.write();
            let applied = apply(&mut state, index, entry, &sink)?;
            // Set under the lock, so that a digest always belongs to the index read with it.
            self.shared.set_applied(index);
            self.shared.set_level(state.level);
            self.shared.set_epoch(state.epoch);
            applied
        };
        for effect in applied.effects {
            self.run_effect(effect)?;
        }
        Ok(encode_reply(applied.outcomes))
    }

    fn run_effect(&self, effect: ApplyEffect) -> io::Result<()> {
        match effect {
            ApplyEffect::Open { descriptor, base } => {
                let id = descriptor.region_id;
                self.shared.host(descriptor, base, base, Vec::new())?;
                self.shared.advance_since();
                self.shared.targets.request(id, ManifestVersion(0));
                self.shared.housekeeping.notify_one();
            }
            ApplyEffect::Alter { descriptor, cause } => self.shared.alter(descriptor, cause)?,
            ApplyEffect::Decide(region, pending) => {
                self.shared.decide(region, pending)?;
                // A truncation limits the epochs that can be read.
                self.shared.advance_since();
            }
            ApplyEffect::Divide { parent, children } => {
                self.shared.divide(parent, &children)?;
                self.shared.advance_since();
                for child in children {
                    self.shared.targets.request(child, ManifestVersion(0));
                }
                self.shared.housekeeping.notify_one();
            }
            ApplyEffect::Merge { parents, child } => {
                self.shared.merge(&parents, child)?;
                self.shared.advance_since();
                self.shared.targets.request(child, ManifestVersion(0));
                self.shared.housekeeping.notify_one();
            }
            ApplyEffect::Receive { descriptor, base, version } => {
                let id = descriptor.region_id;
                self.shared.regions.set_arriving(id, true);
                self.shared.host(descriptor, base, base, Vec::new())?;
                self.shared.advance_since();
                self.shared.targets.request(id, version);
                self.shared.housekeeping.notify_one();
            }
            ApplyEffect::Activate(region) => self.shared.regions.set_arriving(region, false),
            ApplyEffect::Close(region) => self.shared.close(region),
            ApplyEffect::Follow(region, version) => self.shared.targets.request(region, version),
            ApplyEffect::AdvanceSince => self.shared.advance_since(),
        }
        Ok(())
    }

    /// On a follower at twice the memory limit, waits until flushed rows are dropped. A leader
    /// never waits: a leader that does not apply can never flush. A replica that replays its log
    /// after a start does not wait either: it cannot vote yet, so a group of such replicas would
    /// never elect a leader that flushes.
    async fn wait_for_memory(&self) {
        let mut reloaded_at: Option<Instant> = None;
        while self.shared.is_replayed()
            && !self.shared.leads()
            && self.shared.memory().used() >= self.shared.memory().limit().saturating_mul(2)
            && self.shared.memory().pressure() == Pressure::Reject
            && !self.shared.stopping.is_cancelled()
        {
            if reloaded_at.is_none() {
                tracing::warn!(
                    group = %self.shared.group,
                    used = self.shared.memory().used(),
                    limit = self.shared.memory().limit(),
                    "memory for unflushed rows is at twice its limit; follower pauses applying \
                     until the owners have flushed"
                );
            }
            // Repeated, because the entries that announce flushes are behind the waiting one.
            if reloaded_at.is_none_or(|at| at.elapsed() >= MEMORY_RELOAD) {
                reloaded_at = Some(Instant::now());
                self.shared.housekeeping.notify_one();
                for hosted in self.shared.regions.all() {
                    self.shared.targets.reload(hosted.descriptor.region_id);
                }
            }
            self.shared.targets.wait_any_loaded(MEMORY_POLL).await;
        }
    }

    fn record_applied(&mut self, id: LogId, bytes: usize) {
        self.applied = Some(id);
        self.shared.set_applied(LogIndex(id.index));
        let mut log = self.shared.log_bytes.lock();
        let before = log.since_snapshot();
        log.record_applied(LogIndex(id.index), (bytes as u64).max(LEAST_ENTRY_BYTES));
        let now = log.since_snapshot();
        drop(log);
        // Notifies once: if the snapshot is delayed, every further entry would trigger a check of
        // all regions. Housekeeping checks periodically anyway.
        if before < self.snapshot_bytes && now >= self.snapshot_bytes {
            self.shared.housekeeping.notify_one();
        }
    }

    fn view(&self) -> SnapshotView {
        let state = self.shared.state.read().clone();
        let runs = self
            .shared
            .regions
            .all()
            .into_iter()
            .flat_map(|hosted| {
                let id = hosted.descriptor.region_id;
                hosted.region.unflushed().into_iter().map(move |image| (id, image))
            })
            .collect();
        SnapshotView {
            group: self.shared.group,
            applied: self.applied,
            membership: self.membership.clone(),
            state,
            runs,
        }
    }
}

impl RaftStateMachine<TypeConfig> for GroupStateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let mut bytes = 0;
            let reply = match entry.payload {
                EntryPayload::Blank => Reply::default(),
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Reply::default()
                }
                EntryPayload::Normal(command) => {
                    bytes = command.0.len();
                    self.wait_for_memory().await;
                    let index = LogIndex(entry.log_id.index);
                    Reply(self.apply_command(index, &command.0)?)
                }
            };
            self.record_applied(entry.log_id, bytes);
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        self.shared.log_bytes.lock().record_snapshot();
        SnapshotBuilder {
            view: Arc::new(self.view()),
            files: self.files.clone(),
            disk: self.disk.clone(),
            shared: self.shared.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotFile,
    ) -> Result<(), io::Error> {
        let files = self.files.clone();
        let view = tokio::task::spawn_blocking(move || files.adopt(snapshot))
            .await
            .map_err(io::Error::other)??;
        record_length(&self.shared, &self.files);
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        if let Some(id) = self.applied {
            self.shared.set_applied(LogIndex(id.index));
        }
        install::install(&self.shared, view)
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self.files.current())
    }
}

fn record_length(shared: &ReplicaState, files: &SnapshotFiles) {
    shared.set_snapshot_length(files.length());
}

impl PeerInput for GroupStateMachine {
    fn check_command(command: &bytes::Bytes) -> Result<(), String> {
        check_kind(command).map_err(|error| error.to_string())
    }

    fn check_snapshot(group: GroupId, meta: &SnapshotMeta, file: &SnapshotFile) -> io::Result<()> {
        SnapshotView::read(&mut file.reader()?)?.check(group, meta)
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let what = format!("a snapshot of group {}", self.view.group);
        let written = retry_while_disk_full(self.disk.clone(), &what, || {
            let view = self.view.clone();
            let files = self.files.clone();
            async move {
                tokio::task::spawn_blocking(move || files.save(&view))
                    .await
                    .map_err(io::Error::other)?
            }
        });
        tokio::select! {
            written = written => {
                record_length(&self.shared, &self.files);
                written
            }
            () = self.shared.stopping.cancelled() => Err(io::Error::other("the replica is stopping")),
        }
    }
}
