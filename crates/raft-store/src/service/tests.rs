//! Invalid messages for groups that this node hosts.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream;
use tidewater_common::ids::{BootNumber, GroupId, NodeId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason};
use tidewater_rpc::{AddressBook, MESSAGE_BYTES};

use crate::service::MemberRecords;
use crate::testing::follower::{FOLLOWER, Follower, follower, header};
use crate::testing::handler::FakeGroup;
use crate::testing::{callback, entry, eventually};
use crate::types::{LogId, Vote, log_id, wire};
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
        prev_log_id: Some(wire::log_id_to_wire(&log_id(3, index - 1))),
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
    let last_log_id = Some(v1::RaftLogId { term: 4, index: 9 });
    let meta = Some(v1::SnapshotMeta { last_log_id, last_membership: None });
    v1::SnapshotChunk { header: Some(header(1)), vote: vote(), meta, ..Default::default() }
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

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_snapshot_is_refused_and_removed() {
    let follower = follower(&[(1, FakeGroup::Member)]).await;
    // The fake group reads no content from an empty file.
    let empty = vec![first(), last(0)];
    assert_eq!(reason(install(&follower, empty).await), Reason::Corrupt);
    assert!(follower.files().is_empty(), "{:?}", follower.files());
    let meta = v1::SnapshotMeta::default();
    let cases = [
        v1::SnapshotChunk { meta: None, ..first() },
        v1::SnapshotChunk { meta: Some(meta), ..first() },
        v1::SnapshotChunk { vote: None, ..first() },
    ];
    for case in cases {
        let answer = install(&follower, vec![case, chunk(b"one"), last(crc32c::crc32c(b"one"))]);
        assert_eq!(reason(answer.await), Reason::InvalidArgument);
    }
}

