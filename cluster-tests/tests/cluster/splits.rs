//! Splits of routes under load: no acknowledged row is lost, and no scan misses one.

use serde_json::Value;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE, Store};
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{HarnessError, Result};

use crate::reader::Reader;
use crate::support::{conclude, wait_for_level};

/// Returns the routes of the table, in key order.
async fn routes(cluster: &Cluster) -> Result<Vec<Value>> {
    let list = ["route", "list", "--table", LOG_TABLE, "--output", "json"];
    let routes = cluster.run(&list).await?.ok()?.json()?;
    Ok(routes.as_array().cloned().unwrap_or_default())
}

/// Splits the route that contains the rows of a writer before them.
async fn split_before(cluster: &Cluster, writer: u64) -> Result<()> {
    let key = format!("{:016x}", (1_u64 << 63) + writer);
    let routes = routes(cluster).await?;
    let contains = |route: &&Value| {
        route["start"].as_str().is_some_and(|start| start < key.as_str())
            && route["end"].as_str().is_none_or(|end| key.as_str() < end)
    };
    let found = routes.iter().find(contains).map(|route| route["route_id"].to_string());
    let found = found.ok_or_else(|| HarnessError::violated(format!("{key} in {routes:?}")))?;
    let output = cluster.run(&["route", "split", &found, "--at", &key]).await?.ok()?;
    println!("{}", output.stdout.trim_end());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_are_split_under_load() -> Result<()> {
    let cluster = ClusterPlan::default().store(Store::S3).start().await?;
    wait_for_level(&cluster).await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    let reader = Reader::start(&cluster).await?;
    load.progress(40).await?;
    for writer in [2, 1, 3] {
        split_before(&cluster, writer).await?;
        load.progress(40).await?;
    }
    let after = routes(&cluster).await?;
    if after.len() != 4 {
        return Err(HarnessError::violated(format!("four routes: {after:?}")));
    }
    // At its first key, and at one that was split.
    let start = after[1]["start"].as_str().unwrap_or_default();
    for route in &after[..2] {
        let refused =
            cluster.run(&["route", "split", &route["route_id"].to_string(), "--at", start]).await?;
        if refused.status != Some(2) {
            return Err(HarnessError::violated(format!("split at {start}: {refused:?}")));
        }
    }
    let scans = reader.stop().await?;
    println!("{scans} scans");
    cluster.flush(LOG_TABLE).await?.ok()?;
    let verdict = conclude(cluster, load).await?;
    if verdict.failed > 0 || verdict.unknown > 0 {
        return Err(HarnessError::violated(format!("a write was not acknowledged: {verdict}")));
    }
    Ok(())
}
