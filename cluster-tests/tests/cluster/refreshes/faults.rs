//! Refreshes while processes are killed (F1, F2).

use std::env;
use std::time::Duration;

use serde_json::Value;
use tidewater_client::Client;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::workload::options;
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tokio::time::sleep;

use super::mirror::{Mirror, TABLE};
use super::reader::Reader;
use crate::support::wait_for_level;

/// Longest time until a refresh is published although nodes are killed.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(120);
/// Rounds without a count in the environment: each kills a process at another moment.
const ROUNDS: u64 = 6;

/// Rows of a version of the source. All of them change with the version.
fn rows_of(version: u64) -> u64 {
    if version == 0 { 0 } else { 20_000 + 100 * (version % 5) }
}

async fn status(cluster: &Cluster) -> Result<Value> {
    let output = cluster.run(&["refresh", "status", TABLE, "--output", "json"]).await?.ok()?;
    Ok(output.json()?[0].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_processes_show_no_mixture_of_refreshes() -> Result<()> {
    let mut cluster = ClusterPlan::default().start().await?;
    wait_for_level(&cluster).await?;
    let mut mirror = Mirror::create(&cluster, 3).await?;
    let client = Client::connect(options(&cluster)).await;
    let client = client.map_err(|error| HarnessError::violated(error.to_string()))?;
    let reader = Reader::start(client, rows_of);
    let rounds = env::var("TIDEWATER_REFRESH_ROUNDS").ok().and_then(|text| text.parse().ok());
    for version in 1..=rounds.unwrap_or(ROUNDS) {
        let rows = i64::try_from(rows_of(version)).unwrap_or_default();
        mirror.rows = (0..rows).map(|id| (id, format!("version {version}"))).collect();
        mirror.write(4)?;
        cluster.run(&["refresh", "start", TABLE, "--no-wait"]).await?.ok()?;
        // Another step of the refresh in each round.
        sleep(Duration::from_millis(150 * version)).await;
        let state = status(&cluster).await?["state"].clone();
        let victim = kill(&mut cluster, version).await?;
        wait_until_published(&cluster, version).await?;
        println!("version {version}: {victim} killed while {state}");
        mirror.check(&cluster).await?;
    }
    let scans = reader.stop().await?;
    println!("{scans} scans, each of one version");
    if scans == 0 {
        return Err(HarnessError::violated("the reader has read nothing"));
    }
    cluster.finish().await
}

/// Kills the meta leader or a data node, and starts it again.
async fn kill(cluster: &mut Cluster, round: u64) -> Result<String> {
    if round.is_multiple_of(2) {
        let (leader, _) = cluster.meta_leader().await?;
        cluster.meta[leader].kill().await?;
        cluster.meta[leader].start().await?;
        return Ok("the meta leader".to_owned());
    }
    let owner = cluster.owner(TABLE).await?;
    cluster.data[owner].kill().await?;
    cluster.data[owner].start().await?;
    Ok(format!("data node {owner}"))
}

/// Waits until the table has a version. A refresh that has failed is tried again, by the cluster or by this test.
async fn wait_until_published(cluster: &Cluster, version: u64) -> Result<()> {
    let expected = rows_of(version).to_string();
    wait::until("the refresh is published", PUBLISHED_WITHIN, || async {
        let found = status(cluster).await.map_err(|error| error.to_string())?;
        if found["state"] != "idle" {
            return Err(found.to_string());
        }
        if found["last"]["outcome"] != "published" {
            let _ = cluster.run(&["refresh", "start", TABLE, "--no-wait"]).await;
            return Err(found.to_string());
        }
        let rows = found["last"]["source_rows"].to_string();
        if rows == expected { Ok(()) } else { Err(found.to_string()) }
    })
    .await
}
