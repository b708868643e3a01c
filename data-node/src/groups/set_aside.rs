//! Logs of removed replicas, kept for a time: a removal that was a mistake can be undone by hand.
//!
//! Each is a directory below `removed` in the data directory, named by group and time. It has the
//! group's snapshots and the file `log`: a checksummed snapshot file whose content is the vote, the
//! last purged log id and the entries, each as a protobuf message with its length before it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;
use prost::Message;
use tidewater_common::file::read_at_most;
use tidewater_common::ids::GroupId;
use tidewater_proto::v1;
use tidewater_raft_store::types::wire;
use tidewater_raft_store::{DataDirectory, GroupLog, SnapshotWriter};
use tracing::{info, warn};

/// Directory of the logs that were set aside, in the data directory.
const FOLDER: &str = "removed";
/// Name of the log's file.
const LOG: &str = "log";
/// Maximum bytes of a log that is read as a whole.
pub const MAX_LOG_BYTES: u64 = 1 << 30;

/// Copies a group's log and snapshots to a directory of their own, durably. Its Raft must have been
/// shut down.
pub(super) async fn set_aside(
    directory: Arc<DataDirectory>,
    group: GroupId,
    now_ms: u64,
) -> io::Result<PathBuf> {
    let folder = directory.path().join(FOLDER).join(format!("group-{group}-{now_ms}"));
    let target = folder.clone();
    let log = directory.log_store().group(group);
    let writer = blocking(move || {
        let snapshots = directory.snapshot_dir(group).map_err(io::Error::other)?;
        fs::create_dir_all(&target)?;
        link_files(&snapshots, &target)?;
        Ok(SnapshotWriter::create(target.join(LOG))?)
    })
    .await?;
    write_log(log, writer).await?;
    info!(%group, path = %folder.display(), "log of a removed replica set aside");
    Ok(folder)
}

/// Links the files of one directory into another one of the same file system.
fn link_files(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::hard_link(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

async fn write_log(mut log: GroupLog, mut writer: SnapshotWriter) -> io::Result<()> {
    let state = log.get_log_state().await?;
    let vote = log.read_vote().await?.as_ref().map(wire::vote_to_wire).unwrap_or_default();
    let purged = state.last_purged_log_id.as_ref().map(wire::log_id_to_wire);
    let mut next = state.last_purged_log_id.map_or(0, |id| id.index + 1);
    let end = state.last_log_id.map_or(0, |id| id.index + 1);
    let mut bytes = vote.encode_length_delimited_to_vec();
    bytes.extend(purged.unwrap_or_default().encode_length_delimited_to_vec());
    loop {
        writer = blocking(move || writer.write_all(&bytes).map(|()| writer)).await?;
        if next >= end {
            break;
        }
        let entries = log.limited_get_log_entries(next, end).await?;
        let Some(last) = entries.last() else { break };
        next = last.log_id.index + 1;
        bytes = entries
            .iter()
            .flat_map(|entry| wire::entry_to_wire(entry).encode_length_delimited_to_vec())
            .collect();
    }
    blocking(move || Ok(writer.finish()?)).await.map(|_| ())
}

/// Reads a log that was set aside. Blocking.
///
/// # Errors
/// Fails on a damaged file, and on one above [`MAX_LOG_BYTES`].
pub fn read_log(folder: &Path) -> io::Result<Vec<v1::RaftEntry>> {
    let file = tidewater_raft_store::SnapshotFile::open(folder.join(LOG))?;
    let content = read_at_most(file.reader()?, MAX_LOG_BYTES)?;
    let mut content = bytes::Bytes::from(content.ok_or(io::ErrorKind::FileTooLarge)?);
    v1::RaftVote::decode_length_delimited(&mut content)?;
    v1::RaftLogId::decode_length_delimited(&mut content)?;
    let mut entries = Vec::new();
    while !content.is_empty() {
        entries.push(v1::RaftEntry::decode_length_delimited(&mut content)?);
    }
    Ok(entries)
}

/// Removes the logs that were set aside for longer than `keep`. Blocking.
pub(super) fn remove_expired(data_dir: &Path, now_ms: u64, keep: Duration) -> io::Result<()> {
    let folder = data_dir.join(FOLDER);
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if is_expired(name, now_ms, keep) {
            match fs::remove_dir_all(&path) {
                Ok(()) => info!(path = %path.display(), "log of a removed replica deleted"),
                Err(error) => warn!(path = %path.display(), %error, "failed to delete a log"),
            }
        }
    }
    Ok(())
}

/// Returns whether a directory was made longer than `keep` ago, by its name. Directories with
/// other names are left alone.
fn is_expired(name: &str, now_ms: u64, keep: Duration) -> bool {
    let made = name.strip_prefix("group-").and_then(|rest| rest.split_once('-'));
    let Some(Ok(made)) = made.map(|(_, made)| made.parse::<u64>()) else { return false };
    Duration::from_millis(now_ms.saturating_sub(made)) > keep
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_directories_of_removed_logs_expire() {
        let keep = Duration::from_secs(10);
        for (name, expired) in [
            ("group-5-1000", true),
            ("group-5-9000", false),
            ("group-5-99000", false),
            ("group-5", false),
            ("group-5-x", false),
            ("other-5-1000", false),
        ] {
            assert_eq!(is_expired(name, 12_000, keep), expired, "{name}");
        }
    }
}
