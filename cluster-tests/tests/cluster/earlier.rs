//! A recorded cluster of an earlier release, and today's release: it continues the directories, and while the
//! feature level is not raised, it writes nothing that the earlier release cannot read.
//!
//! `earlier/release.zip` has the directories of a meta node and a data node, their object store, and the
//! descriptors of the earlier release's messages. Its test needs no binary of that release. The test with the
//! binary is in `upgrade.rs`. `scripts/upgrade-test --record` replaces the recording.

mod messages;
mod record;
mod recording;
mod steps;
mod stored;

use std::collections::BTreeSet;

use serde_json::Value;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::{Result, wait};
use tidewater_common::feature_level::FeatureLevel;

use self::messages::Messages;
use self::recording::Recording;
use crate::commands::{check, check_equal};
use crate::support::SETTLED_WITHIN;
use crate::upgrade::MAX_LEVEL;

/// Prefix of the tables that the earlier release has made.
const EARLIER: &str = "earlier";
/// Prefix of the tables that today's release makes.
const TODAY: &str = "today";

/// One node of each kind: the recording stays small.
fn plan() -> ClusterPlan {
    ClusterPlan::default().nodes(1, 1, 0)
}

/// Fields that today's release sends below the level that they need, where the earlier release ignores them.
const IGNORED: [&str; 1] = ["MetaCommand.register_node.#70"];

/// Kinds of commands and entries that the steps must write, so that the comparison is one.
const KINDS: [&str; 17] = [
    "GroupEntry.altered",
    "GroupEntry.area_opened",
    "GroupEntry.area_published",
    "GroupEntry.dropped",
    "GroupEntry.manifest_advanced",
    "GroupEntry.opened",
    "GroupEntry.truncated",
    "GroupEntry.writes",
    "MetaCommand.activate_table",
    "MetaCommand.add_hook",
    "MetaCommand.advance_cursors",
    "MetaCommand.advance_time",
    "MetaCommand.begin_alter_table",
    "MetaCommand.begin_load",
    "MetaCommand.clone_table",
    "MetaCommand.create_table",
    "MetaCommand.remove_hook",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_cluster_stays_readable_until_the_raise() -> Result<()> {
    let mut cluster = plan().prepare().await?;
    let recording = Recording::open()?;
    recording.unpack(cluster.directory())?;
    let earlier = recording.messages()?;
    check_equal("the recording", unknown(&earlier, &cluster)?, BTreeSet::new())?;
    let recorded = kinds(&earlier, &cluster)?;
    let recorded_versions = versions(&earlier, &cluster)?;

    let node = &mut cluster.meta[0].spec;
    node.args.retain(|argument| argument != "--bootstrap");
    node.env.push((MAX_LEVEL.to_owned(), "1".to_owned()));
    cluster.start_all().await?;
    cluster.wait_until_healthy().await?;
    steps::verify(&cluster, EARLIER).await?;
    steps::run(&cluster, TODAY).await?;
    check_status(&cluster).await?;
    stop(&mut cluster).await?;
    check_equal("unreadable before the raise", unknown(&earlier, &cluster)?, BTreeSet::new())?;
    let written_versions = versions(&earlier, &cluster)?;
    let later: Vec<_> = written_versions.difference(&recorded_versions).collect();
    check_equal("later rules or formats before the raise", later, Vec::new())?;
    let written = kinds(&earlier, &cluster)?;
    let missing: Vec<_> = KINDS
        .iter()
        .filter(|kind| !recorded.contains(**kind) || !written.contains(**kind))
        .collect();
    check_equal("kinds that were not written", missing, Vec::new())?;

    cluster.meta[0].spec.env.retain(|(name, _)| name != MAX_LEVEL);
    cluster.start_all().await?;
    let highest = u64::from(FeatureLevel::HIGHEST.get());
    wait::until("the level is raised", SETTLED_WITHIN, || async {
        let status = status(&cluster).await.map_err(|error| error.to_string())?;
        if status["feature_level"] == highest { Ok(()) } else { Err(status.to_string()) }
    })
    .await?;
    cluster.wait_until_healthy().await?;
    for prefix in [EARLIER, TODAY] {
        steps::verify(&cluster, prefix).await?;
    }
    stop(&mut cluster).await?;
    // The comparison finds forms that the earlier release does not know.
    let raised = unknown(&earlier, &cluster)?;
    for expected in ["MetaCommand.#70", "MetaHeader: codec 2"] {
        check(&format!("{expected} is in {raised:?}"), raised.contains(expected))?;
    }
    cluster.finish().await
}

/// Returns what the earlier release cannot read in the directories of stopped nodes.
fn unknown(earlier: &Messages, cluster: &Cluster) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for stored in stored::read(cluster)? {
        found.extend(earlier.unknown(&stored)?);
    }
    found.retain(|path| !IGNORED.contains(&path.as_str()));
    Ok(found)
}

/// Returns the kinds of commands and entries in the logs of stopped nodes.
fn kinds(earlier: &Messages, cluster: &Cluster) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for stored in stored::read(cluster)? {
        found.extend(earlier.kind(&stored)?);
    }
    Ok(found)
}

/// Returns the numbers of rules and formats in the messages of stopped nodes.
fn versions(earlier: &Messages, cluster: &Cluster) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for stored in stored::read(cluster)? {
        found.extend(earlier.versions(&stored)?);
    }
    Ok(found)
}

/// Verifies that the status shows the level, and that the option of the meta node holds it back.
async fn check_status(cluster: &Cluster) -> Result<()> {
    // A heartbeat that is late on a loaded machine makes its node a holder for a moment.
    wait::until("only the meta node holds back the level", SETTLED_WITHIN, || async {
        let found = status(cluster).await.map_err(|error| error.to_string())?;
        let holders = found["level_held_back_by"].as_array().into_iter().flatten();
        let nodes: Vec<_> = holders.map(|held| held["node_id"].as_u64()).collect();
        let levels = [&found["feature_level"], &found["next_feature_level"]].map(Value::as_u64);
        let is_expected = nodes == [Some(1)] && levels == [Some(1), Some(2)];
        if is_expected { Ok(()) } else { Err(found.to_string()) }
    })
    .await?;
    let text = cluster.run(&["cluster", "status"]).await?.ok()?.stdout;
    let lines =
        ["level    1; level 2 is held back:", "- node 1: it runs with --max-feature-level 1"];
    for line in lines.into_iter().chain(["HIGHEST LEVEL"]) {
        check(&format!("{line} is in {text}"), text.contains(line))?;
    }
    Ok(())
}

async fn stop(cluster: &mut Cluster) -> Result<()> {
    for node in cluster.data.iter_mut().chain(&mut cluster.meta) {
        node.terminate().await?;
    }
    Ok(())
}

async fn status(cluster: &Cluster) -> Result<Value> {
    cluster.run(&["cluster", "status", "--output", "json"]).await?.json()
}
