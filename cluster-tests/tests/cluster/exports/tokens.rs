//! Tokens: exports that begin at an epoch which was held before.

use std::ops::Range;

use serde_json::{Value, json};
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::{HarnessError, Result, wait};

use super::replay::{expect_replay, expect_rows_of, prefix, scan_as_of};
use super::{catch_up, json_of};
use crate::commands::{check, check_equal, file};
use crate::support::{SETTLED_WITHIN, wait_for_level};

const TABLE: &str = "versions";
/// Its primary key.
const KEY: &str = "id";

/// Starts a cluster with the table.
async fn start() -> Result<Cluster> {
    let cluster = ClusterPlan::default().nodes(1, 1, 0).start().await?;
    wait_for_level(&cluster).await?;
    let columns = ["--columns", "id int64, name utf8", "--primary-key", KEY];
    let regions = ["--regions", "2", "--distribute", "hash(id)"];
    cluster.run(&[&["table", "create", TABLE], &columns[..], &regions].concat()).await?.ok()?;
    Ok(cluster)
}

/// Gives rows a name.
async fn put(cluster: &Cluster, ids: Range<u64>, name: &str) -> Result<()> {
    let rows: String = ids.map(|id| format!("{id},{name}\n")).collect();
    let rows = file(cluster, &format!("{name}.csv"), format!("id,name\n{rows}"))?;
    cluster.run(&["load", TABLE, &rows]).await?.ok()?;
    Ok(())
}

