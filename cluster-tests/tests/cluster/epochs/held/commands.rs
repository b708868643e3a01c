//! Commands on holds and read policies: output, JSON and exit statuses.

use serde_json::json;
use tidewater_client::Client;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::workload::options;
use tidewater_cluster_tests::{Result, wait};
use tidewater_common::ids::Epoch;

use super::{acquire, failed, json_of};
use crate::commands::{check, check_equal, file};
use crate::support::{SETTLED_WITHIN, wait_for_level};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_show_and_move_holds() -> Result<()> {
    let cluster = ClusterPlan::default().nodes(1, 1, 0).start().await?;
    wait_for_level(&cluster).await?;
    let columns = ["--columns", "k int64", "--primary-key", "k"];
    cluster.run(&[&["table", "create", "t"], &columns[..]].concat()).await?.ok()?;
    let rows = file(&cluster, "t.csv", "k\n1\n2\n3\n")?;
    cluster.run(&["load", "t", &rows]).await?.ok()?;
    // Without a history, the epoch of a second ago cannot be read.
    let set = json_of(&cluster, &["collection", "policy", "t", "--lag", "1h"]).await?;
    check_equal("policy", set["policy"].as_str(), Some("lag 1h"))?;
    let client = Client::connect(options(&cluster)).await.map_err(failed)?;
    wait::until("the epochs of two seconds can be read", SETTLED_WITHIN, || async {
        let epochs = client.table_epochs("t").await.map_err(|error| error.to_string())?;
        let bounds = epochs.since.ms().zip(epochs.upper.ms());
        let readable = bounds.is_some_and(|(since_ms, upper_ms)| since_ms + 2_000 <= upper_ms);
        if readable { Ok(()) } else { Err(format!("{epochs:?}")) }
    })
    .await?;
    let epoch = acquire(&cluster, &["h", "t", "--as-of", "1s"]).await?;
    hold_is_listed_and_renewed(&cluster, epoch).await?;
    hold_is_copied_and_moved(&cluster, epoch).await?;
    invalid_commands_are_refused(&cluster).await?;

    // The copy keeps the epochs that the policy does not.
    let set = json_of(&cluster, &["collection", "policy", "t", "--default"]).await?;
    check_equal("policy", set["policy"].as_str(), Some("lag 0ms"))?;
    let scan = ["scan", "t", "--count", "--as-of", "1s"];
    check_equal("rows", cluster.run(&scan).await?.ok()?.stdout.trim(), "3")?;
    for released in ["2 holds released", "0 holds released"] {
        let output = cluster.run(&["hold", "release", "h", "copy"]).await?.ok()?;
        check_equal("release", output.stdout.trim(), released)?;
    }
    check_equal("holds", json_of(&cluster, &["hold", "list"]).await?, json!([]))?;
    cluster.finish().await
}

async fn hold_is_listed_and_renewed(cluster: &Cluster, epoch: Epoch) -> Result<()> {
    let table = cluster.run(&["hold", "list"]).await?.ok()?.stdout;
    let lines: Vec<&str> = table.lines().collect();
    let is_shown = lines.len() == 2
        && lines[0].contains("LEASE LEFT")
        && lines[1].contains(&epoch.to_string());
    check(&format!("the hold is shown: {table}"), is_shown)?;
    let listed = json_of(cluster, &["hold", "list", "--table", "t"]).await?;
    let hold = &listed[0];
    check_equal("name", hold["name"].as_str(), Some("h"))?;
    check_equal("tables", hold["tables"].clone(), json!(["t"]))?;
    check_equal("epoch", hold["epoch"].as_u64(), Some(epoch.get()))?;
    check_equal("lease", hold["lease_ms"].as_u64(), Some(3_600_000))?;
    let left_ms = hold["lease_left_ms"].as_u64();
    check("some of the lease is left", left_ms.is_some_and(|ms| ms > 0))?;
    let end_ms = hold["lease_end_ms"].as_u64();
    wait::until("a renewal extends the lease", SETTLED_WITHIN, || async {
        let renewed = json_of(cluster, &["hold", "renew", "h"]).await;
        let renewed = renewed.map_err(|error| error.to_string())?;
        let listed =
            json_of(cluster, &["hold", "list"]).await.map_err(|error| error.to_string())?;
        let is_extended = listed[0]["lease_end_ms"].as_u64() > end_ms;
        let is_extended = is_extended && renewed == json!({"renewed": ["h"]});
        if is_extended { Ok(()) } else { Err(format!("{renewed}, {listed}")) }
    })
    .await
}

