//! Refreshable tables: their contents are those of one version of the source, whatever fails during a refresh.

mod faults;
mod flights;
mod held;
mod intervals;
pub(crate) mod mirror;
mod own_kind;
mod query;
mod reader;
mod requests;
mod versions;

use std::fs;

use serde_json::json;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::{HarnessError, Result};

use self::mirror::{Mirror, TABLE};
use crate::support::wait_for_level;

fn violated(text: impl Into<String>) -> HarnessError {
    HarnessError::violated(text)
}

async fn expect(cluster: &Cluster, status: i32, args: &[&str], words: &[&str]) -> Result<()> {
    cluster.run(args).await?.status(status)?.expect_stderr(words)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refreshed_table_equals_its_source() -> Result<()> {
    let cluster = ClusterPlan::default().start().await?;
    wait_for_level(&cluster).await?;
    let mut mirror = Mirror::create(&cluster, 3).await?;
    mirror.check(&cluster).await?;

    mirror.rows = (0..5_000).map(|id| (id, format!("row {id}"))).collect();
    mirror.write(3)?;
    // Until its refresh, the table is as before.
    if !mirror.scan(&cluster).await?.is_empty() {
        return Err(violated("rows of a source are visible before a refresh"));
    }
    mirror.refresh(&cluster, json!({"inserted": 5_000, "updated": 0, "deleted": 0})).await?;
    mirror.refresh(&cluster, json!({"inserted": 0, "updated": 0, "unchanged": 5_000})).await?;
    for id in 0..100 {
        mirror.rows.insert(id * 50, format!("changed {id}"));
        mirror.rows.remove(&(id * 50 + 7));
        mirror.rows.insert(10_000 + id, "new".to_owned());
    }
    mirror.write(2)?;
    let changes = json!({"inserted": 100, "updated": 100, "deleted": 100, "unchanged": 4_800});
    mirror.refresh(&cluster, changes).await?;

    let history = cluster.run(&["refresh", "history", TABLE, "--output", "json"]).await?.ok()?;
    let outcomes = history.json()?;
    let published = outcomes.as_array().into_iter().flatten();
    let published = published.filter(|run| run["outcome"] == "published").count();
    if published != 3 {
        return Err(violated(format!("{published} published refreshes: {outcomes}")));
    }
    refuses_other_changes(&cluster).await?;
    guards_against_shrunken_sources(&cluster, &mut mirror).await?;
    refuses_wrong_sources(&cluster, &mut mirror).await?;
    cluster.run(&["table", "drop", TABLE]).await?.ok()?;
    expect(&cluster, 3, &["refresh", "start", TABLE], &["there is no table"]).await?;
    cluster.finish().await
}

/// Refuses everything but refreshes that would change the table, and reads of other epochs.
async fn refuses_other_changes(cluster: &Cluster) -> Result<()> {
    let rows = cluster.directory().join("by_hand.csv");
    fs::write(&rows, "id,name\n1,mine\n").map_err(HarnessError::io("write a file"))?;
    let rows = rows.display().to_string();
    let words = ["mirrors a source"];
    expect(cluster, 2, &["load", TABLE, &rows], &words).await?;
    expect(cluster, 2, &["load", TABLE, &rows, "--bulk"], &words).await?;
    expect(cluster, 2, &["delete", TABLE, "1"], &words).await?;
    expect(cluster, 2, &["table", "truncate", TABLE], &["cannot be truncated"]).await?;
    expect(cluster, 2, &["table", "clone", TABLE, "other"], &["cannot be cloned"]).await?;
    let later = i64::MAX.to_string();
    let words_of_later = ["not known before its next refresh"];
    expect(cluster, 2, &["scan", TABLE, "--as-of", &later], &words_of_later).await?;
    let empty = cluster.run(&["scan", TABLE, "--count", "--as-of", "5"]).await?.ok()?;
    if empty.stdout.trim() != "0" {
        return Err(violated(format!("rows before the first refresh: {}", empty.stdout)));
    }
    expect(cluster, 3, &["refresh", "start", "nothing"], &["nothing"]).await?;
    let create = ["table", "create", "plain", "--columns", "id int64", "--primary-key", "id"];
    cluster.run(&create).await?.ok()?;
    expect(cluster, 2, &["refresh", "start", "plain"], &["is not refreshable"]).await?;
    expect(cluster, 2, &["refresh", "status", "plain"], &["is not refreshable"]).await
}

/// Publishes no source that is empty or has lost most of its rows, unless forced.
async fn guards_against_shrunken_sources(cluster: &Cluster, mirror: &mut Mirror) -> Result<()> {
    let rows = std::mem::take(&mut mirror.rows);
    mirror.write(1)?;
    expect(cluster, 4, &["refresh", "start", TABLE], &["0 rows", "--force"]).await?;
    mirror.rows = rows;
    mirror.check(cluster).await?;
    mirror.rows.retain(|id, _| *id < 10);
    mirror.write(1)?;
    expect(cluster, 4, &["refresh", "start", TABLE], &["less than 50 %"]).await?;
    cluster.run(&["refresh", "start", TABLE, "--force"]).await?.ok()?;
    mirror.check(cluster).await
}

/// A source that does not fit the table fails its refresh, and changes nothing.
async fn refuses_wrong_sources(cluster: &Cluster, mirror: &mut Mirror) -> Result<()> {
    for (content, status, word) in [
        ("id,name\n1,one\n1,two\n", 2, "more than once"),
        ("id,title\n1,one\n", 2, "title"),
        ("id,name\nx,one\n", 2, "id"),
        ("id,name\n,one\n", 2, "id"),
    ] {
        mirror.write_text(content)?;
        expect(cluster, status, &["refresh", "start", TABLE, "--force"], &[word]).await?;
        mirror.check(cluster).await?;
    }
    mirror.write(1)?;
    mirror.refresh(cluster, json!({"inserted": 0, "updated": 0, "deleted": 0})).await
}
