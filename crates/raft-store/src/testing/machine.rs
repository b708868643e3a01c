//! A state machine that keeps all commands in memory, and its snapshots in files.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftSnapshotBuilder};
use parking_lot::Mutex;
use prost::Message;
use tidewater_common::ids::GroupId;
use tidewater_proto::v1;

use crate::service::PeerInput;
use crate::snapshot_file::{SnapshotFile, SnapshotWriter};
use crate::types::{
    EntryPayload, LogId, Reply, Snapshot, SnapshotMeta, StoredMembership, TypeConfig, wire,
};

/// State after the last applied entry.
#[derive(Debug, Default, Clone)]
pub(crate) struct AppliedState {
    pub(crate) last: Option<LogId>,
    pub(crate) membership: StoredMembership,
    pub(crate) commands: Vec<Bytes>,
    pub(crate) installed: usize,
}

/// State machine with its snapshot directory. Clones share their state.
#[derive(Debug, Clone)]
pub(crate) struct TestStateMachine {
    dir: PathBuf,
    pub(crate) applied: Arc<Mutex<AppliedState>>,
}

impl TestStateMachine {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), applied: Arc::default() }
    }

    fn current(&self) -> PathBuf {
        self.dir.join("current")
    }
}

impl RaftStateMachine<TypeConfig> for TestStateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let applied = self.applied.lock();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            {
                let mut applied = self.applied.lock();
                applied.last = Some(entry.log_id);
                match entry.payload {
                    EntryPayload::Blank => {}
                    EntryPayload::Normal(command) => applied.commands.push(command.0),
                    EntryPayload::Membership(membership) => {
                        applied.membership = StoredMembership::new(Some(entry.log_id), membership);
                    }
                }
            }
            if let Some(responder) = responder {
                responder.send(Reply(Bytes::new()));
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotFile,
    ) -> Result<(), io::Error> {
        let snapshot = if snapshot.path() == self.current() {
            snapshot
        } else {
            snapshot.rename(self.current())?
        };
        let (stored, commands) = decode(&snapshot)?;
        assert_eq!(stored.last_log_id, meta.last_log_id);
        let mut applied = self.applied.lock();
        *applied = AppliedState {
            last: meta.last_log_id,
            membership: meta.last_membership.clone(),
            commands,
            installed: applied.installed + 1,
        };
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        if !self.current().exists() {
            return Ok(None);
        }
        let snapshot = SnapshotFile::open(self.current())?;
        let (meta, _) = decode(&snapshot)?;
        Ok(Some(Snapshot { meta, snapshot }))
    }
}

impl PeerInput for TestStateMachine {
    fn check_command(_: &Bytes) -> Result<(), String> {
        Ok(())
    }

    fn check_snapshot(_: GroupId, _: &SnapshotMeta, file: &SnapshotFile) -> io::Result<()> {
        decode(file).map(|_| ()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for TestStateMachine {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let applied = self.applied.lock().clone();
        let meta = SnapshotMeta { last_log_id: applied.last, last_membership: applied.membership };
        let mut writer = SnapshotWriter::create(self.current())?;
        writer.write_all(&wire::snapshot_meta_to_wire(&meta).encode_length_delimited_to_vec())?;
        for command in applied.commands {
            writer.write_all(&command.encode_length_delimited_to_vec())?;
        }
        Ok(Snapshot { meta, snapshot: writer.finish()? })
    }
}

fn decode(snapshot: &SnapshotFile) -> Result<(SnapshotMeta, Vec<Bytes>), io::Error> {
    let mut content = Vec::new();
    snapshot.reader()?.read_to_end(&mut content)?;
    let mut content = Bytes::from(content);
    let meta = v1::SnapshotMeta::decode_length_delimited(&mut content)?;
    let meta = wire::snapshot_meta_from_wire(meta).map_err(io::Error::other)?;
    let mut commands = Vec::new();
    while !content.is_empty() {
        commands.push(Bytes::decode_length_delimited(&mut content)?);
    }
    Ok((meta, commands))
}
