//! The table `collection_statistics`, which the process of the meta leader writes.

use serde_json::Value;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::{HarnessError, Result, wait};

use crate::support::{SETTLED_WITHIN, keep_routes, wait_for_level};

const TABLE: &str = "collection_statistics";

/// Returns the statistics of a table by its name, as JSON; null: there are none.
async fn statistics(cluster: &Cluster, table: &str) -> Result<Value> {
    let filter = format!("table = '{table}'");
    let scan = ["scan", TABLE, "--where", &filter, "--format", "json"];
    let text = cluster.run(&scan).await?.ok()?.stdout;
    let line = text.lines().next().unwrap_or("null");
    serde_json::from_str(line).map_err(|error| HarnessError::violated(format!("{error}: {text}")))
}

/// Waits until the statistics of a table are as expected.
async fn wait_for(
    cluster: &Cluster,
    table: &str,
    expected: impl Fn(&Value) -> bool,
) -> Result<Value> {
    wait::until("the statistics follow", SETTLED_WITHIN, || async {
        let found = statistics(cluster, table).await.map_err(|error| error.to_string())?;
        if expected(&found) { Ok(found) } else { Err(found.to_string()) }
    })
    .await
}

async fn create(cluster: &Cluster, table: &str, rows: u64) -> Result<()> {
    let columns = ["--columns", "k int64", "--primary-key", "k"];
    cluster
        .run(&[&["table", "create", table, "--regions", "2"], &columns[..]].concat())
        .await?
        .ok()?;
    let file = cluster.directory().join(format!("{table}.csv"));
    let text: String = (0..rows).map(|key| format!("{key}\n")).collect();
    std::fs::write(&file, format!("k\n{text}")).map_err(HarnessError::io("a csv file"))?;
    cluster.run(&["load", table, &file.display().to_string()]).await?.ok()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statistics_follow_the_collections() -> Result<()> {
    let mut cluster =
        ClusterPlan::default().env("TIDEWATER_STATISTICS_EVERY", "1s").start().await?;
    wait_for_level(&cluster).await?;
    keep_routes(&cluster).await?;
    create(&cluster, "t", 0).await?;
    wait_for(&cluster, "t", |of| of["rows"] == 0 && of["regions"] == 2 && of["holds"] == 0).await?;
    create(&cluster, "u", 300).await?;
    wait_for(&cluster, "u", |of| of["rows"] == 300).await?;
    cluster.run(&["hold", "acquire", "backup", "u"]).await?.ok()?;
    let held = wait_for(&cluster, "u", |of| of["holds"] == 1).await?;
    if held["oldest_hold"] != "backup" || held["dropped"] != false {
        return Err(HarnessError::violated(held.to_string()));
    }
    // The next leader continues.
    let (leader, _) = cluster.meta_leader().await?;
    cluster.meta[leader].kill().await?;
    cluster.run(&["table", "drop", "u"]).await?.ok()?;
    wait_for(&cluster, "u", |of| of["dropped"] == true && of["oldest_hold"] == "backup").await?;
    cluster.meta[leader].start().await?;
    cluster.run(&["hold", "release", "backup"]).await?.ok()?;
    cluster.run(&["table", "drop", "t"]).await?.ok()?;
    for dropped in ["t", "u"] {
        wait_for(&cluster, dropped, Value::is_null).await?;
    }
    // A dropped table of statistics is created again.
    cluster.run(&["table", "drop", TABLE]).await?.ok()?;
    create(&cluster, "v", 7).await?;
    wait::until("the statistics are created again", SETTLED_WITHIN, || async {
        let found = statistics(&cluster, "v").await.map_err(|error| error.to_string())?;
        if found["rows"] == 7 { Ok(()) } else { Err(found.to_string()) }
    })
    .await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_table_with_the_name_is_left_alone() -> Result<()> {
    let mut cluster = ClusterPlan::default().nodes(1, 1, 0).start().await?;
    create(&cluster, TABLE, 5).await?;
    cluster.meta[0].terminate().await?;
    let every = ("TIDEWATER_STATISTICS_EVERY".to_owned(), "1s".to_owned());
    cluster.meta[0].spec.env.push(every);
    cluster.meta[0].start().await?;
    wait::until("the problem is logged", SETTLED_WITHIN, || async {
        let text = cluster.meta[0].log().text().map_err(|error| error.to_string())?;
        let words = "is not the one that the cluster writes: its columns are k int64 not null";
        let remedy = "`tidewater table clone` before, so that it is created again";
        if text.contains(words) && text.contains(remedy) {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    })
    .await?;
    let rows = cluster.count(TABLE).await?;
    if rows != 5 {
        return Err(HarnessError::violated(format!("{rows} rows")));
    }
    cluster.finish().await
}
