//! Forged Raft messages (findings C1, C2 and H2), to data nodes and to meta nodes.

use tidewater_cluster_tests::Result;
use tidewater_cluster_tests::cluster::LOG_TABLE;
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_proto::v1::Reason;

use super::calls::Forger;
use super::refused;
use super::target::{Target, count, expect_counted};

const REFUSED: &str = "tidewater_raft_messages_refused_total";
const INVALID: &[Reason] = &[Reason::InvalidArgument];
const STRANGER: &[Reason] = &[Reason::MemberNotFound];
const CORRUPT: &[Reason] = &[Reason::Corrupt];

/// Sends messages that no member sends, in every kind of call. `member`: a member other than the node;
/// `term`: the group's. Returns the number of messages.
async fn send_forged(node: &Forger, group: u64, member: u64, term: u64) -> Result<u64> {
    let own = node.id;
    let mut sent = 0;
    // Terms after which no election is possible.
    for high in [u64::MAX, u64::MAX - 2, 1 << 62] {
        refused("vote", node.vote(group, member, high, true).await, INVALID)?;
        refused("pre-vote", node.pre_vote(group, member, high).await, INVALID)?;
        refused("append", node.append(group, member, (high, member), vec![]).await, INVALID)?;
        refused("heartbeat", node.heartbeat(group, member, (high, member)).await, INVALID)?;
        let snapshot = node.snapshot(group, member, (high, member), b"").await;
        refused("snapshot", snapshot, INVALID)?;
        refused("transfer", node.transfer(group, member, (high, member)).await, INVALID)?;
        sent += 6;
    }
    // A node that is no member.
    let next = term + 1;
    refused("stranger's vote", node.vote(group, 999, next, true).await, STRANGER)?;
    refused("stranger's pre-vote", node.pre_vote(group, 999, next).await, STRANGER)?;
    let append = node.append(group, 999, (next, 999), vec![]).await;
    refused("stranger's append", append, STRANGER)?;
    let append = node.append(group, 999, (1 << 63, 999), vec![]).await;
    refused("stranger's append in term 2^63", append, INVALID)?;
    let beat = node.heartbeat(group, 999, (next, 999)).await;
    refused("stranger's heartbeat", beat, STRANGER)?;
    let snapshot = node.snapshot(group, 999, (next, 999), b"").await;
    refused("stranger's snapshot", snapshot, STRANGER)?;
    let transfer = node.transfer(group, 999, (next, 999)).await;
    refused("stranger's transfer", transfer, STRANGER)?;
    sent += 7;
    // The receiver as the sender, and one member in the name of another.
    for (source, named) in [(own, own), (member, own), (own, member), (999, member)] {
        let leader = (term + 45, named);
        refused("append of another", node.append(group, source, leader, vec![]).await, INVALID)?;
        refused("heartbeat of another", node.heartbeat(group, source, leader).await, INVALID)?;
        let snapshot = node.snapshot(group, source, leader, b"").await;
        refused("snapshot of another", snapshot, INVALID)?;
        let transfer = node.transfer(group, source, leader).await;
        refused("transfer of another", transfer, INVALID)?;
        sent += 4;
    }
    // Malformed: a gap, an index out of range, an unreadable snapshot. An older leader's message is
    // refused by these rules too.
    for index in [u64::MAX, 1 << 63, 7] {
        let gap = node.append(group, member, (term, member), vec![index]).await;
        refused("append with a gap", gap, INVALID)?;
    }
    for body in [&b""[..], &[7; 700]] {
        let snapshot = node.snapshot(group, member, (term, member), body).await;
        refused("snapshot without content", snapshot, CORRUPT)?;
    }
    Ok(sent + 5)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_raft_messages_are_refused() -> Result<()> {
    let target = Target::start().await?;
    let group = target.group.group_id;
    let term = target.group.leader_term;
    let leader = target.group.leader;
    for index in 0..3 {
        let node = target.data(index).await?;
        let listen = target.cluster.data[index].spec.listen;
        let before = count(listen, REFUSED).await?;
        let member = if node.id == leader { target.other_voter(leader) } else { leader };
        let mut sent = send_forged(&node, group, member, term).await?;
        if member == leader {
            let later = node.append_unknown_kind(group, leader, term).await;
            refused("append of an unknown kind", later, &[Reason::Unsupported])?;
            sent += 1;
        }
        expect_counted(listen, REFUSED, before, sent).await?;
    }
    let (meta_leader, _) = target.cluster.meta_leader().await?;
    for number in 1..=3 {
        let node = target.meta(number).await?;
        let listen = target.cluster.meta[number as usize - 1].spec.listen;
        let before = count(listen, REFUSED).await?;
        let leader = meta_leader as u64 + 1;
        let member = if number == leader { number % 3 + 1 } else { leader };
        let sent = send_forged(&node, 0, member, 1).await?;
        expect_counted(listen, REFUSED, before, sent).await?;
    }
    target.expect_unchanged().await
}

/// A node that lacks acknowledged rows starts first, and receives a message that it leads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_leader_loses_no_acknowledged_rows() -> Result<()> {
    let mut target = Target::start().await?;
    let group = target.group.group_id;
    let owner = target.cluster.owner(LOG_TABLE).await?;
    let late = (owner + 1) % 3;
    let node = target.data(late).await?;
    let address = target.cluster.data[late].spec.listen;
    target.cluster.data[late].kill().await?;
    let options = LoadOptions { first_writer: 50, ..LoadOptions::default() };
    let load = Workload::start(&target.cluster, options).await?;
    load.progress(50).await?;
    target.attempts.extend(load.stop().await?);
    for other in (0..3).filter(|other| *other != late) {
        target.cluster.data[other].kill().await?;
    }
    target.cluster.data[late].start().await?;
    let forger = Forger::new(address, &target.catalog.cluster_id, node.id).await?;
    let member = target.other_voter(node.id);
    for term in [50, target.group.leader_term, target.group.leader_term + 1] {
        for source in [node.id, member] {
            let append = forger.append(group, source, (term, node.id), vec![]).await;
            refused("append that names its receiver", append, INVALID)?;
            let beat = forger.heartbeat(group, source, (term, node.id)).await;
            refused("heartbeat that names its receiver", beat, INVALID)?;
        }
    }
    target.cluster.start_all().await?;
    target.cluster.wait_until_healthy().await?;
    target.cluster.verify(&target.attempts).await?;
    target.finish().await
}
