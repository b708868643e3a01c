//! The replicated state machine of group 0: the catalog, in memory for reads, in RocksDB for
//! restarts.
//!
//! A *batch* of committed entries is applied to the state in memory, and its rows go to RocksDB
//! together with the applied log id, behind the log and in its order, while answers are given
//! already: after a crash the log gives what is missing. A *snapshot* is a clone of the state
//! (pointers) written to a file while commands go on.
//!
//! # Layout
//!
//! - `view`: what readers see; `store`: rows in RocksDB; `snapshot`: rows in files.

mod snapshot;
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
use tidewater_common::ids::{NodeId, Term};
use tidewater_proto::v1::{self, meta_reply};
use tidewater_raft_store::types::{
    EntryPayload, LogId, Membership, Snapshot, SnapshotMeta, StoredMembership,
};
use tidewater_raft_store::{
    DiskHealth, LogStore, Reply, SnapshotFile, TypeConfig, retry_while_disk_full,
};
use tokio::sync::watch;

use self::snapshot::SnapshotFolder;
use self::store::StateStore;
pub use self::store::{STATE_FAMILY, StateError};
pub use self::view::CatalogView;
use crate::catalog::{MetaState, RowWrite};
use crate::commands::{self, CommandError};

/// Entries of one write to RocksDB.
const BATCH: usize = 512;

/// How far the state is.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Applied {
    pub(crate) last: Option<LogId>,
    pub(crate) membership: StoredMembership,
}

/// The state machine that Raft drives.
#[derive(Debug)]
pub struct MetaMachine {
    view: CatalogView,
    store: StateStore,
    folder: Arc<SnapshotFolder>,
    applied: Applied,
}

impl MetaMachine {
    /// Loads what is stored; a new node has an empty state. Once for each opened log store: rows of
    /// an earlier machine may still wait behind the log. Blocking.
    pub fn open(log: Arc<LogStore>, snapshots: PathBuf) -> Result<Self, StateError> {
        let store = StateStore::new(log);
        let (state, applied) = store.load()?;
        let folder = Arc::new(SnapshotFolder::open(snapshots)?);
        Ok(Self { view: CatalogView::new(state), store, folder, applied })
    }

    /// What readers see.
    pub fn view(&self) -> CatalogView {
        self.view.clone()
    }

    fn apply_entry(&mut self, id: LogId, payload: EntryPayload, rows: &mut Vec<RowWrite>) -> Reply {
        self.applied.last = Some(id);
        match payload {
            openraft::EntryPayload::Blank => Reply::default(),
            openraft::EntryPayload::Normal(command) => {
                self.apply_command(Term(id.leader_id.term), command.0, rows)
            }
            openraft::EntryPayload::Membership(membership) => {
                self.apply_membership(&membership, rows);
                self.applied.membership = StoredMembership::new(Some(id), membership);
                Reply::default()
            }
        }
    }

    fn apply_command(&self, term: Term, bytes: Bytes, rows: &mut Vec<RowWrite>) -> Reply {
        let mut state = self.view.write();
        let decoded = v1::MetaCommand::decode(bytes)
            .map_err(|error| CommandError::Malformed(error.to_string()));
        let outcome = decoded.and_then(|command| commands::apply(&mut state, term, command));
        let outcome = match outcome {
            Ok((reply, effects)) => {
                rows.extend(effects.rows);
                reply.into()
            }
            Err(error) => meta_reply::Outcome::Refused(v1::MetaRefusal {
                reason: error.reason().into(),
                message: error.to_string(),
            }),
        };
        let reply = v1::MetaReply {
            revision: state.header().revision.get(),
            catalog_version: state.catalog_version().get(),
            outcome: Some(outcome),
        };
        Reply(reply.encode_to_vec().into())
    }

    fn apply_membership(&self, membership: &Membership, rows: &mut Vec<RowWrite>) {
        let members: BTreeMap<NodeId, String> =
            membership.nodes().map(|(id, member)| (NodeId(*id), member.address.clone())).collect();
        let mut state = self.view.write();
        let change = commands::members_change(&state, &members);
        // Refused only when the revision is used up: membership itself is not the state's to veto.
        if let Ok(effects) = commands::carry_out(&mut state, change) {
            rows.extend(effects.rows);
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
            let mut answers: Vec<(ApplyResponder<TypeConfig>, Reply)> = Vec::new();
            let mut taken = 0;
            while taken < BATCH
                && let Some((entry, responder)) = entries.try_next().await?
            {
                taken += 1;
                let reply = self.apply_entry(entry.log_id, entry.payload, &mut rows);
                answers.extend(responder.map(|responder| (responder, reply)));
            }
            if taken == 0 {
                return Ok(());
            }
            self.store.write(rows, &self.applied).await?;
            self.view.publish();
            for (responder, reply) in answers {
                responder.send(reply);
            }
        }
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        MetaSnapshotBuilder {
            state: self.view.frozen(),
            applied: self.applied.clone(),
            folder: Arc::clone(&self.folder),
            disk: self.store.disk(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotFile,
    ) -> Result<(), io::Error> {
        let (folder, named) = (Arc::clone(&self.folder), meta.clone());
        let (state, rows) = blocking(move || folder.take_in(named, snapshot)).await?;
        let applied = Applied { last: meta.last_log_id, membership: meta.last_membership.clone() };
        self.store.replace(rows, &applied).await?;
        self.applied = applied;
        *self.view.write() = state;
        self.view.publish();
        tracing::info!(
            revision = self.view.read().header().revision.get(),
            "the catalog was replaced by a snapshot of the leader"
        );
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self.folder.current())
    }
}

/// Writes one frozen view to a file.
#[derive(Debug)]
pub struct MetaSnapshotBuilder {
    state: Arc<MetaState>,
    applied: Applied,
    folder: Arc<SnapshotFolder>,
    disk: watch::Receiver<DiskHealth>,
}

impl RaftSnapshotBuilder<TypeConfig> for MetaSnapshotBuilder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let meta = SnapshotMeta {
            last_log_id: self.applied.last,
            last_membership: self.applied.membership.clone(),
        };
        retry_while_disk_full(self.disk.clone(), "a snapshot of the catalog", || {
            let (state, folder) = (Arc::clone(&self.state), Arc::clone(&self.folder));
            let meta = meta.clone();
            blocking(move || folder.write(&state, meta))
        })
        .await
    }
}

/// Runs what blocks away from the runtime.
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
