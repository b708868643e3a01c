//! Garbage collection, by request and by itself, beside writes, kills and drops.

use std::collections::BTreeSet;

use tidewater_cluster_tests::cluster::{Cluster, LOG_TABLE, Plan};
use tidewater_cluster_tests::workload::{Load, Workload};
use tidewater_cluster_tests::{HarnessError, Result, wait};

use crate::support::{SETTLED_WITHIN, conclude, live_files};

/// Data files in the store, relative to its root.
fn data_files(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let root = cluster.objects();
    let mut found = BTreeSet::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).map_err(HarnessError::io("list the objects"))?;
        for entry in entries {
            let path = entry.map_err(HarnessError::io("list the objects"))?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "parquet") {
                let relative = path.strip_prefix(&root).unwrap_or(&path);
                found.insert(relative.display().to_string());
            }
        }
    }
    Ok(found)
}

/// Nothing of these tables, and of no others, is in the store but what reads see.
pub(crate) async fn only_live_files(cluster: &Cluster, tables: &[&str]) -> Result<()> {
    wait::until("only live files are left", SETTLED_WITHIN, || async {
        let mut live = BTreeSet::new();
        for table in tables {
            live.extend(live_files(cluster, table).await.map_err(|error| error.to_string())?);
        }
        let there = data_files(cluster).map_err(|error| error.to_string())?;
        if there == live { Ok(()) } else { Err(format!("{there:?} there, {live:?} live")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn is_collected_by_request_and_a_dry_run_says_what() -> Result<()> {
    let cluster = Plan::default().env("TIDEWATER_GC_GRACE", "1s").start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, Load::default()).await?;
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
    wait::until("a dry run names what was replaced", SETTLED_WITHIN, || async {
        let said = cluster.run(&dry).await.and_then(|said| said.ok()?.json());
        let said = said.map_err(|error| error.to_string())?;
        let objects = said["objects"].as_array().ok_or_else(|| said.to_string())?;
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
    let said = cluster.run(&["gc", "--output", "json"]).await?.ok()?.json()?;
    let deleted = said["deleted"].as_u64().unwrap_or(0);
    if deleted < replaced.len() as u64 || !replaced.is_disjoint(&data_files(&cluster)?) {
        return Err(HarnessError::violated(format!("{replaced:?} are still there: {said}")));
    }
    cluster.run(&["gc", "--table", "nothing"]).await?.status(3)?.complains(&["nothing"])?;
    conclude(cluster, load).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn is_collected_by_itself_while_owners_and_collectors_are_killed() -> Result<()> {
    let plan = Plan::default().env("TIDEWATER_GC_GRACE", "1s").env("TIDEWATER_GC_EVERY", "1s");
    let mut cluster = plan.start().await?;
    cluster.create_log_table().await?;
    let small = ["table", "create", "gone", "--columns", "k int64", "--primary-key", "k"];
    cluster.run(&small).await?.ok()?;
    let file = cluster.folder().join("gone.csv");
    std::fs::write(&file, "k\n1\n2\n").map_err(HarnessError::io("a csv file"))?;
    cluster.run(&["load", "gone", &file.display().to_string()]).await?.ok()?;
    cluster.flush("gone").await?.ok()?;
    cluster.run(&["table", "drop", "gone"]).await?.ok()?;

    let load = Workload::start(&cluster, Load::default()).await?;
    let region = cluster.region(LOG_TABLE).await?.region_id.to_string();
    for round in 0..cluster.data.len() {
        load.progress(20).await?;
        cluster.flush(LOG_TABLE).await?.ok()?;
        load.progress(20).await?;
        cluster.flush(LOG_TABLE).await?.ok()?;
        cluster.run(&["region", "compact", &region]).await?.ok()?;
        // The first node that is up collects; each of them is killed once.
        cluster.data[round].kill().await?;
        load.progress(20).await?;
        cluster.data[round].start().await?;
        cluster.healthy().await?;
    }
    only_live_files(&cluster, &[LOG_TABLE]).await?;
    conclude(cluster, load).await?;
    Ok(())
}
