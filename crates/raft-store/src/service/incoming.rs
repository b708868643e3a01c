//! A snapshot that arrives in chunks: written to a file, checked, and handed to the group.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use openraft::raft::SnapshotResponse;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};
use uuid::Uuid;

use super::dispatch::Destination;
use super::rpc::malformed;
use crate::snapshot_file::{SnapshotFile, SnapshotFileError, SnapshotWriter};
use crate::types::{Snapshot, SnapshotMeta, TypeConfig, Vote, wire};

/// How long the next chunk may take.
const NEXT_CHUNK: Duration = Duration::from_secs(10);
/// Chunks that wait for the disk.
const BEHIND: usize = 4;
const PREFIX: &str = "incoming-";

/// Receives the chunks after the first message, and installs what they make up.
pub(super) async fn install(
    to: Destination,
    first: v1::SnapshotChunk,
    chunks: Streaming<v1::SnapshotChunk>,
) -> Result<SnapshotResponse<TypeConfig>, Status> {
    let vote = wire::required_vote(first.vote.as_ref()).map_err(|error| malformed(&error))?;
    let meta = first
        .meta
        .map(wire::snapshot_meta_from_wire)
        .transpose()
        .map_err(|error| malformed(&error))?
        .unwrap_or_default();
    let Ok(turn) = std::sync::Arc::clone(&to.hosted.arriving).try_lock_owned() else {
        return Err(Refusal::new(
            Reason::Overloaded,
            format!("another snapshot of group {} is arriving", to.group),
        )
        .retry_after(Duration::from_secs(1))
        .into());
    };
    let file = receive(&to, chunks).await?;
    // Detached: the caller may go away, and the installation must not stop half-way, nor the next
    // snapshot arrive meanwhile.
    let installed = tokio::spawn(async move {
        let result = hand_over(&to, vote, meta, file).await;
        drop(turn);
        result
    });
    match installed.await {
        Ok(result) => Ok(result?),
        Err(error) => {
            Err(Refusal::new(Reason::Internal, format!("installing a snapshot: {error}")).into())
        }
    }
}

async fn hand_over(
    to: &Destination,
    vote: Vote,
    meta: SnapshotMeta,
    file: SnapshotFile,
) -> Result<SnapshotResponse<TypeConfig>, Refusal> {
    let snapshot = Snapshot { meta, snapshot: file };
    let installed = to.hosted.handler.install_snapshot(vote, snapshot).await;
    installed.map_err(|error| error.refusal(to.group))
}

async fn receive(
    to: &Destination,
    mut chunks: Streaming<v1::SnapshotChunk>,
) -> Result<SnapshotFile, Status> {
    let (to_disk, from_network) = mpsc::channel(BEHIND);
    let folder = to.hosted.snapshots.clone();
    let writer = tokio::task::spawn_blocking(move || write(&folder, from_network));
    let checksum = loop {
        let chunk = match tokio::time::timeout(NEXT_CHUNK, chunks.message()).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => return Err(incomplete("it ended without its last chunk").into()),
            Ok(Err(status)) => return Err(status),
            Err(_) => return Err(incomplete("the next chunk did not come").into()),
        };
        // A closed channel: the writer has failed, which is told below.
        let written = chunk.data.is_empty() || to_disk.send(Piece::Data(chunk.data)).await.is_ok();
        if chunk.last || !written {
            break chunk.checksum;
        }
    };
    let _ = to_disk.send(Piece::End { checksum }).await;
    drop(to_disk);
    match writer.await {
        Ok(Ok(Some(file))) => Ok(file),
        Ok(Ok(None)) => Err(incomplete("its checksum does not fit").into()),
        Ok(Err(error)) => {
            let message = error.to_string();
            let reason = match std::io::Error::from(error).kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Reason::DiskFull,
                _ => Reason::Internal,
            };
            Err(Refusal::new(reason, message).into())
        }
        Err(error) => Err(Refusal::new(Reason::Internal, error.to_string()).into()),
    }
}

enum Piece {
    Data(Bytes),
    End { checksum: u32 },
}

/// Answers no file when the pieces end early or do not have the checksum: what was written is
/// removed then.
fn write(
    folder: &Path,
    mut pieces: mpsc::Receiver<Piece>,
) -> Result<Option<SnapshotFile>, SnapshotFileError> {
    remove_former(folder)?;
    let path = folder.join(format!("{PREFIX}{}", Uuid::new_v4().simple()));
    let mut writer = SnapshotWriter::create(&path)?;
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            Piece::Data(data) => writer.write_all(&data).map_err(|source| {
                SnapshotFileError::Io { action: "write", path: path.clone(), source }
            })?,
            Piece::End { checksum } if checksum == writer.crc32c() => {
                return writer.finish().map(Some);
            }
            Piece::End { .. } => return Ok(None),
        }
    }
    Ok(None)
}

/// Removes snapshots that arrived and were not wanted: their leader had been deposed, or the group
/// was further already. Only one arrives at a time, and a wanted one has got another name.
fn remove_former(folder: &Path) -> Result<(), SnapshotFileError> {
    let io = |source| SnapshotFileError::Io {
        action: "remove a former snapshot in the folder of",
        path: folder.to_owned(),
        source,
    };
    for entry in fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            fs::remove_file(entry.path()).map_err(io)?;
        }
    }
    Ok(())
}

fn incomplete(why: &str) -> Refusal {
    Refusal::new(Reason::InvalidArgument, format!("a snapshot arrived incomplete: {why}"))
}
