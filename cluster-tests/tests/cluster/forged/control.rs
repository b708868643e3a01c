//! Forged calls to groups and regions (findings C3, C4 and C5), and to the object store.

use tidewater_cluster_tests::Result;
use tidewater_proto::v1::change_membership_request::Change;
use tidewater_proto::v1::{GroupMember, Reason};

use super::calls::Forger;
use super::exports::forge_export_calls;
use super::refreshes::{forge_barriers, forge_refresh_calls};
use super::refused;
use super::target::{Target, count, expect_counted};

const REFUSED: &str = "tidewater_control_calls_refused_total";
const INVALID: &[Reason] = &[Reason::InvalidArgument];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_calls_to_groups_are_refused() -> Result<()> {
    let target = Target::start().await?;
    for index in 0..3 {
        let node = target.data(index).await?;
        let listen = target.cluster.data[index].spec.listen;
        let before = count(listen, REFUSED).await?;
        let mut sent = forge_region_calls(&target, &node).await?;
        sent += forge_group_calls(&target, &node).await?;
        expect_counted(listen, REFUSED, before, sent).await?;
        forge_refresh_calls(&target, &node).await?;
        forge_barriers(&target, &node).await?;
        forge_export_calls(&target, &node).await?;
    }
    target.expect_unchanged().await
}

/// Sends calls that change regions. Returns their number.
async fn forge_region_calls(target: &Target, node: &Forger) -> Result<u64> {
    let region = target.region;
    let table = target.table()?;
    let mut sent = 0;
    for (base, id) in [(u64::MAX, region.region_id), (0, 4_711), (u64::MAX, 4_711)] {
        let opened = node.open_region(&region, &table, id, base).await;
        refused("opening of a region", opened, INVALID)?;
        sent += 1;
    }
    // Regions of later tables could not be opened.
    for id in [region.region_id, region.region_id + 1, 4_711, u64::MAX] {
        refused("removal of a region", node.drop_region(&region, id).await, INVALID)?;
        sent += 1;
    }
    for number in [0, 1, u64::MAX] {
        let truncated = node.truncate_region(&region, number).await;
        refused("truncation of a region", truncated, INVALID)?;
        for version in [1, 2, u32::MAX] {
            let altered = node.alter_region(&region, &table, version, number).await;
            refused("alteration of a region", altered, INVALID)?;
        }
        let opened = node.open_area(&region, number).await;
        refused("opening of a staging area", opened, INVALID)?;
        for publish in [false, true] {
            let closed = node.close_area(&region, publish, number).await;
            refused("end of a staging area", closed, INVALID)?;
        }
        let copied = node.copy_region(&region, number).await;
        refused("copy of a region", copied, INVALID)?;
        sent += 8;
    }
    for floor_ms in [u64::MAX, 1 << 62] {
        refused("garbage collection", node.sweep(floor_ms).await, INVALID)?;
        sent += 1;
    }
    Ok(sent)
}

/// Sends calls that change the members of groups. Returns their number.
async fn forge_group_calls(target: &Target, node: &Forger) -> Result<u64> {
    let group = target.group.group_id;
    let on = (target.group.membership_term, target.group.membership_index);
    let is_leader = node.id == target.group.leader;
    let mut sent = 0;
    for unknown in 900..903 {
        let member = GroupMember { node_id: unknown, address: "127.0.0.1:1".to_owned() };
        for change in [Change::AddLearner(member), Change::Promote(unknown)] {
            let changed = node.change(group, on, change).await;
            refused("change of members to an unknown node", changed, INVALID)?;
            sent += 1;
        }
    }
    let known = target.other_voter(node.id);
    let elsewhere = GroupMember { node_id: known, address: "127.0.0.1:1".to_owned() };
    let changed = node.change(group, on, Change::AddLearner(elsewhere)).await;
    refused("another address of a member", changed, INVALID)?;
    sent += 1;
    for voter in target.group.voters.clone() {
        let changed = node.change(group, on, Change::Remove(voter)).await;
        // Only the leader knows the members.
        let reasons = if is_leader { INVALID } else { &[Reason::NotLeader][..] };
        refused("removal of a voter that is up", changed, reasons)?;
        sent += u64::from(is_leader);
    }
    for on in [(on.0, on.1 + 1), (u64::MAX, u64::MAX)] {
        let changed = node.change(group, on, Change::Remove(known)).await;
        refused(
            "removal at another membership",
            changed,
            &[Reason::MembershipStale, Reason::NotLeader],
        )?;
        sent += u64::from(is_leader);
    }
    for (id, initialize) in [(u64::MAX, true), (u64::MAX, false), (group, true), (0, true)] {
        let started = node.start_group(id, initialize).await;
        refused("start of a group", started, INVALID)?;
        sent += 1;
    }
    // At the current membership, at a later one, and at none.
    for on in [on, (u64::MAX, u64::MAX), (on.0, on.1 + 1), (0, 0)] {
        let stopped = node.stop_replica(group, on).await;
        refused("stop of a replica", stopped, &[Reason::MembershipStale])?;
        sent += 1;
    }
    Ok(sent)
}
