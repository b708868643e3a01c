//! Alters of a table under load, while one of its groups has no leader: no write and no read fails.

use std::time::Duration;

use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE};
use tidewater_cluster_tests::node::Signal;
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tokio::time::Instant;

use crate::reader::Reader;
use crate::support::{SETTLED_WITHIN, conclude, wait_for_level};

const REGIONS: u32 = 64;
/// Time for which one group has no leader.
const WITHOUT_LEADER: Duration = Duration::from_secs(10);

/// Starts a cluster with three groups on the first three data nodes, and one on the fourth and two others. Returns the
/// two nodes that are a majority of that group, and of no other.
async fn start() -> Result<(Cluster, [usize; 2])> {
    let mut cluster = ClusterPlan::default().nodes(3, 4, 0).prepare().await?;
    let mut late = cluster.data.split_off(3);
    cluster.start_all().await?;
    cluster.wait_until_healthy().await?;
    cluster.data.append(&mut late);
    cluster.start_all().await?;
    let last = cluster.node_id(&cluster.data[3].spec).await?;
    let voters = wait::until("the fourth node has a group", SETTLED_WITHIN, || async {
        let catalog = cluster.catalog().await.map_err(|error| error.to_string())?;
        let of_last = catalog.groups.iter().find(|group| group.voters.contains(&last));
        match of_last {
            Some(group) if group.voters.len() == 3 => Ok(group.voters.clone()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    for index in 0..3 {
        if voters.contains(&cluster.node_id(&cluster.data[index].spec).await?) {
            wait_for_level(&cluster).await?;
            return Ok((cluster, [index, 3]));
        }
    }
    Err(HarnessError::violated(format!("voters {voters:?}")))
}

async fn signal(cluster: &Cluster, nodes: [usize; 2], signal: Signal) -> Result<()> {
    for node in nodes {
        cluster.data[node].signal(signal).await?;
    }
    Ok(())
}

/// Returns the id of the procedure that alters the table.
async fn alteration(cluster: &Cluster) -> Result<String> {
    let list = cluster.run(&["procedure", "list", "--output", "json"]).await?.ok()?.json()?;
    let is_alter = |of: &&serde_json::Value| of["kind"] == "alter" && of["state"] == "running";
    let found = list.as_array().into_iter().flatten().find(is_alter);
    let id = found.and_then(|of| of["procedure_id"].as_str());
    id.map(str::to_owned).ok_or_else(|| HarnessError::violated(format!("no alteration: {list}")))
}

async fn columns(cluster: &Cluster) -> Result<String> {
    let described = cluster.run(&["table", "describe", LOG_TABLE, "--output", "json"]).await?;
    let described = described.ok()?.json()?;
    Ok(format!("{} {}", described["schema_version"], described["columns"]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alter_fails_no_call_without_a_leader() -> Result<()> {
    let (cluster, frozen) = start().await?;
    cluster.create_log_table_with_regions(REGIONS).await?;
    let alter = ["table", "alter", LOG_TABLE];
    let add = ["--add-column", "extra int64 default 3"];
    cluster.run(&[&alter[..], &add].concat()).await?.ok()?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    let reader = Reader::start(&cluster).await?;
    load.progress(40).await?;
    let before = columns(&cluster).await?;

    signal(&cluster, frozen, Signal::Stop).await?;
    let stopped = Instant::now();
    let change = ["--drop-column", "extra", "--add-column", "more int64 default 4"];
    let change = [&alter[..], &change].concat();
    let begun = cluster.run(&[&change[..], &["--timeout", "3s"]].concat()).await?;
    if begun.status == Some(0) {
        return Err(HarnessError::violated(format!(
            "a region without a leader was altered: {begun:?}"
        )));
    }
    // Cancelled in the middle: as before.
    let id = alteration(&cluster).await?;
    cluster.run(&["procedure", "cancel", &id]).await?.ok()?;
    let after = columns(&cluster).await?;
    if after != before {
        return Err(HarnessError::violated(format!("cancelled: {before}, then {after}")));
    }
    let again = [&change[..], &["--timeout", "60s"]].concat();
    let again = cluster.run(&again);
    let resume = async {
        tokio::time::sleep_until(stopped + WITHOUT_LEADER).await;
        signal(&cluster, frozen, Signal::Continue).await
    };
    let (again, resumed) = tokio::join!(again, resume);
    resumed?;
    again?.ok()?;
    load.progress(200).await?;
    let altered = columns(&cluster).await?;
    if !altered.contains("more") || altered.contains("extra") {
        return Err(HarnessError::violated(altered));
    }
    let scans = reader.stop().await?;
    println!("{scans} scans");
    let verdict = conclude(cluster, load).await?;
    if verdict.failed > 0 || verdict.unknown > 0 {
        return Err(HarnessError::violated(format!("writes failed during an alter: {verdict}")));
    }
    Ok(())
}
