//! Moves of routes between groups under load: no acknowledged row is lost, no scan misses one, and no file is copied.

use std::collections::BTreeMap;

use serde_json::Value;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE, Store};
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{HarnessError, Result};

use crate::reader::Reader;
use crate::splits::{distribution, routes};
use crate::support::{conclude, keep_routes, setting, wait_for_level};

/// Returns the ids of the data groups.
async fn groups(cluster: &Cluster) -> Result<Vec<u64>> {
    let groups = cluster.run(&["group", "list", "--output", "json"]).await?.ok()?.json()?;
    let ids =
        groups.as_array().into_iter().flatten().filter_map(|group| group["group_id"].as_u64());
    Ok(ids.filter(|id| *id != 0).collect())
}

fn number(route: &Value, field: &str) -> u64 {
    route[field].as_u64().unwrap_or_default()
}

/// Bytes that moves write to the object store, and those that the memtables had before.
#[derive(Debug, Default)]
struct Uploaded {
    memtables: u64,
    files: u64,
}

/// Returns the sizes of the live files of a region that flushes have written, by path, and of those that compactions
/// have.
async fn files(cluster: &Cluster, region: &str) -> Result<[BTreeMap<String, u64>; 2]> {
    let files =
        cluster.run(&["region", "files", region, "--output", "json"]).await?.ok()?.json()?;
    let mut sizes = [BTreeMap::new(), BTreeMap::new()];
    for file in files.as_array().into_iter().flatten() {
        let path = file["path"].as_str().unwrap_or_default().to_owned();
        sizes[usize::from(file["level"] != 0)].insert(path, number(file, "bytes"));
    }
    Ok(sizes)
}

/// Returns the bytes of a region's rows in memory, at its owner.
async fn memtable(cluster: &Cluster, region: u64) -> u64 {
    let replicas = cluster.replicas(LOG_TABLE, None, false).await;
    let infos = replicas.into_iter().filter_map(|(_, infos)| infos.ok()).flatten();
    infos
        .filter(|info| info.region_id == region && info.leader)
        .map(|info| info.memtable_bytes)
        .sum()
}

impl Uploaded {
    /// Adds the files that a move has written. Fails if a file from before is neither live nor compacted.
    async fn add(
        &mut self,
        cluster: &Cluster,
        region: &str,
        before: &[BTreeMap<String, u64>; 2],
    ) -> Result<()> {
        let after = files(cluster, region).await?;
        let is_new = |path: &&String| !before[0].contains_key(*path);
        self.files +=
            after[0].iter().filter(|(path, _)| is_new(path)).map(|(_, bytes)| bytes).sum::<u64>();
        let kept =
            before.iter().flatten().all(|(path, _)| after.iter().any(|of| of.contains_key(path)));
        if kept || after[1] != before[1] {
            return Ok(());
        }
        Err(HarnessError::violated(format!("files {after:?} after a move, {before:?} before")))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_are_moved_under_load() -> Result<()> {
    let moves: usize = setting("TIDEWATER_MOVES", 6);
    let cluster = ClusterPlan::default().store(Store::S3).start().await?;
    wait_for_level(&cluster).await?;
    keep_routes(&cluster).await?;
    let groups = groups(&cluster).await?;
    cluster.create_log_table_with_regions(2).await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    let reader = Reader::start(&cluster).await?;
    load.progress(40).await?;
    let (mut during, mut uploaded) = (Vec::new(), Uploaded::default());
    for turn in 0..moves {
        let routes = routes(&cluster, LOG_TABLE).await?;
        let route = &routes[turn % routes.len()];
        let (id, from) = (number(route, "route_id").to_string(), number(route, "group_id"));
        let others: Vec<u64> = groups.iter().copied().filter(|group| *group != from).collect();
        let to = others[turn / 2 % others.len()].to_string();
        let before = files(&cluster, &id).await?;
        uploaded.memtables += memtable(&cluster, number(route, "route_id")).await;
        load.mark();
        cluster.run(&["route", "move", &id, "--to", &to]).await?.ok()?;
        load.progress(40).await?;
        during.push(load.slowest_write());
        uploaded.add(&cluster, &id, &before).await?;
    }
    println!(
        "{} bytes of files written, {} bytes in memory before",
        uploaded.files, uploaded.memtables
    );
    println!("slowest write during a move: {}", distribution(during));
    refuses_invalid_moves(&cluster).await?;
    let scans = reader.stop().await?;
    println!("{scans} scans");
    cluster.flush(LOG_TABLE).await?.ok()?;
    let verdict = conclude(cluster, load).await?;
    if verdict.failed > 0 || verdict.unknown > 0 {
        return Err(HarnessError::violated(format!("a write was not acknowledged: {verdict}")));
    }
    Ok(())
}

async fn refuses_invalid_moves(cluster: &Cluster) -> Result<()> {
    let routes = routes(cluster, LOG_TABLE).await?;
    let route = number(&routes[0], "route_id").to_string();
    let own = number(&routes[0], "group_id").to_string();
    let same = cluster.run(&["route", "move", &route, "--to", &own]).await?;
    same.status(2)?.expect_stderr(&["in this group already"])?;
    let unknown = cluster.run(&["route", "move", &route, "--to", "99"]).await?;
    unknown.status(3)?.expect_stderr(&["group 99 does not exist"])?;
    Ok(())
}
