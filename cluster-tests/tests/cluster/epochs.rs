//! Reads as of epochs: the same rows at any later time, whatever is written, flushed, compacted, moved or killed since.

mod held;
mod stalled;

use std::time::Duration;

use tidewater_client::{Client, ScanSpec};
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE, Store};
use tidewater_cluster_tests::workload::{LoadOptions, Workload, options};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tidewater_common::ids::Epoch;

use crate::splits::routes;
use crate::support::{SETTLED_WITHIN, conclude, keep_routes, wait_for_level};

/// Epochs whose rows are compared.
const EPOCHS: usize = 4;
/// Short, so that the oldest epoch can no longer be read at the end.
const HISTORY: &str = "60s";

fn failed(error: impl ToString) -> HarnessError {
    HarnessError::violated(error.to_string())
}

/// Waits for an epoch of the table that has ended after `after`.
async fn next_epoch(client: &Client, after: Epoch) -> Result<Epoch> {
    wait::until("a later epoch is complete", SETTLED_WITHIN, || async {
        let epochs = client.table_epochs(LOG_TABLE).await.map_err(|error| error.to_string())?;
        epochs.newest().filter(|newest| *newest > after).ok_or_else(|| format!("{epochs:?}"))
    })
    .await
}

/// Returns all rows of an epoch, as text. Scans that a killed node ends are repeated.
async fn rows_as_of(client: &Client, epoch: Epoch) -> Result<Vec<String>> {
    table_as_of(client, LOG_TABLE, epoch).await
}

/// Returns all rows of a table as of an epoch, as [`rows_as_of`].
async fn table_as_of(client: &Client, table: &str, epoch: Epoch) -> Result<Vec<String>> {
    wait::until("a scan is complete", SETTLED_WITHIN, || async {
        let spec = ScanSpec { as_of: Some(epoch), ..ScanSpec::all(table) };
        let stream = client.scan(spec).await.map_err(|error| error.to_string())?;
        let batches = stream.collect().await.map_err(|error| error.to_string())?;
        let rows =
            batches.iter().flat_map(|batch| (0..batch.num_rows()).map(|row| batch.slice(row, 1)));
        Ok(rows.map(|row| format!("{:?}", row.columns())).collect())
    })
    .await
}

/// Compares the rows of each epoch with those that were read first.
async fn check(client: &Client, seen: &[(Epoch, Vec<String>)], after: &str) -> Result<()> {
    for (epoch, rows) in seen {
        let now = rows_as_of(client, *epoch).await?;
        if now != *rows {
            let text =
                format!("{} rows as of {epoch} after {after}, {} before", now.len(), rows.len());
            return Err(HarnessError::violated(text));
        }
    }
    Ok(())
}

async fn refuses_other_epochs(cluster: &Cluster, upper: Epoch) -> Result<()> {
    let ahead = (upper.get() + (60_000 << 16)).to_string();
    let at = |epoch: &str| ["scan", LOG_TABLE, "--count", "--as-of", epoch].map(str::to_owned);
    let run = async |args: [String; 5]| {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        cluster.run(&args).await
    };
    run(at(&ahead)).await?.status(4)?.expect_stderr(&["not complete yet"])?;
    run(at("1")).await?.status(4)?.expect_stderr(&["can no longer be read"])?;
    run(at("yesterday")).await?.status(2)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_an_epoch_never_change() -> Result<()> {
    let plan = ClusterPlan::default().store(Store::S3).env("TIDEWATER_HISTORY", HISTORY);
    let mut cluster = plan.start().await?;
    wait_for_level(&cluster).await?;
    keep_routes(&cluster).await?;
    cluster.create_log_table_with_regions(3).await?;
    let client = Client::connect(options(&cluster)).await.map_err(failed)?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    let mut seen = Vec::new();
    let mut last = Epoch(0);
    for _ in 0..EPOCHS {
        load.progress(40).await?;
        last = next_epoch(&client, last).await?;
        seen.push((last, rows_as_of(&client, last).await?));
    }
    if seen.windows(2).any(|two| two[0].1.len() >= two[1].1.len()) {
        return Err(HarnessError::violated("an epoch has no rows of its own"));
    }
    check(&client, &seen, "later writes").await?;
    refuses_other_epochs(&cluster, last).await?;

    for step in ["flush", "compact"] {
        cluster.run(&["region", step, "--table", LOG_TABLE]).await?.ok()?;
    }
    check(&client, &seen, "a compaction").await?;
    let routes = routes(&cluster, LOG_TABLE).await?;
    let (route, from) = (routes[0]["route_id"].to_string(), routes[0]["group_id"].as_u64());
    let to = if from == Some(1) { "2" } else { "1" };
    cluster.run(&["route", "move", &route, "--to", to]).await?.ok()?;
    check(&client, &seen, "a move").await?;
    let owner = cluster.owner(LOG_TABLE).await?;
    cluster.data[owner].kill().await?;
    check(&client, &seen, "the death of a leader").await?;
    cluster.data[owner].start().await?;
    let (leader, _) = cluster.meta_leader().await?;
    cluster.meta[leader].kill().await?;
    let later = next_epoch(&client, last).await?;
    cluster.meta[leader].start().await?;
    check(&client, &seen, "the death of the meta leader").await?;
    seen.push((later, rows_as_of(&client, later).await?));
    if seen[EPOCHS].1.len() <= seen[EPOCHS - 1].1.len() {
        return Err(HarnessError::violated("no row was written under the next meta leader"));
    }

    // Epochs end with the history.
    wait::until("the first epoch can no longer be read", Duration::from_secs(120), || async {
        let epochs = client.table_epochs(LOG_TABLE).await.map_err(|error| error.to_string())?;
        if epochs.since > seen[0].0 { Ok(()) } else { Err(format!("{epochs:?}")) }
    })
    .await?;
    let spec = ScanSpec { as_of: Some(seen[0].0), ..ScanSpec::all(LOG_TABLE) };
    match client.count(spec).await {
        Err(error) if error.to_string().contains("can no longer be read") => {}
        other => return Err(HarnessError::violated(format!("{other:?}"))),
    }
    let verdict = conclude(cluster, load).await?;
    if verdict.failed > 0 || verdict.unknown > 0 {
        return Err(HarnessError::violated(format!("a write was not acknowledged: {verdict}")));
    }
    Ok(())
}
