//! Holds of a refreshable table: a held epoch has the rows of the last publication before it, whatever is refreshed or killed.

use serde_json::json;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::{HarnessError, Result};

use super::mirror::{Mirror, Rows, TABLE, rows_of};
use super::{expect, violated};
use crate::support::wait_for_level;

const ROWS: i64 = 2_000;

/// Acquires a hold; returns its epoch.
async fn acquire(cluster: &Cluster, args: &[&str]) -> Result<u64> {
    let acquire = [&["hold", "acquire"], args, &["--output", "json"]].concat();
    let acquired = cluster.run(&acquire).await?.ok()?.json()?;
    acquired["epoch"].as_u64().ok_or_else(|| violated(acquired.to_string()))
}

/// Checks that a table has these rows as of an epoch.
async fn expect_rows(cluster: &Cluster, table: &str, epoch: u64, rows: &Rows) -> Result<()> {
    let found = rows_of(cluster, &["scan", table, "--as-of", &epoch.to_string()]).await?;
    let differs = |(id, name): &(&i64, &String)| found.get(id) != Some(*name);
    if found.len() == rows.len() && !rows.iter().any(|row| differs(&row)) {
        return Ok(());
    }
    let text = format!("{} rows instead of {} as of {epoch}, or others", found.len(), rows.len());
    Err(violated(text))
}

/// Changes every second row, and replaces some, in the source and then in the table.
async fn refresh_changed(cluster: &Cluster, mirror: &mut Mirror, name: &str) -> Result<()> {
    for id in (0..ROWS).step_by(2) {
        mirror.rows.insert(id, name.to_owned());
    }
    mirror.rows.retain(|id, _| id % 100 != 7);
    mirror.write(2)?;
    mirror.refresh(cluster, json!({})).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_epoch_has_the_publication_before_it() -> Result<()> {
    let plan =
        ClusterPlan::default().env("TIDEWATER_GC_GRACE", "1s").env("TIDEWATER_GC_EVERY", "1s");
    let mut cluster = plan.start().await?;
    wait_for_level(&cluster).await?;
    let mut mirror = Mirror::create(&cluster, 2).await?;
    mirror.rows = (0..ROWS).map(|id| (id, "first".to_owned())).collect();
    mirror.write(2)?;
    mirror.refresh(&cluster, json!({"inserted": ROWS})).await?;
    let create = ["table", "create", "plain", "--columns", "id int64", "--primary-key", "id"];
    cluster.run(&create).await?.ok()?;
    // The common epoch is that of the plain table, which has no history.
    let first = acquire(&cluster, &["first", "plain", TABLE]).await?;
    let first_rows = mirror.rows.clone();
    expect_rows(&cluster, TABLE, first, &first_rows).await?;

    refresh_changed(&cluster, &mut mirror, "second").await?;
    let status =
        cluster.run(&["refresh", "status", TABLE, "--output", "json"]).await?.ok()?.json()?;
    let published = status[0]["published_epoch"].to_string();
    let second = acquire(&cluster, &["second", TABLE, "--epoch", &published]).await?;
    let second_rows = mirror.rows.clone();
    refresh_changed(&cluster, &mut mirror, "third").await?;
    for step in ["flush", "compact"] {
        cluster.run(&["region", step, "--table", TABLE]).await?.ok()?;
    }
    cluster.run(&["gc"]).await?.ok()?;
    let (leader, _) = cluster.meta_leader().await?;
    cluster.meta[leader].kill().await?;
    let owner = cluster.owner(TABLE).await?;
    cluster.data[owner].kill().await?;
    expect_rows(&cluster, TABLE, first, &first_rows).await?;
    expect_rows(&cluster, TABLE, second, &second_rows).await?;
    mirror.check(&cluster).await?;
    cluster.meta[leader].start().await?;
    cluster.data[owner].start().await?;
    refresh_changed(&cluster, &mut mirror, "fourth").await?;
    expect_rows(&cluster, TABLE, first, &first_rows).await?;

    let listed = cluster.run(&["collection", "list", "--costs", "--output", "json"]).await?.ok()?;
    let listed = listed.json()?;
    let of_mirror = listed.as_array().into_iter().flatten().find(|line| line["table"] == TABLE);
    let of_mirror = of_mirror.ok_or_else(|| violated(listed.to_string()))?;
    // Half of the rows, and the replaced ones, have several versions.
    if of_mirror["holds"] != 2 || of_mirror["held_versions"].as_u64() < Some(1_000) {
        return Err(violated(of_mirror.to_string()));
    }
    let late = ["hold", "acquire", "late", TABLE, "--epoch", "1"];
    expect(&cluster, 4, &late, &["below since"]).await?;
    drop_held(&cluster, (second, &second_rows)).await?;
    cluster.finish().await
}

/// Drops the table, whose rows stay readable, and are refreshed no more, until its last hold ends.
async fn drop_held(cluster: &Cluster, (epoch, rows): (u64, &Rows)) -> Result<()> {
    let dropped = cluster.run(&["table", "drop", TABLE, "--output", "json"]).await?.ok()?.json()?;
    let kept = dropped["kept_as"].as_str().ok_or_else(|| violated(dropped.to_string()))?;
    expect(cluster, 3, &["refresh", "start", TABLE], &["there is no table"]).await?;
    expect(cluster, 3, &["refresh", "start", kept], &[]).await?;
    expect_rows(cluster, kept, epoch, rows).await?;
    for hold in ["first", "second"] {
        cluster.run(&["hold", "release", hold]).await?.ok()?;
    }
    tidewater_cluster_tests::wait::until(
        "it is removed",
        crate::support::SETTLED_WITHIN,
        || async {
            let scan =
                cluster.run(&["scan", kept, "--count"]).await.map_err(|error| error.to_string())?;
            scan.status(3).map(drop).map_err(|error: HarnessError| error.to_string())
        },
    )
    .await
}
