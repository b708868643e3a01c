//! Replicated state machine of group 0: the catalog, in memory for reads, in RocksDB for restarts.
//!
//! - *Batch*: up to 512 committed entries that are applied to the state in memory and written to
//!   RocksDB in one write, with the applied log id. The write is ordered after the log's writes and is
//!   not synced before the replies are sent: after a crash, replay of the log restores missing rows.
//! - *Snapshot*: a frozen clone of the state, written to a file while later commands are applied.
//!
//! # Layout
//!
//! - `view`: the state for readers; `store`: rows in RocksDB; `snapshot`: rows in files; `snapshot_policy`:
//!   when one is due (pure); `comparison`: digests of the state, compared with the leader's; `long_commands`:
//!   commands that must not keep Raft waiting.

mod comparison;
mod long_commands;
mod snapshot;
mod snapshot_policy;
mod store;
mod view;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use openraft::OptionalSend;
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use prost::Message;
use tidewater_common::ids::{GroupId, LogIndex, NodeId, Term};
use tidewater_proto::v1::{self, meta_command::Kind, meta_reply};
use tidewater_raft_store::types::{
    EntryPayload, LogId, Membership, Snapshot, SnapshotMeta, StoredMembership,
};
use tidewater_raft_store::{
    DiskHealth, LogStore, PeerInput, Reply, SnapshotFile, TypeConfig, retry_while_disk_full,
};
use tokio::sync::watch;

use self::comparison::RowDigest;
pub(crate) use self::comparison::StateComparison;
pub use self::comparison::StateDifference;
use self::snapshot::SnapshotDir;
pub(crate) use self::snapshot_policy::SnapshotPressure;
use self::store::StateStore;
pub use self::store::{STATE_FAMILY, StateError};
pub use self::view::CatalogView;
use crate::catalog::{MetaState, StateRowWrite};
use crate::catalog_events::{LogEvents, RecentEvents};
use crate::commands::{self, CommandError};

/// Maximum number of entries in one write to RocksDB.
const BATCH: usize = 512;

/// Last applied log id and membership.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct AppliedState {
    pub(crate) last: Option<LogId>,
    pub(crate) membership: StoredMembership,
}

/// State machine of group 0, driven by Raft.
#[derive(Debug)]
pub struct MetaMachine {
    state: MetaState,
    /// State for readers: it contains every complete batch.
    view: CatalogView,
    store: StateStore,
    dir: Arc<SnapshotDir>,
    applied: AppliedState,
    digest: RowDigest,
    comparison: Arc<StateComparison>,
    pressure: Arc<SnapshotPressure>,
    events: LogEvents,
}

impl MetaMachine {
    /// Loads the stored state; a new node has an empty state. Call it only once for each opened log
    /// store: rows of an earlier machine may still be queued behind the log. Blocking.
    pub fn open(log: Arc<LogStore>, snapshots: PathBuf) -> Result<Self, StateError> {
        let store = StateStore::new(log);
        let (state, applied) = store.load()?;
        let dir = Arc::new(SnapshotDir::open(snapshots)?);
        let digest = RowDigest::of(&state)?;
        let comparison = Arc::default();
        let pressure = Arc::<SnapshotPressure>::default();
        let newest = dir.current();
        let in_snapshot = newest.as_ref().and_then(|newest| newest.meta.last_log_id);
        let behind = index(applied.last).saturating_sub(index(in_snapshot));
        pressure.record_snapshot(newest.map_or(0, |newest| newest.snapshot.length()));
        pressure.restart(behind);
        let view = CatalogView::new(state.clone());
        let events = LogEvents::default();
        Ok(Self { state, view, store, dir, applied, digest, comparison, pressure, events })
    }

    /// Comparison of the state with the leader's.
    pub(crate) fn comparison(&self) -> Arc<StateComparison> {
        Arc::clone(&self.comparison)
    }

