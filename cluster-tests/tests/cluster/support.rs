//! Beginning and final verification of scenarios, and checks that several of them share.

use std::str::FromStr;
use std::time::Duration;

use serde_json::Value;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE};
use tidewater_cluster_tests::oracle::Verdict;
use tidewater_cluster_tests::workload::Workload;
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tidewater_common::clock::{Clock, SystemClock};
use tidewater_common::feature_level::FeatureLevel;

/// Returns a number from the environment, or that of a short test.
pub(crate) fn setting<T: FromStr>(name: &str, short: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(short)
}

/// Limit for replicas to catch up with the leader, with a margin for a busy machine.
pub(crate) const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// Data groups for each data node: the default of `meta --groups-per-node`.
const GROUPS_PER_NODE: usize = 2;

/// Starts a cluster of `data` data nodes, of which only the first `started` run, and waits until it has the highest
/// feature level and all data groups of the nodes that run.
pub(crate) async fn start_with_groups(data: u32, started: usize) -> Result<Cluster> {
    let mut cluster = ClusterPlan::default().nodes(3, data, 0).prepare().await?;
    cluster.start_with(started).await?;
    cluster.wait_until_healthy().await?;
    wait_for_level(&cluster).await?;
    wait_for_groups(&cluster, GROUPS_PER_NODE * started, SETTLED_WITHIN).await?;
    Ok(cluster)
}

/// Returns the data groups as `group list` shows them.
pub(crate) async fn data_groups(cluster: &Cluster) -> Result<Vec<Value>> {
    let groups = cluster.run(&["group", "list", "--output", "json"]).await?.ok()?.json()?;
    let data = groups.as_array().into_iter().flatten().filter(|group| group["group_id"] != 0);
    Ok(data.cloned().collect())
}

/// Waits until there are exactly `count` data groups, all of them with three voters and none retiring.
pub(crate) async fn wait_for_groups(
    cluster: &Cluster,
    count: usize,
    within: Duration,
) -> Result<()> {
    wait::until(&format!("{count} complete groups"), within, || async {
        let groups = data_groups(cluster).await.map_err(|error| error.to_string())?;
        let is_complete = |group: &Value| {
            group["state"] == "active" && group["voters"].as_array().map_or(0, Vec::len) == 3
        };
        let are_complete = groups.len() == count && groups.iter().all(is_complete);
        if are_complete { Ok(()) } else { Err(format!("{groups:?}")) }
    })
    .await
}

/// Waits until the cluster has the highest feature level of this release.
pub(crate) async fn wait_for_level(cluster: &Cluster) -> Result<()> {
    wait::until("the highest feature level", SETTLED_WITHIN, || async {
        let status = cluster.run(&["cluster", "status", "--output", "json"]).await;
        let status = status.and_then(|output| output.json()).map_err(|error| error.to_string())?;
        let level = status["feature_level"].clone();
        if level == FeatureLevel::HIGHEST.get() { Ok(()) } else { Err(level.to_string()) }
    })
    .await
}

/// Switches the balance of routes off: the test places them itself.
pub(crate) async fn keep_routes(cluster: &Cluster) -> Result<()> {
    cluster.run(&["balance", "set", "--spread", "off"]).await?.ok()?;
    Ok(())
}

/// Stops the writers, verifies their rows, compares the replicas, and stops the nodes.
pub(crate) async fn conclude(cluster: Cluster, load: Workload) -> Result<Verdict> {
    let attempts = load.stop().await?;
    let verdict = cluster.verify(&attempts).await?;
    println!("{verdict}");
    wait_until_replicas_agree(&cluster, LOG_TABLE).await?;
    cluster.finish().await?;
    Ok(verdict)
}

/// Waits until all running replicas of the table's regions have the same applied index and state (R2).
pub(crate) async fn wait_until_replicas_agree(cluster: &Cluster, table: &str) -> Result<()> {
    wait::until("all replicas have equal state", SETTLED_WITHIN, || async {
        let mut states = Vec::new();
        for (index, infos) in cluster.replicas(table, None, true).await {
            for info in infos? {
                states.push((info.region_id, info.applied_index, info.digest, index));
            }
        }
        states.sort();
        let differs = states
            .windows(2)
            .any(|two| two[0].0 == two[1].0 && (two[0].1, &two[0].2) != (two[1].1, &two[1].2));
        let incomplete = states.is_empty() || states.iter().any(|state| state.2.is_empty());
        if differs || incomplete { Err(format!("{states:?}")) } else { Ok(()) }
    })
    .await
}

/// Waits until `cluster status` lists (`listed`) or no longer lists a problem that contains `words`.
pub(crate) async fn wait_for_problem(cluster: &Cluster, words: &str, listed: bool) -> Result<()> {
    let verb = if listed { "lists" } else { "no longer lists" };
    let what = format!("cluster status {verb} {words:?}");
    wait::until(&what, SETTLED_WITHIN, || async {
        let output = cluster.run(&["cluster", "status", "--output", "json"]).await;
        let status = output.and_then(|output| output.json()).map_err(|error| error.to_string())?;
        let problems = status["problems"].as_array().ok_or_else(|| status.to_string())?;
        let mut texts = problems.iter().filter_map(|problem| problem.as_str());
        let found = texts.any(|text| text.contains(words));
        if found == listed { Ok(()) } else { Err(status["problems"].to_string()) }
    })
    .await
}

