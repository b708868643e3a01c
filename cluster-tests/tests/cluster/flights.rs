//! Real data: figures of the flights data set after faults and for every load mode.

use std::path::{Path, PathBuf};

use futures::future::try_join_all;
use tidewater_cluster_tests::cluster::Cluster;
use tidewater_cluster_tests::s3::python;
use tidewater_cluster_tests::{HarnessError, Result};

use crate::support::live_files;

const TABLE: &str = "flights";

/// A file of flights and its expected figures.
struct Flights {
    file: PathBuf,
    rows: u64,
    distance: i64,
    without_dep_time: u64,
}

/// Returns the full data set if it exists next to the project directory, else the sample in the project.
fn flights() -> Result<Flights> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let demo = project.join("scripts/demo-data");
    let text = std::fs::read_to_string(demo.join("flights.figures"))
        .map_err(HarnessError::io("read scripts/demo-data/flights.figures"))?;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let [name, rows, distance, without] = line.split_whitespace().collect::<Vec<_>>()[..]
        else {
            return Err(HarnessError::violated(format!("flights.figures has the line {line:?}")));
        };
        let places = [project.join("../shared/data").join(name), demo.join(name)];
        let Some(file) = places.into_iter().find(|file| file.is_file()) else { continue };
        let number = |text: &str| {
            text.parse::<u64>().map_err(|error| HarnessError::violated(error.to_string()))
        };
        return Ok(Flights {
            file,
            rows: number(rows)?,
            distance: i64::try_from(number(distance)?).unwrap_or(i64::MAX),
            without_dep_time: number(without)?,
        });
    }
    Err(HarnessError::violated("no flights file"))
}

/// Returns the path of the flights file.
pub(crate) fn flights_file() -> Result<PathBuf> {
    flights().map(|flights| flights.file)
}

/// Creates the table `flights`.
pub(crate) async fn create_flights(cluster: &Cluster) -> Result<()> {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/demo-data");
    let columns = std::fs::read_to_string(demo.join("flights.columns"))
        .map_err(HarnessError::io("read scripts/demo-data/flights.columns"))?;
    let key = "time_hour,carrier,flight";
    let args = ["table", "create", TABLE, "--columns", columns.trim(), "--primary-key", key];
    cluster.run(&args).await?.ok()?;
    Ok(())
}

async fn load(cluster: &Cluster, flights: &Flights) -> Result<()> {
    load_by(cluster, flights, &[]).await
}

async fn load_by(cluster: &Cluster, flights: &Flights, how: &[&str]) -> Result<()> {
    let file = flights.file.display().to_string();
    cluster.run(&[&["load", TABLE, &file, "--null", "NA"][..], how].concat()).await?.ok()?;
    Ok(())
}

async fn check(cluster: &Cluster, flights: &Flights, when: &str) -> Result<()> {
    let rows = cluster.count(TABLE).await?;
    let without = cluster.count_where(TABLE, Some("dep_time is null")).await?;
    let output = cluster.run(&["scan", TABLE, "--columns", "distance", "--format", "csv"]).await?;
    let distance: i64 =
        output.ok()?.stdout.lines().filter_map(|line| line.parse::<i64>().ok()).sum();
    let found = (rows, distance, without);
    let expected = (flights.rows, flights.distance, flights.without_dep_time);
    if found == expected {
        Ok(())
    } else {
        Err(HarnessError::violated(format!(
            "{when}: (rows, distance, without dep_time) is {found:?}, expected {expected:?}"
        )))
    }
}

/// Verifies the figures that DuckDB and pyarrow compute from the table's files.
async fn check_files(cluster: &Cluster, flights: &Flights) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/lib/sst_figures.py");
    let objects = Path::new(cluster.store_url().trim_start_matches("file://"));
    let files = live_files(cluster, TABLE).await?;
    let output = tokio::process::Command::new(python()?)
        .arg(script)
        .args(files.iter().map(|path| objects.join(path)))
        .output()
        .await
        .map_err(HarnessError::io("run scripts/lib/sst_figures.py"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let found: serde_json::Value = serde_json::from_str(&stdout).map_err(|error| {
        let stderr = String::from_utf8_lossy(&output.stderr);
        HarnessError::violated(format!("scripts/lib/sst_figures.py: {error}: {stderr}"))
    })?;
    let expected = serde_json::json!([flights.rows, flights.distance, flights.without_dep_time]);
    if found["pyarrow"] == expected && found["duckdb"] == expected {
        Ok(())
    } else {
        Err(HarnessError::violated(format!("figures of the files: {stdout}, expected {expected}")))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flights_figures_are_equal_after_every_fault() -> Result<()> {
    let flights = flights()?;
    let mut cluster = Cluster::start().await?;
    create_flights(&cluster).await?;
    load(&cluster, &flights).await?;
    check(&cluster, &flights, "after loading").await?;

    let leader = cluster.owner(TABLE).await?;
    cluster.data[leader].kill().await?;
    check(&cluster, &flights, "after a kill of the leader").await?;
    cluster.data[leader].start().await?;

    let follower = (cluster.owner(TABLE).await? + 1) % cluster.data.len();
    cluster.data[follower].kill().await?;
    check(&cluster, &flights, "after a kill of a follower").await?;
    cluster.data[follower].start().await?;

    let (meta, _) = cluster.meta_leader().await?;
    cluster.meta[meta].kill().await?;
    check(&cluster, &flights, "after a kill of the meta leader").await?;
    cluster.meta[meta].start().await?;

    let all = cluster.meta.iter_mut().chain(cluster.data.iter_mut());
    try_join_all(all.map(|node| node.kill())).await?;
    cluster.start_all().await?;
    check(&cluster, &flights, "after a restart of everything").await?;

    cluster.flush(TABLE).await?.ok()?;
    check(&cluster, &flights, "after a flush").await?;
    check_files(&cluster, &flights).await?;
    load(&cluster, &flights).await?;
    check(&cluster, &flights, "after loading a second time").await?;
    cluster.flush(TABLE).await?.ok()?;
    check(&cluster, &flights, "after a second flush").await?;

    let leader = cluster.owner(TABLE).await?;
    cluster.data[leader].kill().await?;
    check(&cluster, &flights, "after a kill with all rows in files").await?;
    cluster.data[leader].start().await?;
    cluster.wait_until_healthy().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flights_figures_are_equal_for_every_load_mode() -> Result<()> {
    let flights = flights()?;
    let mut cluster = Cluster::start().await?;
    create_flights(&cluster).await?;
    load_by(&cluster, &flights, &["--bulk"]).await?;
    check(&cluster, &flights, "after a bulk load").await?;
    check_files(&cluster, &flights).await?;
    let leader = cluster.owner(TABLE).await?;
    cluster.data[leader].kill().await?;
    check(&cluster, &flights, "after a kill of the leader").await?;
    cluster.data[leader].start().await?;
    load_by(&cluster, &flights, &["--atomic"]).await?;
    check(&cluster, &flights, "after an atomic load of the same rows").await?;
    load(&cluster, &flights).await?;
    check(&cluster, &flights, "after writes of the same rows").await?;
    cluster.finish().await
}
