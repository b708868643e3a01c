//! Forged calls to the meta leader: heartbeats (findings C6, A1 and A2), the stop of a replica that they
//! prepare (C4), and cursors of durable hooks (M2).

use std::path::Path;

use tidewater_cluster_tests::cluster::{Cluster, LOG_TABLE};
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tidewater_proto::v1::{CursorAdvance, CursorState, GroupReport, HookCursor, Reason};

use super::refused;
use super::target::{SETTLED_FOR, Target, count, expect_counted};
use crate::support::SETTLED_WITHIN;

const REFUSED: &str = "tidewater_meta_calls_refused_total";
const IGNORED: &str = "tidewater_group_reports_ignored_total";

/// Report of a node that leads the group alone.
fn alone(target: &Target, node: u64, term: u64, index: u64) -> GroupReport {
    GroupReport {
        group_id: target.group.group_id,
        term,
        leader: node,
        last_log_index: index,
        applied_index: index,
        voters: vec![node],
        membership_term: term,
        membership_index: index,
        effective_term: term,
        effective_index: index,
        ..GroupReport::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_heartbeats_do_not_stay() -> Result<()> {
    let target = Target::start().await?;
    let meta = target.meta_leader().await?;
    let listen = meta.address;
    let before = (count(listen, REFUSED).await?, count(listen, IGNORED).await?);
    let leader = target.group.leader;
    let address = target.address(leader);
    let far = alone(&target, leader, 1 << 40, 1 << 40);
    let elsewhere = meta.node_heartbeat(leader, "127.0.0.1:1", far.clone()).await;
    refused("heartbeat from another address", elsewhere, &[Reason::WrongNode])?;
    let unknown = meta.node_heartbeat(999, &address, far.clone()).await;
    refused("heartbeat of an unknown node", unknown, &[Reason::NodeNotFound])?;
    // The heartbeats are taken, without these reports.
    let near = target.group.leader_term;
    let implausible = [
        far,
        alone(&target, leader, u64::MAX, 9),
        GroupReport { membership_index: u64::MAX, ..alone(&target, leader, near, 9) },
        GroupReport { membership_term: near + 1, ..alone(&target, leader, near, 9) },
        GroupReport { effective_index: 10, ..alone(&target, leader, near, 9) },
        GroupReport { voters: Vec::new(), ..alone(&target, leader, near, 9) },
    ];
    let reports = implausible.len() as u64;
    for report in implausible {
        let _ = meta.node_heartbeat(leader, &address, report).await;
    }
    expect_counted(listen, REFUSED, before.0, 1).await?;
    expect_counted(listen, IGNORED, before.1, reports).await?;
    // Reports that a leader could send, until its own next heartbeat.
    for term in [near + 1_000, near] {
        for node in [leader, target.other_voter(leader)] {
            let report = alone(&target, node, term, 1 << 40);
            let _ = meta.node_heartbeat(node, &target.address(node), report).await;
        }
    }
    expect_record(&target).await?;
    target.expect_unchanged().await
}

/// A forged heartbeat makes the meta group record that a replica is no member; then the replica
/// receives a request to stop. The meta leader may send the same call by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_is_not_stopped_on_forged_heartbeats() -> Result<()> {
    let target = Target::start().await?;
    let meta = target.meta_leader().await?;
    let leader = target.group.leader;
    let address = target.address(leader);
    let term = target.group.leader_term;
    let mut replicas = Vec::new();
    for index in 0..3 {
        let node = target.data(index).await?;
        if node.id != leader {
            replicas.push((index, node));
        }
    }
    let reasons = &[Reason::MembershipStale, Reason::Unavailable];
    let metric = "tidewater_control_calls_refused_total";
    let first = target.cluster.data[replicas[0].0].spec.listen;
    let before = count(first, metric).await?;
    for round in 0..40 {
        let report = alone(&target, leader, term, (1 << 40) + round);
        let _ = meta.node_heartbeat(leader, &address, report).await;
        for (_, node) in &replicas {
            let stopped = node.stop_replica(target.group.group_id, (0, 0)).await;
            refused("stop of a replica", stopped, reasons)?;
        }
    }
    expect_counted(first, metric, before, 20).await?;
    for (index, _) in &replicas {
        let removed = target.cluster.data[*index].spec.data_dir.as_ref();
        if removed.is_some_and(|folder| folder.join("removed").exists()) {
            return Err(HarnessError::violated("a replica was stopped, and its log set aside"));
        }
    }
    expect_record(&target).await?;
    target.expect_unchanged().await
}

/// Waits until the catalog has the group as before.
async fn expect_record(target: &Target) -> Result<()> {
    wait::until("the record stays right", SETTLED_WITHIN, || async {
        check_record(target).await?;
        // Longer than the time from a forged report to its record: it may not be recorded yet.
        tokio::time::sleep(SETTLED_FOR).await;
        check_record(target).await
    })
    .await
}

async fn check_record(target: &Target) -> Result<(), String> {
    let expected = &target.group;
    let catalog = target.cluster.catalog().await.map_err(|error| error.to_string())?;
    let group = catalog.groups.iter().find(|group| group.group_id == expected.group_id);
    let found = group.cloned().unwrap_or_default();
    let is_same = found.voters == expected.voters
        && found.learners == expected.learners
        && found.leader_term < expected.leader_term + 100
        && found.membership_index < 1 << 40;
    if is_same { Ok(()) } else { Err(format!("{found:?}")) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_cursor_hides_no_version_from_a_hook() -> Result<()> {
    let mut target = Target::start().await?;
    let path = target.cluster.hook_directory().join("told.jsonl");
    let config = format!(r#"{{"path":"{}"}}"#, path.display());
    let args = ["hook", "add", "told", "--kind", "jsonl", "--config", &config, "--durable"];
    target.cluster.run(&args).await?.ok()?;
    let meta = target.meta_leader().await?;
    let listen = meta.address;
    let group = target.group.group_id;
    let tail = wait::until("the hook has a position", SETTLED_WITHIN, || async {
        let cursors = meta.list_cursors(group).await.map_err(|status| status.to_string())?;
        let tail = cursors.into_iter().find(|cursor| cursor.state() == CursorState::Tail);
        tail.ok_or_else(|| "no cursor follows its manifest".to_owned())
    })
    .await?;
    let before = count(listen, REFUSED).await?;
    for version in [1_000_000_000, u64::MAX, tail.version + 65] {
        let moved = meta.advance_cursor(advance(&tail, version)).await;
        refused("move of a cursor", moved, &[Reason::InvalidArgument])?;
    }
    expect_counted(listen, REFUSED, before, 3).await?;
    expect_told(&mut target, &path, 30).await?;
    // A cursor a little above its manifest: the owner notices, and the hook restarts with a snapshot.
    let cursors = meta.list_cursors(group).await;
    let cursors = cursors.map_err(|status| HarnessError::violated(status.to_string()))?;
    let tail = cursors.into_iter().find(|cursor| cursor.hook == "told").unwrap_or_default();
    let moved = meta.advance_cursor(advance(&tail, tail.version + 60)).await;
    moved.map_err(|status| HarnessError::violated(status.to_string()))?;
    wait::until("the hook restarts with a snapshot", SETTLED_WITHIN, || async {
        let calls = std::fs::read_to_string(&path).unwrap_or_default();
        if calls.contains("\"bootstrap\"") { Ok(()) } else { Err(calls) }
    })
    .await?;
    expect_told(&mut target, &path, 60).await?;
    target.finish().await
}

fn advance(cursor: &HookCursor, version: u64) -> CursorAdvance {
    CursorAdvance {
        hook: cursor.hook.clone(),
        generation: cursor.generation,
        region_id: cursor.region_id,
        expected_version: cursor.version,
        expected_state: cursor.state,
        version,
        state: CursorState::Tail.into(),
        done: false,
    }
}

/// Writes and flushes rows, and waits until the hook has received the next version.
async fn expect_told(target: &mut Target, path: &Path, first_writer: i64) -> Result<()> {
    let cluster = &target.cluster;
    let version = manifest_version(cluster).await?;
    let options = LoadOptions { first_writer, ..LoadOptions::default() };
    let load = Workload::start(cluster, options).await?;
    load.progress(5).await?;
    target.attempts.extend(load.stop().await?);
    cluster.flush(LOG_TABLE).await?.ok()?;
    let what = format!("the hook receives a version above {version}");
    wait::until(&what, SETTLED_WITHIN, || async {
        let calls = std::fs::read_to_string(path).unwrap_or_default();
        let whole = calls.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let last = whole.lines().last().unwrap_or_default();
        let call: serde_json::Value = serde_json::from_str(last).unwrap_or_default();
        let told = call["manifest_version"].as_u64().is_some_and(|told| told > version);
        if told { Ok(()) } else { Err(calls) }
    })
    .await
}

async fn manifest_version(cluster: &Cluster) -> Result<u64> {
    let mut newest = 0;
    for (_, infos) in cluster.replicas(LOG_TABLE, None, false).await {
        let infos = infos.map_err(HarnessError::violated)?;
        newest = infos.iter().map(|info| info.manifest_version).max().unwrap_or(0).max(newest);
    }
    Ok(newest)
}