    /// Log entries since the last snapshot.
    pub(crate) fn pressure(&self) -> Arc<SnapshotPressure> {
        Arc::clone(&self.pressure)
    }

    /// Events of the last applied entries.
    pub(crate) fn recent_events(&self) -> Arc<RecentEvents> {
        self.events.recent()
    }

    /// The state for readers.
    pub fn view(&self) -> CatalogView {
        self.view.clone()
    }

    fn apply_entry(
        &mut self,
        id: LogId,
        payload: EntryPayload,
        rows: &mut Vec<StateRowWrite>,
    ) -> io::Result<Reply> {
        self.applied.last = Some(id);
        let before = rows.len();
        let mut is_tick = false;
        self.pressure.count_entry(match &payload {
            openraft::EntryPayload::Normal(command) => command.0.len(),
            _ => 0,
        });
        let mut takes_long = false;
        let reply = match payload {
            openraft::EntryPayload::Blank => Reply::default(),
            openraft::EntryPayload::Normal(bytes) => {
                let length = bytes.0.len();
                let command = v1::MetaCommand::decode(bytes.0)
                    .map_err(|error| CommandError::Malformed(error.to_string()));
                if let Ok(command) = &command {
                    is_tick = matches!(command.kind, Some(Kind::AdvanceTime(_)));
                    takes_long = long_commands::takes_long(command.kind.as_ref(), length);
                    if let Some(digest) = &command.leader_digest {
                        self.comparison.compare(digest, self.state.header().time_ms);
                    }
                }
                long_commands::run(takes_long, || self.apply_command(id, command, rows))?
            }
            openraft::EntryPayload::Membership(membership) => {
                self.apply_membership(id, &membership, rows);
                self.applied.membership = StoredMembership::new(Some(id), membership);
                Reply::default()
            }
        };
        long_commands::run(takes_long, || self.digest.follow(&rows[before..]));
        if is_tick {
            self.comparison.record(id.index, self.digest.value());
        }
        Ok(reply)
    }

    /// Applies a command. After an error, the replica must stop: other replicas apply the command, and this one
    /// would differ from them.
    fn apply_command(
        &mut self,
        id: LogId,
        command: Result<v1::MetaCommand, CommandError>,
        rows: &mut Vec<StateRowWrite>,
    ) -> io::Result<Reply> {
        let term = Term(id.leader_id.term);
        let state = &mut self.state;
        let outcome = command.and_then(|command| commands::apply(state, term, command));
        let outcome = match outcome {
            Ok((reply, effects)) => {
                rows.extend(effects.rows);
                let entry = (term, LogIndex(id.index));
                self.events.follow(entry, &effects.replaced, &self.state);
                reply.into()
            }
            Err(error @ CommandError::LevelAboveRelease(_)) => {
                return Err(io::Error::new(io::ErrorKind::Unsupported, error));
            }
            Err(error) => meta_reply::Outcome::Refused(v1::MetaRefusal {
                reason: error.reason().into(),
                message: error.to_string(),
            }),
        };
        let reply = v1::MetaReply {
            revision: self.state.header().revision.get(),
            catalog_version: self.state.catalog_version().get(),
            outcome: Some(outcome),
        };
        Ok(Reply(reply.encode_to_vec().into()))
    }

    fn apply_membership(
        &mut self,
        id: LogId,
        membership: &Membership,
        rows: &mut Vec<StateRowWrite>,
    ) {
        let members: BTreeMap<NodeId, String> =
            membership.nodes().map(|(id, member)| (NodeId(*id), member.address.clone())).collect();
        let change = commands::members_change(&self.state, &members);
        // Fails only when the revision is at its maximum: the state cannot reject a committed membership.
        if let Ok(effects) = commands::apply_change(&mut self.state, change) {
            rows.extend(effects.rows);
            let entry = (Term(id.leader_id.term), LogIndex(id.index));
            self.events.follow(entry, &effects.replaced, &self.state);
        }
    }
}

