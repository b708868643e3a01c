//! A rolling restart of all nodes under load.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::node::Node;
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{HarnessError, Result, binary, command};
use tokio::time::sleep;

use crate::support::{conclude, wait_for_level};

/// Command that asks the test to restart a node, and waits until it has: a file with the node's address as its name.
fn ask(directory: &Path) -> String {
    let asked = format!("{}/$TIDEWATER_ADDRESS", directory.display());
    format!(r#"touch "{asked}"; while [ -e "{asked}" ]; do sleep 0.1; done"#)
}

/// Returns the files of nodes that are to be restarted.
fn asked(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory).map_err(HarnessError::io("the requests"))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

/// Stops and starts the node with this address.
async fn restart(cluster: &mut Cluster, address: &str) -> Result<()> {
    let nodes = cluster.meta.iter_mut().chain(&mut cluster.data).chain(&mut cluster.compactors);
    let is_node = |node: &&mut Node| node.spec.listen.to_string() == address;
    let node = nodes.into_iter().find(is_node);
    let node = node.ok_or_else(|| HarnessError::violated(format!("no node {address}")))?;
    node.terminate().await?;
    node.start().await
}

// 3 meta nodes, 3 data nodes and 2 compactors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restart_fails_no_write() -> Result<()> {
    let mut cluster = ClusterPlan::default().nodes(3, 3, 2).start().await?;
    wait_for_level(&cluster).await?;
    cluster.create_log_table_with_regions(3).await?;
    let requests = cluster.directory().join("restarts");
    std::fs::create_dir(&requests).map_err(HarnessError::io("the requests"))?;
    let failing = ["cluster", "restart", "--role", "data", "--command", "false"];
    cluster.run(&failing).await?.status(1)?.expect_stderr(&["no further node is restarted"])?;
    let listed =
        cluster.run(&["cluster", "restart", "--dry-run", "--command", "false"]).await?.ok()?;
    println!("{}", listed.stdout.trim());
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    load.progress(40).await?;
    load.mark();
    let asking = ask(&requests);
    let meta = cluster.meta_addresses().join(",");
    let binary = binary::tidewater()?;
    let restarting = tokio::spawn(async move {
        let args =
            ["cluster", "restart", "--output", "json", "--meta", &meta, "--command", &asking];
        command::run(&binary, &args, &[]).await
    });
    let mut restarts = 0;
    while !restarting.is_finished() {
        for request in asked(&requests)? {
            let name = request.file_name().unwrap_or_default().to_string_lossy().into_owned();
            restart(&mut cluster, &name).await?;
            restarts += 1;
            std::fs::remove_file(&request).map_err(HarnessError::io("a request"))?;
        }
        sleep(Duration::from_millis(50)).await;
    }
    let output =
        restarting.await.map_err(|error| HarnessError::violated(error.to_string()))??.ok()?;
    println!(
        "{restarts} restarts; slowest write {:.1?}, longest time without any {:.1?}",
        load.slowest_write(),
        load.longest_gap()
    );
    if restarts != 8 || output.json()?["nodes"].as_array().map(Vec::len) != Some(8) {
        return Err(HarnessError::violated(format!("{restarts} restarts: {}", output.stdout)));
    }
    load.progress(40).await?;
    let verdict = conclude(cluster, load).await?;
    if verdict.failed > 0 || verdict.unknown > 0 {
        return Err(HarnessError::violated(format!("a write was not acknowledged: {verdict}")));
    }
    Ok(())
}