/// Waits until `cluster status` lists a problem of this kind that `is_expected` accepts. Verifies that the
/// problem has a time in the past and a remedy, and that the exit status is that of a problem.
pub(crate) async fn wait_for_kind(
    cluster: &Cluster,
    kind: &str,
    is_expected: impl Fn(&Value) -> bool,
) -> Result<Value> {
    let what = format!("cluster status lists a problem of kind {kind}");
    let problem = wait::until(&what, SETTLED_WITHIN, || async {
        let output = cluster.run(&["cluster", "status", "--output", "json"]).await;
        let output = output.map_err(|error| error.to_string())?;
        let status = output.json().map_err(|error| error.to_string())?;
        let problems = status["problem_details"].as_array().ok_or_else(|| status.to_string())?;
        let is_wanted = |problem: &&Value| problem["kind"] == kind && is_expected(problem);
        match problems.iter().find(is_wanted) {
            Some(problem) if output.status == Some(5) => Ok(problem.clone()),
            Some(_) => Err(format!("exit status {:?} with a problem", output.status)),
            None => Err(status["problem_details"].to_string()),
        }
    })
    .await?;
    // Replicated time may differ a little from this machine's clock.
    let now_ms = SystemClock.now_ms() + 2_000;
    let since_ms = problem["since_ms"].as_u64();
    let has_time = since_ms.is_some_and(|since| since <= now_ms && since + 3_600_000 > now_ms);
    let has_remedy = problem["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty());
    if has_time && has_remedy {
        return Ok(problem);
    }
    Err(HarnessError::violated(format!("at {now_ms}, without time or remedy: {problem}")))
}

/// Verifies that the peak memory of every data node, including the pages of its binary, is within the
/// limit.
pub(crate) fn expect_within_memory(cluster: &Cluster, limit_mib: u64) -> Result<()> {
    let mut above = Vec::new();
    for node in cluster.data.iter().filter(|node| node.is_running()) {
        let memory = node.memory()?;
        let line = format!(
            "{}: peak {} MiB, {} MiB now; --memory-limit {limit_mib} MiB",
            node.spec.name,
            memory.peak >> 20,
            memory.now >> 20
        );
        println!("  {line}");
        if memory.peak > limit_mib << 20 {
            above.push(line);
        }
    }
    if above.is_empty() { Ok(()) } else { Err(HarnessError::violated(above.join("; "))) }
}

/// Returns the number of rows in the files of the table's first region.
pub(crate) async fn rows_in_files(cluster: &Cluster, table: &str) -> Result<u64> {
    let region = cluster.region(table).await?.region_id.to_string();
    let output = cluster.run(&["region", "files", &region, "--output", "json"]).await?.ok()?;
    let files = output.json()?;
    let files = files
        .as_array()
        .ok_or_else(|| HarnessError::violated(format!("region files: {}", output.stdout)))?;
    Ok(files.iter().filter_map(|file| file["rows"].as_u64()).sum())
}

/// Returns the paths of the live files of a table, relative to the root of the object store.
pub(crate) async fn live_files(cluster: &Cluster, table: &str) -> Result<Vec<String>> {
    let regions = cluster.run(&["region", "list", "--table", table, "--output", "json"]).await?;
    let mut paths = Vec::new();
    for region in regions.ok()?.json()?.as_array().into_iter().flatten() {
        let id = region["region_id"].to_string();
        let files = cluster.run(&["region", "files", &id, "--output", "json"]).await?.ok()?;
        for file in files.json()?.as_array().into_iter().flatten() {
            paths.extend(file["path"].as_str().map(str::to_owned));
        }
    }
    Ok(paths)
}

/// Flushes a table and verifies that its files contain all rows once.
pub(crate) async fn flush_and_expect_each_row_once(cluster: &Cluster, table: &str) -> Result<()> {
    cluster.flush(table).await?.ok()?;
    let rows = cluster.count(table).await?;
    let in_files = rows_in_files(cluster, table).await?;
    if rows == in_files {
        Ok(())
    } else {
        Err(HarnessError::violated(format!(
            "the table has {rows} rows, and {in_files} are in files after a flush"
        )))
    }
}

/// Verifies that no delta of an owner follows the fence of a later owner (A3), unless replay voids it.
pub(crate) async fn expect_fenced_manifest(cluster: &Cluster, table: &str) -> Result<()> {
    let region = cluster.region(table).await?.region_id.to_string();
    let output = cluster.run(&["region", "manifest", &region, "--output", "json"]).await?.ok()?;
    let manifest = output.json()?;
    let deltas = manifest["deltas"]
        .as_array()
        .ok_or_else(|| HarnessError::violated(format!("region manifest: {}", output.stdout)))?;
    let mut latest = (0, 0);
    for delta in deltas.iter().filter(|delta| delta["void"].is_null()) {
        let Some(epoch) = delta["author"]["owner"].as_str().and_then(owner_epoch) else { continue };
        if epoch < latest {
            return Err(HarnessError::violated(format!(
                "version {} of owner {epoch:?} follows the fence of {latest:?}",
                delta["version"]
            )));
        }
        latest = epoch;
    }
    if latest == (0, 0) {
        return Err(HarnessError::violated(format!("no owner in the manifest: {}", output.stdout)));
    }
    Ok(())
}

/// Parses `MOVE.TERM`.
fn owner_epoch(text: &str) -> Option<(u64, u64)> {
    let (moves, term) = text.split_once('.')?;
    Some((moves.parse().ok()?, term.parse().ok()?))
}
