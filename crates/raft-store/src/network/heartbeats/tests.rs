//! Heartbeat streams to a real service, with groups that return scripted responses.

use std::time::{Duration, Instant};

use openraft::network::RPCOption;
use openraft::raft::AppendEntriesResponse;
use openraft::{RaftNetworkFactory, RaftNetworkV2};

use super::*;
use crate::network::{GroupNetwork, NetworkFactory};
use crate::testing::eventually;
use crate::testing::follower::{FOLLOWER, LEADER, factory, follower, header};
use crate::testing::handler::FakeGroup;
use crate::types::{Member, Vote, log_id};

async fn network(factory: &NetworkFactory, group: u64) -> GroupNetwork {
    let mut group = factory.group(GroupId(group));
    group.new_heartbeat_client(FOLLOWER.get(), &Member::new("")).await
}

fn request(index: u64) -> AppendEntriesRequest<TypeConfig> {
    AppendEntriesRequest {
        vote: Vote::new_committed(4, LEADER.get()),
        prev_log_id: Some(log_id(4, index)),
        entries: Vec::new(),
        leader_commit: None,
    }
}

async fn beat(
    network: &mut GroupNetwork,
    index: u64,
    limit: Duration,
) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
    network.append_entries(request(index), RPCOption::new(limit)).await
}

const LIMIT: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread")]
async fn groups_share_a_heartbeat_stream_with_separate_responses() {
    let higher = Vote::new(9, 3);
    let follower = follower(&[
        (1, FakeGroup::Matches),
        (2, FakeGroup::Higher(higher)),
        (3, FakeGroup::Stuck),
        (4, FakeGroup::Matches),
        (6, FakeGroup::Silent),
    ])
    .await;
    let factory = factory(follower.proxy.address);
    let ask = |group: u64, limit| {
        let factory = factory.clone();
        async move { beat(&mut network(&factory, group).await, 10 + group, limit).await }
    };
    let begun = Instant::now();
    let (one, two, three, four, five, six) = tokio::join!(
        ask(1, LIMIT),
        ask(2, LIMIT),
        ask(3, SHORT),
        ask(4, LIMIT),
        ask(5, LIMIT),
        ask(6, LIMIT)
    );
    let matched = |index| AppendEntriesResponse::PartialSuccess(Some(log_id(4, index)));
    assert_eq!(one.unwrap(), matched(11));
    assert_eq!(two.unwrap(), AppendEntriesResponse::HigherVote(higher));
    assert!(matches!(three, Err(RPCError::Timeout(_))), "{three:?}");
    assert_eq!(four.unwrap(), matched(14));
    assert!(matches!(five, Err(RPCError::Unreachable(_))), "not hosted: {five:?}");
    assert!(matches!(six, Err(RPCError::Unreachable(_))), "stopped: {six:?}");
    assert!(begun.elapsed() < LIMIT, "the stuck group delayed the others");
    let streams = factory.shared.heartbeats.streams.lock();
    assert_eq!(streams.len(), 1);
    assert_eq!(streams[&FOLLOWER].next, 6, "all were sent on the first stream");
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_heartbeat_stream_is_reopened() {
    let follower = follower(&[(1, FakeGroup::Matches)]).await;
    let factory = factory(follower.proxy.address);
    let mut network = network(&factory, 1).await;
    beat(&mut network, 1, LIMIT).await.unwrap();
    follower.proxy.set_open(false);
    // The caller fails when the connection breaks, and not only at its deadline.
    loop {
        match beat(&mut network, 2, LIMIT).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => break assert!(!matches!(error, RPCError::Timeout(_)), "{error}"),
        }
    }
    follower.proxy.set_open(true);
    let deadline = Instant::now() + LIMIT;
    while beat(&mut network, 3, SHORT).await.is_err() {
        assert!(Instant::now() < deadline, "the stream stays broken");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_address_gets_a_new_heartbeat_stream() {
    let old = follower(&[(1, FakeGroup::Silent)]).await;
    let new = follower(&[(1, FakeGroup::Matches)]).await;
    let factory = factory(old.proxy.address);
    let mut network = network(&factory, 1).await;
    assert!(beat(&mut network, 1, LIMIT).await.is_err());
    factory.addresses().set(FOLLOWER, new.proxy.address.to_string());
    assert!(beat(&mut network, 2, LIMIT).await.is_ok());
    assert_eq!(factory.shared.heartbeats.streams.lock().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_node_answers_no_heartbeats() {
    let follower = follower(&[(1, FakeGroup::Matches)]).await;
    let factory = factory(follower.proxy.address);
    let mut network = network(&factory, 1).await;
    beat(&mut network, 1, LIMIT).await.unwrap();
    follower.service.remove_host(FOLLOWER);
    // The stream ends, and another one is refused.
    for _ in 0..3 {
        let error = beat(&mut network, 2, LIMIT).await.unwrap_err();
        assert!(!matches!(error, RPCError::Timeout(_)), "{error}");
    }
    follower.service.add_host(Arc::clone(&follower.host));
    let deadline = Instant::now() + LIMIT;
    while beat(&mut network, 3, LIMIT).await.is_err() {
        assert!(Instant::now() < deadline, "the stream stays ended");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_heartbeat_replaces_a_pending_one() {
    let follower = follower(&[(1, FakeGroup::Stuck)]).await;
    let factory = factory(follower.proxy.address);
    let mut first = network(&factory, 1).await;
    let mut second = network(&factory, 1).await;
    let waiting = tokio::spawn(async move { beat(&mut first, 1, LIMIT).await });
    eventually("it waits", || {
        let streams = factory.shared.heartbeats.streams.lock();
        streams.get(&FOLLOWER).is_some_and(|stream| stream.next == 1)
    })
    .await;
    let newer = beat(&mut second, 2, SHORT).await;
    assert!(matches!(newer, Err(RPCError::Timeout(_))), "{newer:?}");
    let older = waiting.await.unwrap();
    assert!(matches!(older, Err(RPCError::Network(_))), "{older:?}");
    let streams = factory.shared.heartbeats.streams.lock();
    assert_eq!(streams[&FOLLOWER].pending.waiting.lock().groups.len(), 1, "bounded by groups");
}

#[tokio::test(flavor = "multi_thread")]
async fn stuck_group_does_not_fill_the_heartbeat_stream() {
    let follower = follower(&[(1, FakeGroup::Stuck), (2, FakeGroup::Matches)]).await;
    let mut client = follower.client().await;
    let beat = |group_id, number| v1::GroupHeartbeat {
        group_id,
        number,
        vote: Some(wire::vote_to_wire(&Vote::new_committed(4, 1))),
        ..Default::default()
    };
    let many = (0..3_000).map(|number| beat(1, number)).chain([beat(2, 9_999)]).collect();
    let hello = v1::HeartbeatBatch { header: Some(header(0)), heartbeats: Vec::new() };
    let batch = v1::HeartbeatBatch { header: None, heartbeats: many };
    let requests = tokio_stream::iter([hello, batch]).chain(stream::pending());
    let mut answers = client.heartbeats(requests).await.unwrap().into_inner();
    let found = async {
        while let Some(message) = answers.message().await.unwrap() {
            if message.answers.iter().any(|answer| answer.number == 9_999) {
                return;
            }
        }
        panic!("the stream ended");
    };
    tokio::time::timeout(LIMIT, found).await.expect("the other group is answered");
}