impl RaftStateMachine<TypeConfig> for MetaMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = MetaSnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied.last, self.applied.membership.clone()))
    }

    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        // The stream must not be polled again after its end.
        let mut entries = entries.fuse();
        loop {
            let mut rows = Vec::new();
            let mut replies: Vec<(ApplyResponder<TypeConfig>, Reply)> = Vec::new();
            let mut taken = 0;
            while taken < BATCH
                && let Some((entry, responder)) = entries.try_next().await?
            {
                taken += 1;
                let reply = self.apply_entry(entry.log_id, entry.payload, &mut rows)?;
                replies.extend(responder.map(|responder| (responder, reply)));
            }
            if taken == 0 {
                return Ok(());
            }
            self.store.write(rows, &self.applied).await?;
            self.view.publish(self.state.clone());
            self.events.publish();
            for (responder, reply) in replies {
                responder.send(reply);
            }
        }
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        self.pressure.restart(0);
        MetaSnapshotBuilder {
            state: self.state.clone(),
            applied: self.applied.clone(),
            dir: Arc::clone(&self.dir),
            disk: self.store.disk(),
            pressure: Arc::clone(&self.pressure),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotFile,
    ) -> Result<(), io::Error> {
        let dir = Arc::clone(&self.dir);
        let length = snapshot.length();
        let received_meta = meta.clone();
        let (state, rows, digest) = blocking(move || {
            let (state, rows) = dir.install(received_meta, snapshot)?;
            let digest = RowDigest::of(&state)?;
            Ok((state, rows, digest))
        })
        .await?;
        let applied =
            AppliedState { last: meta.last_log_id, membership: meta.last_membership.clone() };
        self.store.replace(rows, &applied).await?;
        self.applied = applied;
        self.digest = digest;
        self.comparison.clear();
        self.pressure.record_snapshot(length);
        self.pressure.restart(0);
        self.state = state;
        self.events.skip_to_snapshot();
        self.view.publish(self.state.clone());
        tracing::info!(
            revision = self.state.header().revision.get(),
            "catalog replaced by a snapshot from the leader"
        );
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self.dir.current())
    }
}

impl PeerInput for MetaMachine {
    // A command that does not decode is refused in apply.
    fn check_command(_: &Bytes) -> Result<(), String> {
        Ok(())
    }

    fn check_snapshot(_: GroupId, meta: &SnapshotMeta, file: &SnapshotFile) -> io::Result<()> {
        Ok(snapshot::read(meta, file).map(|_| ())?)
    }
}

/// Writes one frozen view of the state to a file.
#[derive(Debug)]
pub struct MetaSnapshotBuilder {
    state: MetaState,
    applied: AppliedState,
    dir: Arc<SnapshotDir>,
    disk: watch::Receiver<DiskHealth>,
    pressure: Arc<SnapshotPressure>,
}

impl RaftSnapshotBuilder<TypeConfig> for MetaSnapshotBuilder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let meta = SnapshotMeta {
            last_log_id: self.applied.last,
            last_membership: self.applied.membership.clone(),
        };
        let written = retry_while_disk_full(self.disk.clone(), "a snapshot of the catalog", || {
            let state = self.state.clone();
            let dir = Arc::clone(&self.dir);
            let meta = meta.clone();
            blocking(move || dir.write(&state, meta))
        });
        let written = written.await?;
        self.pressure.record_snapshot(written.snapshot.length());
        Ok(written)
    }
}

/// Index of a log entry; 0 without one.
fn index(id: Option<LogId>) -> u64 {
    id.map_or(0, |id| id.index)
}

/// Runs blocking work on the runtime's blocking threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StateError> + Send + 'static,
) -> Result<T, io::Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Into::into),
        Err(error) => Err(io::Error::other(error)),
    }
}

#[cfg(test)]
mod tests;
