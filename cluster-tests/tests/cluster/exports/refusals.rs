//! Exports that are refused, and those that fail for a time.

use std::fs;

use serde_json::Value;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE};
use tidewater_cluster_tests::{HarnessError, Result, wait};

use super::replay::{APPEND_ONLY, expect_replay};
use super::{create, export, frontier_from, json_of, prefix};
use crate::commands::check_equal;
use crate::support::{SETTLED_WITHIN, wait_for_level};

/// Runs `export create` that is refused with an exit status and words.
async fn refused(cluster: &Cluster, args: &[&str], status: i32, words: &[&str]) -> Result<()> {
    let create = [&["export", "create"], args].concat();
    cluster.run(&create).await?.status(status)?.expect_stderr(words)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exports_that_cannot_be_made_are_refused() -> Result<()> {
    let cluster = ClusterPlan::default().nodes(1, 1, 0).start().await?;
    wait_for_level(&cluster).await?;
    cluster.create_log_table_with_regions(1).await?;
    let url = format!("file://{}", prefix(&cluster).display());
    let of = ["--table", LOG_TABLE, "--to"];
    let outside = format!("file://{}", cluster.directory().join("elsewhere").display());
    refused(&cluster, &["x", "--table", "nowhere", "--to", &url], 3, &["nowhere"]).await?;
    refused(&cluster, &[&["x"], &of[..], &[&outside]].concat(), 5, &["--export-dir"]).await?;
    refused(&cluster, &[&["x"], &of[..], &["ftp://host/x"]].concat(), 2, &["ftp"]).await?;
    let below = [&["x"], &of[..], &[&url, "--as-of", "1"]].concat();
    refused(&cluster, &below, 4, &["below since"]).await?;
    let token = [&["x"], &of[..], &[&url, "--token", "export-token:gone"]].concat();
    refused(&cluster, &token, 4, &["export-token:gone"]).await?;
    if prefix(&cluster).join("_export.json").exists() {
        return Err(HarnessError::violated("a refused export has claimed its prefix"));
    }

    let prepared = json_of(&cluster, &["export", "prepare", LOG_TABLE]).await?;
    let token = prepared["token"].as_str().unwrap_or_default().to_owned();
    let by_token = ["x", "--table", LOG_TABLE, "--to", &url, "--token", &token];
    let created = json_of(&cluster, &[&["export", "create"], &by_token[..]].concat()).await?;
    if created["as_of"] != prepared["epoch"] {
        return Err(HarnessError::violated(format!("{created} by {prepared}")));
    }
    let other = format!("{url}/below");
    let free = format!("{url}-of-y");
    let again = ["y", "--table", LOG_TABLE, "--to", &free, "--token", &token];
    refused(&cluster, &again, 4, &[&token]).await?;
    refused(&cluster, &[&["x"], &of[..], &[&free]].concat(), 4, &["\"x\""]).await?;
    refused(&cluster, &[&["y"], &of[..], &[&url]].concat(), 4, &["\"x\""]).await?;
    refused(&cluster, &[&["y"], &of[..], &[&other]].concat(), 4, &["\"x\""]).await?;
    let held = cluster.run(&["table", "drop", LOG_TABLE]).await?;
    held.status(4)?.expect_stderr(&["exported", "export drop"])?;
    let release = cluster.run(&["hold", "release", "export:x"]).await?;
    release.status(2)?.expect_stderr(&["export drop"])?;
    let renew = cluster.run(&["hold", "renew", "export:x"]).await?;
    renew.status(2)?.expect_stderr(&["has no lease", "export drop x"])?;
    json_of(&cluster, &["export", "drop", "x"]).await?;
    cluster.run(&["export", "drop", "x"]).await?.status(3)?;
    // Its objects stay.
    refused(&cluster, &[&["y"], &of[..], &[&url]].concat(), 4, &["use another prefix"]).await?;
    json_of(&cluster, &["table", "drop", LOG_TABLE]).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_export_shows_its_cause_and_continues() -> Result<()> {
    let cluster = ClusterPlan::default().nodes(1, 1, 0).start().await?;
    wait_for_level(&cluster).await?;
    cluster.create_log_table_with_regions(1).await?;
    let created = create(&cluster, LOG_TABLE).await?;
    let as_of = created["as_of"].as_u64().unwrap_or(u64::MAX);
    let first = frontier_from(&cluster, as_of).await?;
    // A file is in the place of the directory of the next step.
    let blocked = prefix(&cluster).join("data");
    let _ = fs::remove_dir_all(&blocked);
    fs::write(&blocked, "").map_err(HarnessError::io("a file"))?;
    let csv = cluster.directory().join("rows.csv");
    fs::write(&csv, "writer,serial,note\n1,1,x\n").map_err(HarnessError::io("rows"))?;
    cluster.run(&["load", LOG_TABLE, &csv.display().to_string()]).await?.ok()?;
    wait::until("the export fails", SETTLED_WITHIN, || async {
        let export = export(&cluster).await?;
        let failure = export["failure"].as_str().unwrap_or_default();
        if failure.contains("data/") { Ok(()) } else { Err(export.to_string()) }
    })
    .await?;
    fs::remove_file(&blocked).map_err(HarnessError::io("the file"))?;
    let later = frontier_from(&cluster, first + 1).await?;
    frontier_from(&cluster, later + 1).await?;
    let export = export(&cluster).await.map_err(HarnessError::violated)?;
    check_equal("failure", &export["failure"], &Value::Null)?;
    let replayed = expect_replay(&cluster, LOG_TABLE, APPEND_ONLY).await?;
    check_equal("rows and steps", (replayed.rows, replayed.steps), (1, 2))?;
    cluster.finish().await
}
