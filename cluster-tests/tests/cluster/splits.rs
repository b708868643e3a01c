//! Splits and merges of routes under load: no acknowledged row is lost, and no scan misses one.

mod administrator;
mod clients;
mod faults;
mod fleet;
mod late_repeats;

use std::time::Duration;

use serde_json::Value;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE, Store};
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{HarnessError, Result};

use crate::reader::Reader;
use crate::support::{conclude, keep_routes, setting, wait_for_level};

/// Returns the row key of a row of the test table.
fn row_key(writer: u64, serial: u64) -> Vec<u8> {
    const ZERO: u64 = 1 << 63;
    [(ZERO + writer).to_be_bytes(), (ZERO + serial).to_be_bytes()].concat()
}

/// Returns the routes of a table, in key order.
pub(crate) async fn routes(cluster: &Cluster, table: &str) -> Result<Vec<Value>> {
    let list = ["route", "list", "--table", table, "--output", "json"];
    let routes = cluster.run(&list).await?.ok()?.json()?;
    Ok(routes.as_array().cloned().unwrap_or_default())
}

/// Splits the route of a row before that row.
pub(crate) async fn split_before(cluster: &Cluster, writer: u64, serial: u64) -> Result<()> {
    let key = row_key(writer, serial);
    let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let routes = routes(cluster, LOG_TABLE).await?;
    let contains = |route: &&Value| {
        route["start"].as_str().is_some_and(|start| start < key.as_str())
            && route["end"].as_str().is_none_or(|end| key.as_str() < end)
    };
    let found = routes.iter().find(contains).map(|route| route["route_id"].to_string());
    let found = found.ok_or_else(|| HarnessError::violated(format!("{key} in {routes:?}")))?;
    cluster.run(&["route", "split", &found, "--at", &key]).await?.ok().map(drop)
}

/// Formats a distribution of times.
pub(crate) fn distribution(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |share: usize| times.get((times.len() * share / 100).min(times.len() - 1));
    let [half, most, all] = [50, 90, 100].map(|share| at(share).copied().unwrap_or_default());
    format!("median {half:.1?}, 90 % {most:.1?}, longest {all:.1?}")
}

/// Merges the first two routes until one is left.
async fn merge_all(cluster: &Cluster, load: &Workload) -> Result<()> {
    let mut during = Vec::new();
    loop {
        let [first, second, ..] = &routes(cluster, LOG_TABLE).await?[..] else { break };
        let ids = [first, second].map(|route| route["route_id"].to_string());
        load.mark();
        cluster.run(&["route", "merge", &ids[1], &ids[0]]).await?.ok()?;
        load.progress(40).await?;
        during.push(load.slowest_write());
    }
    println!("slowest write during a merge: {}", distribution(during));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_are_split_and_merged_under_load() -> Result<()> {
    let splits: u64 = setting("TIDEWATER_SPLITS", 4);
    let cluster = ClusterPlan::default().store(Store::S3).start().await?;
    wait_for_level(&cluster).await?;
    keep_routes(&cluster).await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    let reader = Reader::start(&cluster).await?;
    let (mut before, mut during) = (Vec::new(), Vec::new());
    for split in 0..splits {
        load.mark();
        load.progress(40).await?;
        before.push(load.slowest_write());
        load.mark();
        // The rows of a writer are split at its next ones.
        split_before(&cluster, 1 + split % 4, 1 + split / 4 * 50).await?;
        load.progress(40).await?;
        during.push(load.slowest_write());
    }
    println!("slowest write of 40 or more: {}", distribution(before));
    println!("slowest write during a split: {}", distribution(during));
    let after = routes(&cluster, LOG_TABLE).await?;
    if u64::try_from(after.len()).ok() != Some(splits + 1) {
        return Err(HarnessError::violated(format!("{splits} splits: {after:?}")));
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
    merge_all(&cluster, &load).await?;
    let scans = reader.stop().await?;
    println!("{scans} scans");
    cluster.flush(LOG_TABLE).await?.ok()?;
    let verdict = conclude(cluster, load).await?;
    if verdict.failed > 0 || verdict.unknown > 0 {
        return Err(HarnessError::violated(format!("a write was not acknowledged: {verdict}")));
    }
    Ok(())
}