async fn delete(cluster: &Cluster, ids: Range<u64>) -> Result<()> {
    let ids: Vec<String> = ids.map(|id| id.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    cluster.run(&[&["delete", TABLE][..], &ids].concat()).await?.ok()?;
    Ok(())
}

/// Holds the table for an export; returns the token and its epoch.
async fn prepare(cluster: &Cluster, options: &[&str]) -> Result<(String, u64)> {
    let prepared = json_of(cluster, &[&["export", "prepare", TABLE], options].concat()).await?;
    let token = prepared["token"].as_str().map(str::to_owned);
    let found = token.zip(prepared["epoch"].as_u64());
    found.ok_or_else(|| HarnessError::violated(prepared.to_string()))
}

/// Runs `export create` with a token that is not valid.
async fn expect_invalid(cluster: &Cluster, token: &str) -> Result<()> {
    let url = format!("file://{}", prefix(cluster).display());
    let create = ["export", "create", "lake", "--table", TABLE, "--to", &url, "--token", token];
    let refused = cluster.run(&create).await?;
    refused.status(4)?.expect_stderr(&[token, "cancelled or used", "lease has expired"])?;
    Ok(())
}

/// Returns the hold of a token as `hold list` shows it; null: there is none.
async fn hold(cluster: &Cluster, token: &str) -> std::result::Result<Value, String> {
    let listed = json_of(cluster, &["hold", "list"]).await.map_err(|error| error.to_string())?;
    let mut holds = listed.as_array().into_iter().flatten();
    Ok(holds.find(|hold| hold["name"] == token).cloned().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contents_by_a_token_are_those_of_its_epoch() -> Result<()> {
    let cluster = start().await?;
    put(&cluster, 0..200, "first").await?;
    let (token, epoch) = prepare(&cluster, &["--lease", "10m"]).await?;
    wait::until("the epoch of the token is complete", SETTLED_WITHIN, || async {
        let as_of = epoch.to_string();
        let count = cluster.run(&["scan", TABLE, "--count", "--as-of", &as_of]).await;
        count.and_then(|output| output.ok()).map(drop).map_err(|error| error.to_string())
    })
    .await?;
    let rows = scan_as_of(&cluster, TABLE, epoch).await?;
    put(&cluster, 100..300, "second").await?;
    delete(&cluster, 0..50).await?;
    for step in ["flush", "compact"] {
        cluster.run(&["region", step, "--table", TABLE]).await?.ok()?;
    }

    let url = format!("file://{}", prefix(&cluster).display());
    let create = ["export", "create", "lake", "--table", TABLE, "--to", &url, "--every", "1s"];
    let by_token = ["--token", &token, "--wait"];
    let exported = json_of(&cluster, &[&create[..], &by_token].concat()).await?;
    check_equal("epoch of the contents", exported["as_of"].as_u64(), Some(epoch))?;
    catch_up(&cluster).await?;
    // The first step has no change after the token.
    let contents = expect_rows_of(&cluster, epoch, &rows, KEY).await?;
    check_equal("rows of the contents", (contents.rows, contents.steps), (200, 1))?;
    check_equal("versions of the contents", (contents.versions, contents.deletes), (200, 0))?;
    let changed = expect_replay(&cluster, TABLE, KEY).await?;
    check_equal("rows and deletes", (changed.rows, changed.deletes), (250, 50))?;
    cluster.finish().await
}

/// Renews the hold of a token until its lease ends later.
async fn expect_renewal(cluster: &Cluster, token: &str) -> Result<()> {
    let before = hold(cluster, token).await.map_err(HarnessError::violated)?;
    wait::until("a renewal extends the lease", SETTLED_WITHIN, || async {
        let renewed = json_of(cluster, &["hold", "renew", token]).await;
        let renewed = renewed.map_err(|error| error.to_string())?;
        let after = hold(cluster, token).await?;
        let is_later = after["lease_end_ms"].as_u64() > before["lease_end_ms"].as_u64();
        let is_extended = is_later && renewed == json!({ "renewed": [token] });
        if is_extended { Ok(()) } else { Err(format!("{renewed}, {after}")) }
    })
    .await
}

/// Prepares exports at epochs by their times. The policy of the table keeps them.
async fn expect_epochs_by_time(cluster: &Cluster) -> Result<Vec<String>> {
    let (first, since) = prepare(cluster, &[]).await?;
    let (second, earlier) = wait::until("the table has a history", SETTLED_WITHIN, || async {
        // Below since until a second after the change of the policy.
        prepare(cluster, &["--as-of", "1s"]).await.map_err(|error| error.to_string())
    })
    .await?;
    let (third, newest) = prepare(cluster, &["--as-of", "0s"]).await?;
    let text = format!("epochs {since}, {earlier} and {newest} are in order");
    check(&text, since <= earlier && earlier <= newest)?;
    let (fourth, numbered) = prepare(cluster, &["--as-of", &earlier.to_string()]).await?;
    check_equal("epoch by its number", numbered, earlier)?;
    Ok(vec![first, second, third, fourth])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_valid_until_they_expire_or_are_cancelled() -> Result<()> {
    let cluster = start().await?;
    json_of(&cluster, &["collection", "policy", TABLE, "--lag", "1h"]).await?;
    let (expiring, _) = prepare(&cluster, &["--lease", "10s"]).await?;
    let mut tokens = expect_epochs_by_time(&cluster).await?;
    expect_renewal(&cluster, &tokens[0]).await?;

    let token = tokens.remove(0);
    for _ in 0..2 {
        // Without effect the second time.
        let cancelled = json_of(&cluster, &["export", "cancel", &token]).await?;
        check_equal("cancelled token", cancelled, json!({ "cancelled": token }))?;
        let left = hold(&cluster, &token).await.map_err(HarnessError::violated)?;
        check_equal("hold of the cancelled token", left, Value::Null)?;
    }
    expect_invalid(&cluster, &token).await?;
    cluster.run(&["hold", "renew", &token]).await?.status(3)?;
    cluster.run(&["export", "cancel", "nightly"]).await?.status(2)?;
    let held = cluster.run(&["table", "truncate", TABLE]).await?;
    held.status(4)?.expect_stderr(&["is held by", "export-token:"])?;

    wait::until("the token expires", SETTLED_WITHIN, || async {
        let left = hold(&cluster, &expiring).await?;
        if left.is_null() { Ok(()) } else { Err(left.to_string()) }
    })
    .await?;
    expect_invalid(&cluster, &expiring).await?;
    for token in tokens {
        json_of(&cluster, &["export", "cancel", &token]).await?;
    }
    json_of(&cluster, &["table", "drop", TABLE]).await?;
    cluster.finish().await
}
