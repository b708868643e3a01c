//! Garbage collection, requested and periodic, during writes, kills and drops.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE};
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{HarnessError, Result, wait};

use crate::support::{SETTLED_WITHIN, conclude, live_files, wait_for_kind};

/// Returns the objects in the store with this extension, sorted by path.
fn objects(cluster: &Cluster, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut directories = vec![cluster.objects()];
    while let Some(directory) = directories.pop() {
        let entries =
            std::fs::read_dir(&directory).map_err(HarnessError::io("list the objects"))?;
        for entry in entries {
            let path = entry.map_err(HarnessError::io("list the objects"))?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|kind| kind == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Returns the data files in the store, relative to its root.
pub(crate) fn data_files(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let root = cluster.objects();
    let relative = |path: PathBuf| path.strip_prefix(&root).unwrap_or(&path).display().to_string();
    Ok(objects(cluster, "parquet")?.into_iter().map(relative).collect())
}

/// Waits until the store contains exactly the live files of these tables.
pub(crate) async fn expect_only_live_files(cluster: &Cluster, tables: &[&str]) -> Result<()> {
    wait::until("only live files are left", SETTLED_WITHIN, || async {
        let mut live = BTreeSet::new();
        for table in tables {
            live.extend(live_files(cluster, table).await.map_err(|error| error.to_string())?);
        }
        let stored = data_files(cluster).map_err(|error| error.to_string())?;
        if stored == live { Ok(()) } else { Err(format!("{stored:?} stored, {live:?} live")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gc_command_deletes_files_listed_by_dry_run() -> Result<()> {
    let cluster = ClusterPlan::default().env("TIDEWATER_GC_GRACE", "1s").start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    for _ in 0..3 {
        load.progress(20).await?;
        cluster.flush(LOG_TABLE).await?.ok()?;
    }
    let region = cluster.region(LOG_TABLE).await?.region_id.to_string();
    cluster.run(&["region", "compact", &region]).await?.ok()?;
    let replaced: BTreeSet<String> = {
        let live: BTreeSet<String> = live_files(&cluster, LOG_TABLE).await?.into_iter().collect();
        data_files(&cluster)?.difference(&live).cloned().collect()
    };
    if replaced.is_empty() {
        return Err(HarnessError::violated("the compaction replaced nothing"));
    }
    let dry = ["gc", "--dry-run", "--output", "json"];
    wait::until("a dry run lists the replaced files", SETTLED_WITHIN, || async {
        let output = cluster.run(&dry).await.and_then(|output| output.ok()?.json());
        let output = output.map_err(|error| error.to_string())?;
        let objects = output["objects"].as_array().ok_or_else(|| output.to_string())?;
        let named: BTreeSet<String> = objects
            .iter()
            .filter(|object| object["why"] == "compaction")
            .filter_map(|object| object["path"].as_str())
            .filter(|path| path.ends_with(".parquet"))
            .map(str::to_owned)
            .collect();
        if replaced.is_subset(&named) { Ok(()) } else { Err(format!("{named:?}")) }
    })
    .await?;
    if !replaced.is_subset(&data_files(&cluster)?) {
        return Err(HarnessError::violated("a dry run has deleted files"));
    }
    let output = cluster.run(&["gc", "--output", "json"]).await?.ok()?.json()?;
    let deleted = output["deleted"].as_u64().unwrap_or(0);
    if deleted < replaced.len() as u64 || !replaced.is_disjoint(&data_files(&cluster)?) {
        return Err(HarnessError::violated(format!("{replaced:?} still exist: {output}")));
    }
    cluster.run(&["gc", "--table", "nothing"]).await?.status(3)?.expect_stderr(&["nothing"])?;
    conclude(cluster, load).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_collected_while_owners_and_collectors_are_killed() -> Result<()> {
    let plan =
        ClusterPlan::default().env("TIDEWATER_GC_GRACE", "1s").env("TIDEWATER_GC_EVERY", "1s");
    let mut cluster = plan.start().await?;
    cluster.create_log_table().await?;
    let small = ["table", "create", "dropped", "--columns", "k int64", "--primary-key", "k"];
    cluster.run(&small).await?.ok()?;
    let file = cluster.directory().join("dropped.csv");
    std::fs::write(&file, "k\n1\n2\n").map_err(HarnessError::io("a csv file"))?;
    cluster.run(&["load", "dropped", &file.display().to_string()]).await?.ok()?;
    cluster.flush("dropped").await?.ok()?;
    cluster.run(&["table", "drop", "dropped"]).await?.ok()?;

    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    let region = cluster.region(LOG_TABLE).await?.region_id.to_string();
    for round in 0..cluster.data.len() {
        load.progress(20).await?;
        cluster.flush(LOG_TABLE).await?.ok()?;
        load.progress(20).await?;
        cluster.flush(LOG_TABLE).await?.ok()?;
        cluster.run(&["region", "compact", &region]).await?.ok()?;
        // The live data node with the lowest id collects garbage. Each node is killed once.
        cluster.data[round].kill().await?;
        load.progress(20).await?;
        cluster.data[round].start().await?;
        cluster.wait_until_healthy().await?;
    }
    expect_only_live_files(&cluster, &[LOG_TABLE]).await?;
    conclude(cluster, load).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn region_that_lost_deltas_keeps_its_files() -> Result<()> {
    let cluster = ClusterPlan::default().env("TIDEWATER_GC_GRACE", "1s").start().await?;
    let create = ["table", "create", "t", "--columns", "k int64", "--primary-key", "k"];
    cluster.run(&create).await?.ok()?;
    for key in 1..=3 {
        let file = cluster.directory().join("rows.csv");
        std::fs::write(&file, format!("k\n{key}\n")).map_err(HarnessError::io("a csv file"))?;
        cluster.run(&["load", "t", &file.display().to_string()]).await?.ok()?;
        cluster.flush("t").await?.ok()?;
    }
    // Like a restore of an older copy of the store while its owner lives.
    let all = objects(&cluster, "delta")?;
    let lost = &all[all.len().saturating_sub(2)..];
    let aside = cluster.directory().join("aside");
    std::fs::create_dir_all(&aside).map_err(HarnessError::io("create a directory"))?;
    let saved = |path: &PathBuf| aside.join(path.file_name().unwrap_or_default());
    for path in lost {
        std::fs::rename(path, saved(path)).map_err(HarnessError::io("move a delta"))?;
    }
    let files = data_files(&cluster)?;
    // Older than the grace period by then.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let report = cluster.run(&["gc", "--output", "json"]).await?.ok()?.json()?;
    let unreadable = report["unreadable"].to_string();
    if data_files(&cluster)? != files || !unreadable.contains("has recorded version") {
        return Err(HarnessError::violated(format!("garbage collection did not stop: {report}")));
    }
    let region = cluster.region("t").await?.region_id;
    wait_for_kind(&cluster, "garbage_spared", |problem| problem["region_id"] == region).await?;
    let file = cluster.directory().join("rows.csv");
    std::fs::write(&file, "k\n4\n").map_err(HarnessError::io("a csv file"))?;
    cluster.run(&["load", "t", &file.display().to_string()]).await?.ok()?;
    let before = objects(&cluster, "delta")?;
    let refused = cluster.flush("t").await?;
    if refused.status == Some(0) || objects(&cluster, "delta")? != before {
        return Err(HarnessError::violated(format!(
            "the owner committed above a gap: {refused:?}"
        )));
    }
    for path in lost {
        std::fs::rename(saved(path), path).map_err(HarnessError::io("move a delta back"))?;
    }
    cluster.flush("t").await?.ok()?;
    cluster.run(&["gc"]).await?.ok()?;
    cluster.wait_until_healthy().await?;
    let count = cluster.run(&["scan", "t", "--count", "--output", "json"]).await?.ok()?.json()?;
    if count.to_string().contains('4') {
        Ok(())
    } else {
        Err(HarnessError::violated(format!("four rows, not {count}")))
    }
}
