//! Invalid messages for groups that this node hosts.

use futures::StreamExt;
use futures::stream;
use tidewater_common::ids::GroupId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason};
use tidewater_rpc::MESSAGE_BYTES;

use crate::testing::follower::{FOLLOWER, Follower, follower, header};
use crate::testing::handler::FakeGroup;
use crate::testing::{callback, entry, eventually};
use crate::types::{Vote, log_id, wire};
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};

fn reason<T: std::fmt::Debug>(answer: Result<T, tonic::Status>) -> Reason {
    Refusal::from_status(&answer.unwrap_err()).reason
}

fn vote() -> Option<v1::RaftVote> {
    Some(wire::vote_to_wire(&Vote::new_committed(4, 1)))
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_message_is_refused() {
    let follower = follower(&[(1, FakeGroup::Matches)]).await;
    let large = v1::RaftHeader { cluster_id: "x".repeat(MESSAGE_BYTES + 1), ..header(1) };
    let request = v1::VoteRequest { header: Some(large), vote: vote(), ..Default::default() };
    let status = follower.client().await.vote(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::OutOfRange, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn full_disk_refuses_entries_of_other_leaders() {
    let follower = follower(&[(1, FakeGroup::Matches)]).await;
    // The disk is full, and more than half of the memory for pending writes is used.
    follower.disk.fail_with(Some("IO error: No space left on device: test"));
    for size in [1, 1_500] {
        let (flushed, _done) = callback();
        let mut log = follower.store.group(GroupId(9));
        let index = log.last_log_id().map_or(0, |id| id.index + 1);
        log.append([entry(1, index, size)], flushed).await.unwrap();
        let health = follower.store.health();
        eventually("the disk is full", || *health.borrow() == crate::DiskHealth::Full).await;
    }
    assert!(!follower.store.accepts_entries());
    let hello = v1::AppendEntriesRequest { header: Some(header(1)), ..Default::default() };
    let empty = v1::AppendEntriesRequest { vote: vote(), ..Default::default() };
    let entries = vec![wire::entry_to_wire(&entry(4, 0, 10))];
    let full = v1::AppendEntriesRequest { vote: vote(), entries, ..Default::default() };
    let requests = stream::iter([hello, empty, full]).chain(stream::pending());
    let mut client = follower.client().await;
    let mut answers = client.append_entries(requests).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().is_some(), "a leader keeps its lease");
    assert_eq!(reason(answers.message().await), Reason::DiskFull);
    follower.disk.fail_with(None);
}

#[tokio::test(flavor = "multi_thread")]
async fn append_that_contradicts_committed_entries_is_refused() {
    let follower = follower(&[(1, FakeGroup::Matches)]).await;
    let mut log = follower.store.group(GroupId(1));
    log.blocking_append([entry(3, 0, 10), entry(3, 1, 10)]).await.unwrap();
    log.save_committed(Some(log_id(3, 1))).await.unwrap();
    let hello = v1::AppendEntriesRequest { header: Some(header(1)), ..Default::default() };
    let append = |term, index| v1::AppendEntriesRequest {
        vote: vote(),
        entries: vec![wire::entry_to_wire(&entry(term, index, 10))],
        ..Default::default()
    };
    let requests = stream::iter([hello, append(3, 1), append(4, 2), append(4, 1)]);
    let mut client = follower.client().await;
    let requests = requests.chain(stream::pending());
    let mut answers = client.append_entries(requests).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().is_some(), "an entry that was sent before");
    assert!(answers.message().await.unwrap().is_some(), "an entry after the committed ones");
    assert_eq!(reason(answers.message().await), Reason::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_when_the_node_is_removed() {
    let follower = follower(&[(1, FakeGroup::Matches)]).await;
    let mut client = follower.client().await;
    let hello = v1::AppendEntriesRequest { header: Some(header(1)), ..Default::default() };
    let requests = stream::iter([hello]).chain(stream::pending());
    let mut appends = client.append_entries(requests).await.unwrap().into_inner();
    let hello = v1::HeartbeatBatch { header: Some(header(0)), ..Default::default() };
    let requests = stream::iter([hello]).chain(stream::pending());
    let mut beats = client.heartbeats(requests).await.unwrap().into_inner();
    follower.service.remove_host(FOLLOWER);
    // The callers send nothing more: only the end of the streams makes them reconnect.
    let ended = async { (appends.message().await.unwrap(), beats.message().await.unwrap()) };
    let ended = tokio::time::timeout(std::time::Duration::from_secs(10), ended).await;
    assert_eq!(ended.expect("the streams stay open"), (None, None));
}

fn chunk(data: &'static [u8]) -> v1::SnapshotChunk {
    v1::SnapshotChunk { data: data.into(), ..Default::default() }
}

fn first() -> v1::SnapshotChunk {
    v1::SnapshotChunk { header: Some(header(1)), vote: vote(), ..Default::default() }
}

fn last(checksum: u32) -> v1::SnapshotChunk {
    v1::SnapshotChunk { last: true, checksum, ..Default::default() }
}

async fn install(
    follower: &Follower,
    chunks: Vec<v1::SnapshotChunk>,
) -> Result<tonic::Response<v1::SnapshotResponse>, tonic::Status> {
    follower.client().await.install_snapshot(stream::iter(chunks)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn incomplete_snapshot_is_refused_and_removed() {
    let follower = follower(&[(1, FakeGroup::Matches)]).await;
    let checksum = crc32c::crc32c(b"onetwo");
    let wrong = vec![first(), chunk(b"one"), chunk(b"twx"), last(checksum)];
    assert_eq!(reason(install(&follower, wrong).await), Reason::InvalidArgument);
    assert!(follower.files().is_empty(), "{:?}", follower.files());
    // Complete, but not installed: this group answers as a stopped group.
    let whole = || vec![first(), chunk(b"one"), chunk(b"two"), last(checksum)];
    for _ in 0..3 {
        assert_eq!(reason(install(&follower, whole()).await), Reason::GroupNotHosted);
        assert_eq!(follower.files().len(), 1, "the one before is removed");
    }
    // Last, because its file is removed after the response.
    let cut = vec![first(), chunk(b"one"), chunk(b"two")];
    assert_eq!(reason(install(&follower, cut).await), Reason::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_snapshot_of_a_group_arrives_at_a_time() {
    let follower = follower(&[(1, FakeGroup::Matches)]).await;
    let (chunks, arriving) = tokio::sync::mpsc::channel(4);
    chunks.send(first()).await.unwrap();
    chunks.send(chunk(b"one")).await.unwrap();
    let mut client = follower.client().await;
    let slow = tokio::spawn(async move {
        client.install_snapshot(tokio_stream::wrappers::ReceiverStream::new(arriving)).await
    });
    eventually("it arrives", || !follower.files().is_empty()).await;
    let second = vec![first(), last(0)];
    assert_eq!(reason(install(&follower, second).await), Reason::Overloaded);
    chunks.send(last(crc32c::crc32c(b"one"))).await.unwrap();
    assert_eq!(reason(slow.await.unwrap()), Reason::GroupNotHosted);
}
