//! An export to a bucket, while routes change and requests fail.

use serde_json::{Value, json};
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE, Store};
use tidewater_cluster_tests::command::CommandOutput;
use tidewater_cluster_tests::s3::{Fault, Mode, S3Endpoint};
use tidewater_cluster_tests::{HarnessError, Result};

use super::{catch_up, export};
use crate::commands::file;
use crate::splits::{routes, split_before};
use crate::support::{keep_routes, wait_for_level};

/// Rows of one load.
pub(super) const ROWS: u64 = 100;

/// Returns the endpoint of the bucket.
pub(super) fn endpoint(cluster: &Cluster) -> Result<&S3Endpoint> {
    cluster.s3.as_ref().ok_or_else(|| HarnessError::violated("no S3 endpoint"))
}

/// Returns the fields of the target besides its URL. The keys are in a file on the nodes.
fn configuration(cluster: &Cluster) -> Result<String> {
    let env = endpoint(cluster)?.env("exports");
    let of = |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, value)| value);
    let endpoint = of("AWS_ENDPOINT").cloned().unwrap_or_default();
    let keys = cluster.secret_directory().join("lake");
    let lines = format!(
        "access_key_id=exports\nsecret_access_key=test\nbucket=tidewater\nendpoint={endpoint}\n"
    );
    std::fs::write(&keys, lines).map_err(HarnessError::io("the keys"))?;
    Ok(json!({ "endpoint": endpoint, "allow_http": true, "region": "us-east-1", "credentials_file": keys }).to_string())
}

/// Creates the export `lake` of the log table in the bucket.
pub(super) async fn create_in_bucket(cluster: &Cluster, options: &[&str]) -> Result<CommandOutput> {
    let config = configuration(cluster)?;
    let create = ["export", "create", "lake", "--table", LOG_TABLE, "--config", &config];
    let to = ["--to", "s3://tidewater/exports/lake", "--every", "1s"];
    cluster.run(&[&create[..], &to, options].concat()).await
}

/// Writes rows to the log table.
pub(super) async fn load(cluster: &Cluster, writer: u64) -> Result<()> {
    let rows: String = (0..ROWS).map(|serial| format!("{writer},{serial},x\n")).collect();
    let rows = format!("writer,serial,note\n{rows}");
    let rows = file(cluster, &format!("rows-{writer}.csv"), rows)?;
    cluster.run(&["load", LOG_TABLE, &rows]).await?.ok()?;
    Ok(())
}

/// Waits until the export has all rows, and compares their number.
pub(super) async fn expect_rows(cluster: &Cluster, rows: u64) -> Result<Value> {
    catch_up(cluster).await?;
    let export = export(cluster).await.map_err(HarnessError::violated)?;
    if export["rows"] == rows {
        return Ok(export);
    }
    Err(HarnessError::violated(format!("{rows} rows, not those of {export}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn export_to_a_bucket_follows_changes_of_routes() -> Result<()> {
    let cluster = ClusterPlan::default().nodes(1, 3, 0).store(Store::S3).start().await?;
    wait_for_level(&cluster).await?;
    keep_routes(&cluster).await?;
    cluster.create_log_table_with_regions(1).await?;
    load(&cluster, 1).await?;
    let config = configuration(&cluster)?;
    let own = ["--to", "s3://tidewater/cluster/lake", "--config", &config];
    let own = [&["export", "create", "own", "--table", LOG_TABLE], &own[..]].concat();
    cluster.run(&own).await?.status(5)?.expect_stderr(&["object store of the cluster"])?;
    create_in_bucket(&cluster, &["--wait"]).await?.ok()?;
    expect_rows(&cluster, ROWS).await?;

    let s3 = endpoint(&cluster)?;
    // The objects are written, although the store responds with an error.
    s3.inject(Fault::new(Mode::ErrorAfter).on_puts().on_path("exports/lake/_").times(3)).await?;
    load(&cluster, 2).await?;
    split_before(&cluster, 2, 50).await?;
    load(&cluster, 3).await?;
    expect_rows(&cluster, 3 * ROWS).await?;
    let hits = s3.hits().await?;
    if hits == 0 {
        return Err(HarnessError::violated("no request of the export has failed"));
    }
    s3.heal().await?;
    let routes = routes(&cluster, LOG_TABLE).await?;
    let (route, from) = (routes[0]["route_id"].to_string(), routes[0]["group_id"].as_u64());
    let to = if from == Some(1) { "2" } else { "1" };
    load(&cluster, 4).await?;
    cluster.run(&["route", "move", &route, "--to", to]).await?.ok()?;
    load(&cluster, 5).await?;
    let export = expect_rows(&cluster, 5 * ROWS).await?;
    println!("{export}");
    cluster.finish().await
}