/// Sends one append after the header, and returns its answer.
async fn append(
    follower: &Follower,
    header: v1::RaftHeader,
    request: v1::AppendEntriesRequest,
) -> Result<Option<v1::AppendEntriesResponse>, tonic::Status> {
    let hello = v1::AppendEntriesRequest { header: Some(header), ..Default::default() };
    let mut client = follower.client().await;
    client.append_entries(stream::iter([hello, request])).await?.into_inner().message().await
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_entries_are_refused_before_the_group_sees_them() {
    let follower = follower(&[(1, FakeGroup::Member)]).await;
    let wire_entry = |index, size| wire::entry_to_wire(&entry(4, index, size));
    let good = v1::AppendEntriesRequest {
        vote: vote(),
        prev_log_id: Some(v1::RaftLogId { term: 4, index: 7 }),
        entries: vec![wire_entry(8, 1), wire_entry(9, 1)],
        ..Default::default()
    };
    assert!(append(&follower, header(1), good.clone()).await.unwrap().is_some());
    let gap = vec![wire_entry(8, 1), wire_entry(u64::MAX, 1)];
    let empty = vec![v1::RaftEntry::default()];
    for entries in [gap, empty] {
        let bad = v1::AppendEntriesRequest { entries, ..good.clone() };
        assert_eq!(reason(append(&follower, header(1), bad).await), Reason::InvalidArgument);
    }
    let newer = crate::types::Command("newer kind".into());
    let newer = crate::types::Entry {
        payload: crate::types::EntryPayload::Normal(newer),
        ..entry(4, 8, 0)
    };
    let newer = v1::AppendEntriesRequest { entries: vec![wire::entry_to_wire(&newer)], ..good };
    assert_eq!(reason(append(&follower, header(1), newer).await), Reason::Unsupported);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_refuses_strangers() {
    let follower = follower(&[(1, FakeGroup::Member)]).await;
    let stranger = || Some(v1::RaftHeader { source_node: 9, ..header(1) });
    let candidate = |node_id| Some(v1::RaftVote { term: 5, node_id, committed: false });
    let leader = |node_id| Some(v1::RaftVote { term: 5, node_id, committed: true });
    let mut client = follower.client().await;
    let vote = v1::VoteRequest { header: stranger(), vote: candidate(9), ..Default::default() };
    assert_eq!(reason(client.vote(vote.clone()).await), Reason::MemberNotFound);
    assert_eq!(reason(client.pre_vote(vote.clone()).await), Reason::MemberNotFound);
    let member = v1::VoteRequest { header: Some(header(1)), vote: candidate(1), ..vote.clone() };
    assert!(client.vote(member).await.unwrap().into_inner().granted);
    let other = v1::VoteRequest { header: stranger(), vote: candidate(1), ..vote };
    assert_eq!(reason(client.vote(other).await), Reason::InvalidArgument);

    let request = v1::AppendEntriesRequest { vote: leader(9), ..Default::default() };
    let answer = append(&follower, stranger().unwrap(), request.clone()).await;
    assert_eq!(reason(answer), Reason::MemberNotFound);
    let receiver = v1::RaftHeader { source_node: FOLLOWER.get(), ..header(1) };
    let request = v1::AppendEntriesRequest { vote: leader(FOLLOWER.get()), ..request };
    assert_eq!(reason(append(&follower, receiver, request).await), Reason::InvalidArgument);

    let hello = v1::HeartbeatBatch { header: stranger(), ..Default::default() };
    let beat =
        |number, vote| v1::GroupHeartbeat { group_id: 1, number, vote, ..Default::default() };
    let beats = v1::HeartbeatBatch {
        heartbeats: vec![beat(1, leader(9)), beat(2, leader(1))],
        header: None,
    };
    let answers = client.heartbeats(stream::iter([hello, beats])).await.unwrap().into_inner();
    let answers: Vec<_> =
        answers.flat_map(|batch| stream::iter(batch.unwrap().answers)).collect().await;
    assert_eq!(answers.len(), 2);
    for answer in answers {
        let outcome = answer.outcome.unwrap();
        assert!(matches!(outcome, v1::heartbeat_answer::Outcome::Refusal(_)), "{outcome:?}");
    }

    let snapshot = v1::SnapshotChunk { header: stranger(), vote: leader(9), ..first() };
    let answer = install(&follower, vec![snapshot, chunk(b"a"), last(crc32c::crc32c(b"a"))]).await;
    assert_eq!(reason(answer), Reason::MemberNotFound);
    let transfer = v1::TransferLeaderMessage {
        header: stranger(),
        from_leader: leader(9),
        to_node: FOLLOWER.get(),
        last_log_id: None,
    };
    assert_eq!(reason(client.transfer_leader(transfer).await), Reason::MemberNotFound);
    assert_eq!(follower.host.transferred_term(GroupId(1)), None);

    let header = Some(header(1));
    let members = client.members(v1::MembersRequest { header }).await.unwrap().into_inner();
    assert_eq!(members.membership.unwrap().members.len(), 3);
}

/// Members as a catalog names them.
struct Recorded(LogId, Vec<NodeId>);

impl MemberRecords for Recorded {
    fn members(&self, group: GroupId) -> Option<(LogId, Vec<NodeId>)> {
        (group == GroupId(1)).then(|| (self.0, self.1.clone()))
    }
}

// A node that has left the group and is added again may receive a membership from before its removal, of which no other
// member exists any more.
#[tokio::test(flavor = "multi_thread")]
async fn leader_in_the_recorded_membership_is_accepted() {
    let leader = |term| Some(v1::RaftVote { term, node_id: 9, committed: true });
    let ask = async |recorded: Recorded| {
        let follower = follower(&[(1, FakeGroup::Member)]).await;
        follower.host.set_records(Arc::new(recorded));
        let header = v1::RaftHeader { source_node: 9, ..header(1) };
        let request = v1::AppendEntriesRequest { vote: leader(5), ..Default::default() };
        append(&follower, header, request).await.map(|_| ())
    };
    let recorded = log_id(5, 1_000);
    assert!(ask(Recorded(recorded, vec![NodeId(9), FOLLOWER])).await.is_ok());
    let other = ask(Recorded(recorded, vec![NodeId(8), FOLLOWER])).await;
    assert_eq!(reason(other), Reason::MemberNotFound);
    // The replica knows a later membership.
    let earlier = Recorded(log_id(0, 0), vec![NodeId(9), FOLLOWER]);
    assert_eq!(reason(ask(earlier).await), Reason::MemberNotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_a_superseded_start_are_refused() {
    let follower = follower(&[(1, FakeGroup::Member)]).await;
    let book = Arc::new(AddressBook::new());
    follower.host.set_addresses(Arc::clone(&book));
    let vote = Some(v1::RaftVote { term: 5, node_id: 1, committed: false });
    let mut client = follower.client().await;
    let mut ask = async |source_boot| {
        let header = Some(v1::RaftHeader { source_boot, ..header(1) });
        let answer = client.vote(v1::VoteRequest { header, vote, ..Default::default() }).await;
        answer.map_err(|status| Refusal::from_status(&status).reason).map(|_| ())
    };
    book.set_start(NodeId(1), BootNumber(6));
    assert_eq!(ask(5).await, Err(Reason::DirectoryCopied));
    assert_eq!(ask(6).await, Ok(()));
    assert_eq!(ask(0).await, Ok(()));
    let leader = Some(v1::RaftVote { term: 5, node_id: 1, committed: true });
    let append = v1::AppendEntriesRequest { vote: leader, ..Default::default() };
    let old = v1::RaftHeader { source_boot: 5, ..header(1) };
    assert_eq!(reason(self::append(&follower, old, append).await), Reason::DirectoryCopied);
}