/// Acquires a hold like the first one, which then moves to a later epoch.
async fn hold_is_copied_and_moved(cluster: &Cluster, epoch: Epoch) -> Result<()> {
    check_equal("copy", acquire(cluster, &["copy", "--like", "h"]).await?, epoch)?;
    let later = Epoch(epoch.get() + 1);
    let downgrade = ["hold", "downgrade", "h", "--epoch", &later.to_string()].map(str::to_owned);
    let downgrade: Vec<&str> = downgrade.iter().map(String::as_str).collect();
    let moved = json_of(cluster, &downgrade).await?;
    check_equal("epoch", moved["epoch"].as_u64(), Some(later.get()))?;
    check_equal("tables", moved["tables"].clone(), json!(["t"]))?;
    let listed = json_of(cluster, &["collection", "list"]).await?;
    let of_table = listed.as_array().into_iter().flatten().find(|line| line["table"] == "t");
    let line = of_table.cloned().unwrap_or_default();
    check_equal("policy", line["policy"].as_str(), Some("lag 1h"))?;
    check_equal("holds", line["holds"].as_u64(), Some(2))?;
    check_equal("oldest hold", line["oldest_hold"].as_str(), Some("copy"))?;
    check_equal("its epoch", line["oldest_hold_epoch"].as_u64(), Some(epoch.get()))?;
    let described = json_of(cluster, &["table", "describe", "t"]).await?;
    let rows = line["rows"].as_u64().filter(|rows| *rows > 0);
    check_equal("rows", rows, described["stored"]["rows"].as_u64())?;
    let table = cluster.run(&["collection", "list"]).await?.ok()?.stdout;
    let has_headings =
        ["ROWS", "SIZE", "OLDEST HOLD", "CAPABILITIES"].iter().all(|text| table.contains(text));
    check(&format!("the headings are shown: {table}"), has_headings)
}

async fn invalid_commands_are_refused(cluster: &Cluster) -> Result<()> {
    for (args, status, words) in [
        (&["hold", "renew", "h", "gone"][..], 3, "hold \"gone\" does not exist"),
        (&["hold", "downgrade", "gone", "--epoch", "1"], 3, "hold \"gone\" does not exist"),
        (&["hold", "downgrade", "gone", "--as-of", "1s"], 3, "hold \"gone\" does not exist"),
        (&["hold", "acquire", "other", "--like", "gone"], 3, "hold \"gone\" does not exist"),
        (&["hold", "acquire", "h", "t"], 4, "hold \"h\" already exists"),
        (&["hold", "acquire", "other", "nowhere"], 3, "nowhere"),
        (&["hold", "acquire", "other", "t", "--lease", "0s"], 2, "minimum 10s"),
        (&["hold", "downgrade", "h", "--epoch", "1"], 2, "cannot move back"),
        (&["hold", "list", "--table", "nowhere"], 3, "nowhere"),
        (&["collection", "capabilities", "nowhere", "--add", "1"], 3, "nowhere"),
        (&["collection", "capabilities", "t", "--add", "1"], 4, "can no longer be read"),
        (&["collection", "capabilities", "t", "--remove", "1"], 2, "cannot be taken away"),
    ] {
        cluster.run(args).await?.status(status)?.expect_stderr(&[words])?;
    }
    Ok(())
}
