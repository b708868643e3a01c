//! A snapshot that arrives in chunks: written to a file, verified, and installed in the group.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use openraft::raft::SnapshotResponse;
use tidewater_common::disk::is_full;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};
use uuid::Uuid;

use super::dispatch::{Destination, Sender};
use super::peer_check::MessageKind;
use crate::snapshot_file::{SnapshotFile, SnapshotFileError, SnapshotWriter};
use crate::types::wire::{self, WireError};
use crate::types::{Snapshot, SnapshotMeta, TypeConfig, Vote, check_log_id};

/// Timeout of the next chunk.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of chunks queued for the disk.
const MAX_QUEUED_CHUNKS: usize = 4;
const PREFIX: &str = "incoming-";

/// Receives the chunks after the first message, and installs the snapshot.
pub(super) async fn install(
    to: Destination,
    sender: Sender,
    first: v1::SnapshotChunk,
    chunks: Streaming<v1::SnapshotChunk>,
) -> Result<SnapshotResponse<TypeConfig>, Status> {
    let (vote, meta) = to.well_formed(sender, vote_and_meta(first))?;
    to.admit(sender, MessageKind::Snapshot, vote)?;
    let Ok(install_guard) = std::sync::Arc::clone(&to.hosted.install_lock).try_lock_owned() else {
        return Err(Refusal::new(
            Reason::Overloaded,
            format!("another snapshot of group {} is being received", to.group),
        )
        .retry_after(Duration::from_secs(1))
        .into());
    };
    let file = receive(&to, chunks).await?;
    let meta = check_content(&to, sender, meta, &file).await?;
    // Detached: the caller may disconnect. The installation must not stop half-way, and no other
    // snapshot may arrive before it ends.
    let installed = tokio::spawn(async move {
        let result = install_file(&to, vote, meta, file).await;
        drop(install_guard);
        result
    });
    match installed.await {
        Ok(result) => Ok(result?),
        Err(error) => {
            Err(Refusal::new(Reason::Internal, format!("installing a snapshot: {error}")).into())
        }
    }
}

fn vote_and_meta(first: v1::SnapshotChunk) -> Result<(Vote, SnapshotMeta), WireError> {
    let vote = wire::required_vote(first.vote.as_ref())?;
    let meta = first.meta.ok_or(WireError::Missing("a snapshot's metadata"))?;
    let meta = wire::snapshot_meta_from_wire(meta)?;
    let last = meta.last_log_id.as_ref().ok_or(WireError::Missing("a snapshot's log id"))?;
    check_log_id(last, &vote)?;
    Ok((vote, meta))
}

/// Reads the file to its end: openraft's core ends when its state machine cannot install a snapshot.
async fn check_content(
    to: &Destination,
    sender: Sender,
    meta: SnapshotMeta,
    file: &SnapshotFile,
) -> Result<SnapshotMeta, Refusal> {
    let hosted = std::sync::Arc::clone(&to.hosted);
    let group = to.group;
    let received = file.clone();
    let checked = tokio::task::spawn_blocking(move || {
        let checked = hosted.handler.check_snapshot(group, &meta, &received);
        if checked.is_err() {
            // Otherwise the next snapshot removes it.
            let _ = fs::remove_file(received.path());
        }
        checked.map(|()| meta)
    });
    let checked = checked.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    checked.map_err(|error| {
        let text = format!("a snapshot of group {group} is refused: {error}");
        let reason = match error.kind() {
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof => Reason::Corrupt,
            _ => Reason::Internal,
        };
        to.host.note_refusal(group, "snapshot", &text, sender.address);
        Refusal::new(reason, text)
    })
}

async fn install_file(
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
    let (to_disk, from_network) = mpsc::channel(MAX_QUEUED_CHUNKS);
    let dir = to.hosted.snapshots.clone();
    let writer = tokio::task::spawn_blocking(move || write(&dir, from_network));
    let checksum = loop {
        let chunk = match tokio::time::timeout(CHUNK_TIMEOUT, chunks.message()).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => return Err(incomplete("the stream ended without a last chunk").into()),
            Ok(Err(status)) => return Err(status),
            Err(_) => return Err(incomplete("timed out waiting for the next chunk").into()),
        };
        // A closed channel means that the writer has failed; its error is returned below.
        let written =
            chunk.data.is_empty() || to_disk.send(SnapshotPiece::Data(chunk.data)).await.is_ok();
        if chunk.last || !written {
            break chunk.checksum;
        }
    };
    let _ = to_disk.send(SnapshotPiece::End { checksum }).await;
    drop(to_disk);
    match writer.await {
        Ok(Ok(Some(file))) => Ok(file),
        Ok(Ok(None)) => Err(incomplete("the checksum does not match").into()),
        Ok(Err(error)) => {
            let message = error.to_string();
            let full = is_full(&std::io::Error::from(error));
            let reason = if full { Reason::DiskFull } else { Reason::Internal };
            Err(Refusal::new(reason, message).into())
        }
        Err(error) => Err(Refusal::new(Reason::Internal, error.to_string()).into()),
    }
}

enum SnapshotPiece {
    Data(Bytes),
    End { checksum: u32 },
}

/// Writes the pieces to a file. Returns `None`, and removes the file, when the pieces end early or
/// do not match the checksum.
fn write(
    dir: &Path,
    mut pieces: mpsc::Receiver<SnapshotPiece>,
) -> Result<Option<SnapshotFile>, SnapshotFileError> {
    remove_stale(dir)?;
    let path = dir.join(format!("{PREFIX}{}", Uuid::new_v4().simple()));
    let mut writer = SnapshotWriter::create(&path)?;
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            SnapshotPiece::Data(data) => writer.write_all(&data).map_err(|source| {
                SnapshotFileError::Io { action: "write", path: path.clone(), source }
            })?,
            SnapshotPiece::End { checksum } if checksum == writer.crc32c() => {
                return writer.finish().map(Some);
            }
            SnapshotPiece::End { .. } => return Ok(None),
        }
    }
    Ok(None)
}

/// Removes snapshots that arrived and were not installed: their leader had been deposed, or the
/// group was already ahead. Only one snapshot arrives at a time, and an installed one is renamed.
fn remove_stale(dir: &Path) -> Result<(), SnapshotFileError> {
    let io = |source| SnapshotFileError::Io {
        action: "remove a stale snapshot in the directory of",
        path: dir.to_owned(),
        source,
    };
    for entry in fs::read_dir(dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            fs::remove_file(entry.path()).map_err(io)?;
        }
    }
    Ok(())
}

fn incomplete(cause: &str) -> Refusal {
    Refusal::new(Reason::InvalidArgument, format!("received an incomplete snapshot: {cause}"))
}
