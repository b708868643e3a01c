//! Transfer of a snapshot to one node, in chunks.

use std::io::{ErrorKind, Read};
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{ErrorSource, StreamingError};
use openraft::network::RPCOption;
use openraft::raft::SnapshotResponse;
use openraft::{ErrorSubject, ErrorVerb, StorageError};
use tidewater_proto::v1;
use tidewater_proto::v1::raft_client::RaftClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::error::CallContext;
use crate::snapshot_file::{SnapshotFile, SnapshotFileError};
use crate::types::{Snapshot, TypeConfig, Vote, wire};

const CHUNK_BYTES: usize = 1024 * 1024;
/// Maximum number of chunks read ahead of the connection.
const READ_AHEAD: usize = 4;
/// Minimum transfer rate in bytes a second; a slower transfer times out.
const MIN_BYTES_PER_SECOND: u64 = 4 * 1024 * 1024;

/// Sends a snapshot and waits until it is installed. The deadline is the option's plus the time
/// that the file takes at the minimum rate.
pub(super) async fn send(
    mut client: RaftClient<Channel>,
    call: CallContext,
    header: v1::RaftHeader,
    vote: Vote,
    snapshot: Snapshot,
    option: &RPCOption,
) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
    let deadline =
        option.soft_ttl() + Duration::from_secs(snapshot.snapshot.length() / MIN_BYTES_PER_SECOND);
    let term = vote.leader_id.term;
    let first = v1::SnapshotChunk {
        header: Some(header),
        vote: Some(wire::vote_to_wire(&vote)),
        meta: Some(wire::snapshot_meta_to_wire(&snapshot.meta)),
        ..Default::default()
    };
    let (chunks, receiver) = mpsc::channel(READ_AHEAD);
    let file = snapshot.snapshot;
    let reader = tokio::task::spawn_blocking(move || read_chunks(&file, first, &chunks));
    let sent =
        tokio::time::timeout(deadline, client.install_snapshot(ReceiverStream::new(receiver)))
            .await;
    let response = match sent {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => {
            // A damaged file ends the stream early, and the target refuses the stream. The error of
            // the file is the cause.
            if let Ok(Err(error)) = reader.await {
                return Err(unreadable(call, &error));
            }
            return Err(call.rpc_error(status.into()).into());
        }
        Err(_) => return Err(call.timeout_error(deadline).into()),
    };
    let vote = wire::required_vote(response.vote.as_ref())
        .and_then(|answered| wire::plausible_vote(answered, term))
        .map_err(|error| StreamingError::from(call.network_error(error)))?;
    Ok(SnapshotResponse::new(vote))
}

/// Reads the file into the channel. Ends without error when the receiver is dropped.
fn read_chunks(
    file: &SnapshotFile,
    first: v1::SnapshotChunk,
    chunks: &mpsc::Sender<v1::SnapshotChunk>,
) -> Result<(), SnapshotFileError> {
    if chunks.blocking_send(first).is_err() {
        return Ok(());
    }
    let mut reader = file.reader()?;
    let mut remaining = file.length();
    while remaining > 0 {
        let size = usize::try_from(remaining).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        let mut data = vec![0; size];
        if let Err(source) = reader.read_exact(&mut data) {
            return Err(reader.take_damage().unwrap_or_else(|| SnapshotFileError::Io {
                action: "read",
                path: file.path().to_owned(),
                source,
            }));
        }
        remaining -= size as u64;
        let chunk = v1::SnapshotChunk { data: Bytes::from(data), ..Default::default() };
        if chunks.blocking_send(chunk).is_err() {
            return Ok(());
        }
    }
    let last = v1::SnapshotChunk { last: true, checksum: file.crc32c(), ..Default::default() };
    // The receiver may be dropped by now.
    let _ = chunks.blocking_send(last);
    Ok(())
}

/// Converts the error of an unreadable file. A missing file was replaced by a newer one: openraft
/// requests the snapshot again. With any other error this node could not restart from its own
/// snapshot, so its Raft stops.
fn unreadable(call: CallContext, error: &SnapshotFileError) -> StreamingError<TypeConfig> {
    if let SnapshotFileError::Io { source, .. } = error
        && source.kind() == ErrorKind::NotFound
    {
        return call.network_error(error).into();
    }
    StreamingError::StorageError(StorageError::new(
        ErrorSubject::Snapshot(None),
        ErrorVerb::Read,
        openraft::impls::BoxedErrorSource::from_error(error),
    ))
}
