//! Random batches and operations on flights, applied to the cluster and to DuckDB. Both have the same
//! rows at every checkpoint.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use tidewater_cluster_tests::cluster::Cluster;
use tidewater_cluster_tests::s3::python;
use tidewater_cluster_tests::{HarnessError, Result};

use crate::flights::flights_file;

pub(crate) const TABLE: &str = "flights";
const COLUMNS: &str = "time_hour timestamp(ms), carrier utf8, flight int64, origin utf8, dest utf8, \
                       distance int64, dep_time int64, tailnum utf8";

/// A step of the plan that `scripts/lib/flights_beside_duckdb.py` writes.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub(crate) enum Step {
    Put { files: Vec<String> },
    Bulk { files: Vec<String> },
    Atomic { files: Vec<String> },
    Delete { keys: Vec<Vec<String>> },
    Flush,
    Compact,
    AddColumn { name: String, default: Option<String> },
    DropColumn { name: String },
    Truncate,
    Checkpoint { file: String },
}

async fn script(args: &[&str]) -> Result<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/lib");
    let output = tokio::process::Command::new(python()?)
        .arg(script.join("flights_beside_duckdb.py"))
        .args(args)
        .output()
        .await
        .map_err(HarnessError::io("run scripts/lib/flights_beside_duckdb.py"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(HarnessError::violated(format!("{args:?}: {stderr}")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Applies a step with commands of the binary.
pub(crate) async fn apply(cluster: &Cluster, directory: &Path, step: Step) -> Result<()> {
    let load = async |files: Vec<String>, how: &[&str]| -> Result<()> {
        let files: Vec<String> =
            files.iter().map(|file| directory.join(file).display().to_string()).collect();
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        cluster
            .run(&[&["load", TABLE][..], &files, &["--null", "NA"], how].concat())
            .await?
            .ok()?;
        Ok(())
    };
    let run = async |args: &[&str]| -> Result<()> { cluster.run(args).await?.ok().map(drop) };
    match step {
        Step::Put { files } => load(files, &[]).await,
        Step::Bulk { files } => load(files, &["--bulk"]).await,
        Step::Atomic { files } => load(files, &["--atomic"]).await,
        Step::Delete { keys } => {
            let keys: Vec<String> = keys.iter().map(|key| key.join(",")).collect();
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            run(&[&["delete", TABLE][..], &keys].concat()).await
        }
        Step::Flush => cluster.flush(TABLE).await?.ok().map(drop),
        Step::Compact => {
            let list = ["region", "list", "--table", TABLE, "--output", "json"];
            let regions = cluster.run(&list).await?.ok()?.json()?;
            for region in regions.as_array().into_iter().flatten() {
                run(&["region", "compact", &region["region_id"].to_string()]).await?;
            }
            Ok(())
        }
        Step::AddColumn { name, default } => {
            let default = default.map_or(String::new(), |value| format!(" default {value}"));
            run(&["table", "alter", TABLE, "--add-column", &format!("{name} int64{default}")]).await
        }
        Step::DropColumn { name } => run(&["table", "alter", TABLE, "--drop-column", &name]).await,
        Step::Truncate => run(&["table", "truncate", TABLE]).await,
        Step::Checkpoint { file } => {
            let out = directory.join(file).display().to_string();
            run(&["scan", TABLE, "--format", "csv", "--out", &out]).await
        }
    }
}

/// Creates the table, and writes a plan with its files. Returns the directory of the files and the steps.
pub(crate) async fn prepare(cluster: &Cluster, seed: u64) -> Result<(PathBuf, Vec<Step>)> {
    let directory: PathBuf = cluster.directory().join("batches");
    std::fs::create_dir(&directory).map_err(HarnessError::io("create the batch directory"))?;
    let source = flights_file()?.display().to_string();
    let dir = directory.display().to_string();
    script(&["prepare", &source, &dir, &seed.to_string()]).await?;
    let key = ["--primary-key", "time_hour,carrier,flight", "--regions", "2"];
    let create = ["table", "create", TABLE, "--columns", COLUMNS, "--distribute", "hash(flight)"];
    cluster.run(&[&create[..], &key].concat()).await?.ok()?;
    let plan =
        std::fs::read(directory.join("plan.json")).map_err(HarnessError::io("read the plan"))?;
    let plan: Vec<Step> =
        serde_json::from_slice(&plan).map_err(|error| HarnessError::violated(error.to_string()))?;
    Ok((directory, plan))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn table_matches_duckdb_after_random_operations() -> Result<()> {
    let seed: u64 = match std::env::var("TIDEWATER_SEED") {
        Ok(seed) => seed.parse().map_err(|_| HarnessError::violated("TIDEWATER_SEED"))?,
        Err(_) => rand::random::<u32>().into(),
    };
    println!("TIDEWATER_SEED={seed} repeats this run");
    let cluster = Cluster::start().await?;
    let (directory, plan) = prepare(&cluster, seed).await?;
    let dir = directory.display().to_string();
    for step in plan {
        apply(&cluster, &directory, step).await?;
    }
    let found = script(&["check", &dir]).await?;
    println!("{found}");
    let found: serde_json::Value =
        serde_json::from_str(&found).map_err(|error| HarnessError::violated(error.to_string()))?;
    if found["batches"] != 200 || found["checkpoints"] != 20 {
        return Err(HarnessError::violated(format!("the comparison is incomplete: {found}")));
    }
    cluster.finish().await
}
