//! Data directories that are copied, or restored from a backup: at most one process takes part as a node,
//! and none that may lack acknowledged writes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE};
use tidewater_cluster_tests::node::{Node, NodeSpec, Signal};
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{HarnessError, Result};

use crate::support::conclude;

/// Limit for a refused node to exit, with a margin for a busy machine.
const EXITS_WITHIN: Duration = Duration::from_secs(60);
/// Time without a heartbeat after which another process may take the node's place, with a margin.
const SILENT: Duration = Duration::from_secs(4);

async fn started() -> Result<(Cluster, Workload)> {
    let plan = ClusterPlan::default().env("TIDEWATER_REPLACE_AFTER", "4s");
    let cluster = plan.start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    load.progress(20).await?;
    Ok((cluster, load))
}

fn data_dir(node: &Node) -> Result<PathBuf> {
    let dir = node.spec.data_dir.clone();
    dir.ok_or_else(|| HarnessError::violated("the node has no data directory"))
}

fn copy_directory(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_directory(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Returns a stopped node with a copy of the directory of data node `of`, which is frozen during the
/// copy, and with an address of its own.
async fn copy_of(cluster: &Cluster, of: usize, leave_frozen: bool) -> Result<Node> {
    let original = &cluster.data[of];
    let copied_dir = cluster.directory().join("copy");
    original.signal(Signal::Stop).await?;
    copy_directory(&data_dir(original)?, &copied_dir)
        .map_err(HarnessError::io("copy a directory"))?;
    if !leave_frozen {
        original.signal(Signal::Continue).await?;
    }
    let address = cluster.spare_address()?;
    let replaced = [
        (original.spec.listen.to_string(), address.to_string()),
        (data_dir(original)?.display().to_string(), copied_dir.display().to_string()),
    ];
    let replace = |argument: &String| {
        let found = replaced.iter().find(|(old, _)| old == argument);
        found.map_or_else(|| argument.clone(), |(_, new)| new.clone())
    };
    let args = original.spec.args.iter().map(replace).collect();
    let like = NodeSpec {
        listen: address,
        advertise: address,
        data_dir: Some(copied_dir),
        ..original.spec.clone()
    };
    Ok(cluster.extra("copy", &like, args))
}

/// Waits until a node has exited with an error, and checks that its log explains it.
async fn expect_refused(node: &mut Node, words: &[&str]) -> Result<()> {
    let status = node.wait_for_exit(EXITS_WITHIN).await?;
    let log = node.log().text()?;
    let missing = words.iter().find(|words| !log.contains(**words));
    match missing {
        None if !status.success() => Ok(()),
        _ => Err(HarnessError::violated(format!(
            "{} exited with {status}; {missing:?} is missing in its log: {}",
            node.spec.name,
            node.log().tail()
        ))),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_of_a_running_node_exits_with_a_remedy() -> Result<()> {
    let (cluster, load) = started().await?;
    let owner = cluster.owner(LOG_TABLE).await?;
    let mut copy = copy_of(&cluster, owner, false).await?;
    copy.spawn()?;
    expect_refused(&mut copy, &["is a copy of its directory", "empty --data-dir"]).await?;
    load.progress(20).await?;
    cluster.wait_until_healthy().await?;
    conclude(cluster, load).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_original_exits_after_its_copy_has_started() -> Result<()> {
    let (mut cluster, load) = started().await?;
    let owner = cluster.owner(LOG_TABLE).await?;
    let mut copy = copy_of(&cluster, owner, true).await?;
    tokio::time::sleep(SILENT).await;
    copy.start().await?;
    cluster.data[owner].signal(Signal::Continue).await?;
    let words = ["a newer process with the data directory", "this node was superseded"];
    expect_refused(&mut cluster.data[owner], &words).await?;
    // The copy has the node's whole log: it was made while the node was frozen.
    load.progress(20).await?;
    cluster.wait_until_healthy().await?;
    copy.terminate().await?;
    load.progress(20).await?;
    conclude(cluster, load).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_with_a_restored_directory_is_refused_for_good() -> Result<()> {
    let (mut cluster, load) = started().await?;
    let owner = cluster.owner(LOG_TABLE).await?;
    let directory = data_dir(&cluster.data[owner])?;
    let backup = cluster.directory().join("backup");
    cluster.data[owner].terminate().await?;
    copy_directory(&directory, &backup).map_err(HarnessError::io("copy a directory"))?;
    cluster.data[owner].start().await?;
    cluster.wait_until_healthy().await?;
    load.progress(40).await?;
    cluster.data[owner].terminate().await?;

    cluster.data[owner].wipe()?;
    copy_directory(&backup, &directory).map_err(HarnessError::io("copy a directory"))?;
    cluster.data[owner].spawn()?;
    let words = ["was restored from a backup", "empty --data-dir"];
    expect_refused(&mut cluster.data[owner], &words).await?;
    load.progress(20).await?;

    // The remedy of the message.
    cluster.data[owner].wipe()?;
    cluster.data[owner].start().await?;
    cluster.wait_until_healthy().await?;
    conclude(cluster, load).await?;
    Ok(())
}
