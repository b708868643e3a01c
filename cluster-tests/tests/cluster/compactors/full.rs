//! The object store's disk fills up while compactors merge.

use tidewater_cluster_tests::cluster::{Cluster, LOG_TABLE, OnSmallDisk, Plan};
use tidewater_cluster_tests::disk::SmallDisk;
use tidewater_cluster_tests::workload::{Load, Workload};
use tidewater_cluster_tests::{Result, wait};

use super::noise::{Loaded, Noise};
use super::{done_by, expect};
use crate::support::{SETTLED_WITHIN, conclude};

/// Merges on the compactor as soon as the data node knows it, and has room for it.
async fn merges(cluster: &Cluster, table: &Loaded) -> Result<()> {
    let node = cluster.node_id(&cluster.compactors[0].spec).await?;
    let compact = ["region", "compact", &table.region, "--remote", "--output", "json"];
    wait::until("a compactor merges", SETTLED_WITHIN, || async {
        let said = cluster.run(&compact).await;
        let report = said.and_then(|said| done_by(said, node, table.files));
        report.map(drop).map_err(|error| error.to_string())
    })
    .await
}

/// Whether the garbage collector finds objects that nobody can explain; what it deletes.
async fn collected(cluster: &Cluster) -> Result<u64> {
    let said = cluster.run(&["gc", "--output", "json"]).await?.ok()?.json()?;
    Ok(said["deleted"].as_u64().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_that_fills_the_disk_ends_and_goes_well_when_there_is_room() -> Result<()> {
    let plan = Plan::default().nodes(1, 1, 1).small_disk(OnSmallDisk::Store);
    let plan = plan.env("TIDEWATER_COMPACTION", "off").env("TIDEWATER_GC_GRACE", "1s");
    let mut cluster = plan.prepare().await?;
    if !cluster.disk.as_ref().is_some_and(SmallDisk::is_small) {
        println!("not tried: no disk can be filled here");
        return cluster.finish().await;
    }
    // It is the disk itself that has to say so.
    let none = ("TIDEWATER_DISK_RESERVE".to_owned(), "0".to_owned());
    cluster.compactors[0].spec.env.insert(0, none);
    cluster.start_all().await?;
    cluster.healthy().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, Load::default()).await?;
    load.progress(1).await?;
    cluster.flush(LOG_TABLE).await?.ok()?;
    let table = Noise { runs: 3, rows: 200_000 }.load(&cluster).await?;
    let pids = [cluster.data[0].pid(), cluster.compactors[0].pid()];
    let disk = cluster.disk.as_ref().expect("planned");

    let compact = ["region", "compact", &table.region];
    let (said, filled) = tokio::join!(cluster.run(&compact), async {
        let running = wait::until("a job runs", SETTLED_WITHIN, || async {
            let said = cluster.run(&["compaction", "list", "--output", "json"]).await;
            let shown =
                said.and_then(|said| said.ok()?.json()).map_err(|error| error.to_string())?;
            let written = shown[0]["rows_written"].as_u64().unwrap_or_default();
            if written > 0 { Ok(()) } else { Err(shown.to_string()) }
        });
        running.await?;
        disk.fill()
    });
    filled?;
    let said = said?;
    expect("the job fails", said.status == Some(5), &said)?;
    said.complains(&["disk"])?;
    // Flushes fail as well, and rows are taken on. What the job had written is gone.
    disk.fill()?;
    let flush = ["region", "flush", "--table", LOG_TABLE, "--timeout", "3s"];
    let flushed = cluster.run(&flush).await?;
    expect("a flush fails", flushed.status == Some(5), &flushed)?;
    flushed.complains(&["disk"])?;
    load.progress(10).await?;
    table.all_is_there().await?;

    disk.empty()?;
    merges(&cluster, &table).await?;
    cluster.flush(LOG_TABLE).await?.ok()?;
    table.all_is_there().await?;
    let now = [cluster.data[0].pid(), cluster.compactors[0].pid()];
    expect("nobody has ended", now == pids, (now, pids))?;
    wait::until("what failed attempts left is collected", SETTLED_WITHIN, || async {
        match collected(&cluster).await.map_err(|error| error.to_string())? {
            0 => Err("nothing was deleted".to_owned()),
            _ => Ok(()),
        }
    })
    .await?;
    table.all_is_there().await?;
    conclude(cluster, load).await.map(drop)
}
