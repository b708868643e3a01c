//! Calls to a node whose groups return scripted responses.

use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::{Stream, StreamExt, stream};
use openraft::errors::{RPCError, StreamingError};
use openraft::network::RPCOption;
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use openraft::{RaftNetworkFactory, RaftNetworkV2};

use super::*;
use crate::snapshot_file::SnapshotWriter;
use crate::testing::follower::{FOLLOWER, Follower, LEADER, factory, follower};
use crate::testing::handler::FakeGroup;
use crate::types::{Snapshot, SnapshotMeta, TypeConfig, Vote, log_id};

const OPTION: Duration = Duration::from_millis(30);
const LIMIT: Duration = Duration::from_secs(10);

async fn network(follower: &Follower) -> GroupNetwork {
    let mut group = factory(follower.proxy.address).group(GroupId(1));
    group.new_client(FOLLOWER.get(), &Member::new("")).await
}

fn append(index: Option<u64>) -> AppendEntriesRequest<TypeConfig> {
    AppendEntriesRequest {
        vote: Vote::new_committed(4, LEADER.get()),
        prev_log_id: index.map(|index| log_id(4, index)),
        entries: Vec::new(),
        leader_commit: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_has_a_deadline() {
    let follower = follower(&[(1, FakeGroup::Stuck)]).await;
    let mut network = network(&follower).await;
    let vote = VoteRequest::new(Vote::new(4, LEADER.get()), None);
    let asked = tokio::time::timeout(LIMIT, network.vote(vote, RPCOption::new(OPTION))).await;
    assert!(matches!(asked, Ok(Err(RPCError::Timeout(_)))), "{asked:?}");
    // An append is answered after its sync, which may take a while, but not indefinitely.
    let requests = stream::iter([append(Some(1))]).chain(stream::pending());
    let answers = network.stream_append(Box::pin(requests), RPCOption::new(OPTION)).await;
    let next = tokio::time::timeout(LIMIT, answers.unwrap().next()).await;
    assert!(matches!(next, Ok(Some(Err(RPCError::Timeout(_))))), "{next:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_responses_are_errors() {
    let twice = follower(&[(1, FakeGroup::Twice)]).await;
    let mut to_twice = network(&twice).await;
    let requests = stream::iter([append(Some(1))]).chain(stream::pending());
    let answers = to_twice.stream_append(Box::pin(requests), RPCOption::new(LIMIT)).await;
    let mut answers = answers.unwrap();
    assert_eq!(answers.next().await.unwrap().unwrap(), Ok(Some(log_id(4, 1))));
    let more = answers.next().await.unwrap();
    assert!(matches!(more, Err(RPCError::Network(_))), "{more:?}");

    // Openraft would commit entries that the leader does not have.
    let ahead = follower(&[(1, FakeGroup::Ahead)]).await;
    let mut to_ahead = network(&ahead).await;
    let requests = stream::iter([append(Some(1))]).chain(stream::pending());
    let answers = to_ahead.stream_append(Box::pin(requests), RPCOption::new(LIMIT)).await;
    let answer = answers.unwrap().next().await.unwrap();
    assert!(matches!(answer, Err(RPCError::Network(_))), "{answer:?}");
    let mut group = factory(ahead.proxy.address).group(GroupId(1));
    let mut heartbeats = group.new_heartbeat_client(FOLLOWER.get(), &Member::new("")).await;
    let answer = heartbeats.append_entries(append(Some(1)), RPCOption::new(LIMIT)).await;
    assert!(matches!(answer, Err(RPCError::Network(_))), "{answer:?}");

    // Nothing conflicts with the beginning of the log: openraft would panic.
    let conflicts = follower(&[(1, FakeGroup::Conflicts)]).await;
    let mut group = factory(conflicts.proxy.address).group(GroupId(1));
    let mut heartbeats = group.new_heartbeat_client(FOLLOWER.get(), &Member::new("")).await;
    let answer = heartbeats.append_entries(append(None), RPCOption::new(LIMIT)).await;
    assert!(matches!(answer, Err(RPCError::Network(_))), "{answer:?}");
    let answer = heartbeats.append_entries(append(Some(1)), RPCOption::new(LIMIT)).await;
    assert_eq!(answer.unwrap(), openraft::raft::AppendEntriesResponse::Conflict);
}

/// A stream that never ends and releases its reference when dropped.
struct Endless(#[expect(dead_code, reason = "dropped with the stream")] Arc<()>);

impl Stream for Endless {
    type Item = AppendEntriesRequest<TypeConfig>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Pending
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_dropped_with_the_responses() {
    let follower = follower(&[(1, FakeGroup::Matches)]).await;
    let mut network = network(&follower).await;
    let held = Arc::new(());
    let requests = Endless(Arc::clone(&held));
    let answers = network.stream_append(requests, RPCOption::new(LIMIT)).await.unwrap();
    assert_eq!(Arc::strong_count(&held), 2);
    drop(answers);
    assert_eq!(Arc::strong_count(&held), 1, "the stream would take requests of the next one");
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_snapshot_file_is_no_storage_failure() {
    let dir = TempDir::new().unwrap();
    let follower = follower(&[(1, FakeGroup::Silent)]).await;
    let mut network = network(&follower).await;
    let mut send = async |name: &str, spoil: fn(&Path)| {
        let mut writer = SnapshotWriter::create(dir.path().join(name)).unwrap();
        writer.write_all(b"some content").unwrap();
        let snapshot =
            Snapshot { meta: SnapshotMeta::default(), snapshot: writer.finish().unwrap() };
        spoil(snapshot.snapshot.path());
        let vote = Vote::new_committed(4, LEADER.get());
        let never = std::future::pending();
        network.full_snapshot(vote, snapshot, never, RPCOption::new(LIMIT)).await
    };
    // A newer snapshot has replaced the file.
    let gone = send("gone", |path| std::fs::remove_file(path).unwrap()).await;
    assert!(matches!(gone, Err(StreamingError::Network(_))), "{gone:?}");
    let damaged = send("damaged", |path| {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[3] ^= 1;
        std::fs::write(path, bytes).unwrap();
    })
    .await;
    assert!(matches!(damaged, Err(StreamingError::StorageError(_))), "{damaged:?}");
}
