//! How every scenario ends, and what several of them look at.

use std::time::Duration;

use tidewater_cluster_tests::cluster::{Cluster, LOG_TABLE};
use tidewater_cluster_tests::oracle::Verdict;
use tidewater_cluster_tests::workload::Workload;
use tidewater_cluster_tests::{HarnessError, Result, wait};

/// For replicas to apply what the leader has, and for what a busy machine does besides.
pub(crate) const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// Stops the writers, asks the oracle, compares the replicas, stops the nodes.
pub(crate) async fn conclude(cluster: Cluster, load: Workload) -> Result<Verdict> {
    let attempts = load.stop().await?;
    let verdict = cluster.verify(&attempts).await?;
    println!("{verdict}");
    replicas_agree(&cluster, LOG_TABLE).await?;
    cluster.finish().await?;
    Ok(verdict)
}

/// All running replicas of the table's regions have applied the same and hold the same (R2).
pub(crate) async fn replicas_agree(cluster: &Cluster, table: &str) -> Result<()> {
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
        let unread = states.is_empty() || states.iter().any(|state| state.2.is_empty());
        if differs || unread { Err(format!("{states:?}")) } else { Ok(()) }
    })
    .await
}

/// Waits until `cluster status` names a problem with these words, or none with them.
pub(crate) async fn status_says(cluster: &Cluster, words: &str, named: bool) -> Result<()> {
    let what =
        format!("cluster status {} {words:?}", if named { "says" } else { "no longer says" });
    wait::until(&what, SETTLED_WITHIN, || async {
        let said = cluster.run(&["cluster", "status", "--output", "json"]).await;
        let status = said.and_then(|said| said.json()).map_err(|error| error.to_string())?;
        let problems = status["problems"].as_array().ok_or_else(|| status.to_string())?;
        let found = problems.iter().filter_map(|one| one.as_str()).any(|one| one.contains(words));
        if found == named { Ok(()) } else { Err(status["problems"].to_string()) }
    })
    .await
}

/// No data node has ever held more than its limit, the pages of its binary included.
pub(crate) fn within_memory(cluster: &Cluster, limit_mib: u64) -> Result<()> {
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

/// Rows in the files of the table's first region.
pub(crate) async fn rows_in_files(cluster: &Cluster, table: &str) -> Result<u64> {
    let region = cluster.region(table).await?.region_id.to_string();
    let said = cluster.run(&["region", "files", &region, "--output", "json"]).await?.ok()?;
    let files = said.json()?;
    let files = files
        .as_array()
        .ok_or_else(|| HarnessError::violated(format!("region files: {}", said.stdout)))?;
    Ok(files.iter().filter_map(|file| file["rows"].as_u64()).sum())
}

/// Where the files lie that reads of a table see, relative to the object store.
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

/// Flushes until all rows are in files, each once.
pub(crate) async fn flushed_once(cluster: &Cluster, table: &str) -> Result<()> {
    cluster.flush(table).await?.ok()?;
    let (there, in_files) = (cluster.count(table).await?, rows_in_files(cluster, table).await?);
    if there == in_files {
        Ok(())
    } else {
        Err(HarnessError::violated(format!(
            "{there} rows are there, and after a flush {in_files} are in files"
        )))
    }
}

/// No delta of an owner stands behind the fence of a later one (A3), unless replay voids it.
pub(crate) async fn manifest_is_in_order(cluster: &Cluster, table: &str) -> Result<()> {
    let region = cluster.region(table).await?.region_id.to_string();
    let said = cluster.run(&["region", "manifest", &region, "--output", "json"]).await?.ok()?;
    let manifest = said.json()?;
    let deltas = manifest["deltas"]
        .as_array()
        .ok_or_else(|| HarnessError::violated(format!("region manifest: {}", said.stdout)))?;
    let mut latest = (0, 0);
    for delta in deltas.iter().filter(|delta| delta["void"].is_null()) {
        let Some(epoch) = delta["author"]["owner"].as_str().and_then(owner_epoch) else { continue };
        if epoch < latest {
            return Err(HarnessError::violated(format!(
                "version {} is by owner {epoch:?}, behind the fence of {latest:?}",
                delta["version"]
            )));
        }
        latest = epoch;
    }
    if latest == (0, 0) {
        return Err(HarnessError::violated(format!("no owner in the manifest: {}", said.stdout)));
    }
    Ok(())
}

/// `MOVE.TERM`
fn owner_epoch(text: &str) -> Option<(u64, u64)> {
    let (moves, term) = text.split_once('.')?;
    Some((moves.parse().ok()?, term.parse().ok()?))
}
