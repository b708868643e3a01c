//! Benchmark: `cargo test --release -p tidewater-raft-store idle -- --ignored --nocapture`.

use std::time::Instant;

use openraft::network::RPCOption;
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use openraft::{RaftNetworkFactory, RaftNetworkV2};

use super::*;
use crate::testing::follower::{FOLLOWER, LEADER, factory, follower};
use crate::testing::handler::FakeGroup;
use crate::types::{TypeConfig, Vote};

/// Returns user and system time of this process so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints what idle groups cost on this machine"]
async fn cost_of_idle_groups() {
    const GROUPS: u64 = 30;
    let dir = TempDir::new().unwrap();
    let nodes = start(&dir, 3).await;
    let members: BTreeMap<u64, Member> =
        nodes.values().map(|node| (node.id, node.member())).collect();
    let mut rafts = Vec::new();
    for group in 100..99 + GROUPS {
        let mut replicas = BTreeMap::new();
        for node in nodes.values() {
            let snapshots = dir.path().join(format!("{}-{group}", node.id));
            replicas.insert(node.id, node.add_group(GroupId(group), snapshots).await);
        }
        // Leaders on all three nodes.
        replicas[&(1 + group % 3)].initialize(members.clone()).await.unwrap();
        rafts.push(replicas);
    }
    eventually("all groups have leaders", || {
        rafts.iter().all(|replicas| replicas.values().any(|raft| raft.is_leader()))
    })
    .await;
    let reads = || async {
        let mut waits = Vec::new();
        for replicas in &rafts {
            for raft in replicas.values().filter(|raft| raft.is_leader()) {
                let asked = Instant::now();
                if raft.ensure_linearizable(ReadPolicy::ReadIndex).await.is_ok() {
                    waits.push(asked.elapsed());
                }
            }
        }
        waits.sort();
        waits
    };
    tokio::time::sleep(Duration::from_secs(2)).await;
    let begun = Instant::now();
    let before = cpu();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let share = (cpu() - before).as_secs_f64() / begun.elapsed().as_secs_f64();
    let waits = reads().await;
    let terms: u64 =
        rafts.iter().map(|replicas| replicas[&1].metrics().borrow_watched().current_term).sum();
    println!(
        "{GROUPS} idle groups on 3 nodes: {:.1} % of a core; a linearizable read takes {:?} (median), {:?} (worst of {}); terms {terms}",
        share * 100.0,
        waits[waits.len() / 2],
        waits[waits.len() - 1],
        waits.len(),
    );
}

/// Compares a separate RPC (a vote) with a heartbeat on the stream.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints what a heartbeat costs on this machine"]
async fn cost_of_a_heartbeat() {
    const TIMES: u32 = 5_000;
    let follower = follower(&[(1, FakeGroup::Matches)]).await;
    let mut group = factory(follower.proxy.address).group(GroupId(1));
    let mut network = group.new_heartbeat_client(FOLLOWER.get(), &Member::new("")).await;
    let vote = Vote::new_committed(4, LEADER.get());
    let option = RPCOption::new(Duration::from_secs(10));
    let before = cpu();
    for _ in 0..TIMES {
        network.vote(VoteRequest::new(vote, None), option.clone()).await.unwrap();
    }
    let calls = cpu() - before;
    let before = cpu();
    for _ in 0..TIMES {
        let request = AppendEntriesRequest::<TypeConfig> {
            vote,
            prev_log_id: None,
            entries: Vec::new(),
            leader_commit: None,
        };
        network.append_entries(request, option.clone()).await.unwrap();
    }
    let stream = cpu() - before;
    println!("a separate call: {:?}; a heartbeat: {:?}", calls / TIMES, stream / TIMES);
}
