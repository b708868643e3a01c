//! Sorted scans and aggregates of the sample of flights. The expected figures are those of Python's `csv`
//! module and exact integers.

use std::path::Path;

use serde_json::json;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::{HarnessError, Result};

use crate::commands::{check, check_equal};

/// Loads the sample into a table with three regions.
async fn load(cluster: &Cluster) -> Result<()> {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/demo-data");
    let file = demo.join("flights-sample.csv.gz").display().to_string();
    cluster.run(&["load", "flights", &file, "--null", "NA"]).await?.ok()?;
    Ok(())
}

async fn create(cluster: &Cluster) -> Result<()> {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/demo-data");
    let columns = std::fs::read_to_string(demo.join("flights.columns"))
        .map_err(HarnessError::io("read scripts/demo-data/flights.columns"))?;
    let key = "time_hour,carrier,flight,origin";
    let create = ["table", "create", "flights", "--columns", columns.trim(), "--primary-key", key];
    let regions = ["--distribute", "hash(origin)", "--regions", "3"];
    cluster.run(&[&create[..], &regions].concat()).await?.ok()?;
    Ok(())
}

/// Returns stdout of a scan of the table.
async fn scan(cluster: &Cluster, args: &[&str]) -> Result<String> {
    Ok(cluster.run(&[&["scan", "flights"], args].concat()).await?.ok()?.stdout)
}

async fn csv(cluster: &Cluster, args: &[&str]) -> Result<String> {
    scan(cluster, &[args, &["--format", "csv"]].concat()).await
}

async fn check_order(cluster: &Cluster) -> Result<()> {
    let known = ["--where", "dep_delay is not null", "--columns", "carrier,flight"];
    check_equal(
        "the latest flights",
        csv(cluster, &[&known[..], &["--order-by", "dep_delay:desc", "--limit", "5"]].concat())
            .await?
            .as_str(),
        "carrier,flight\nDL,831\nB6,711\nEV,5711\nDL,2079\nEV,3838\n",
    )?;
    let order = ["--order-by", "dep_delay:desc,time_hour,carrier,flight", "--limit", "2"];
    check_equal(
        "descending order begins with nulls",
        csv(cluster, &[&order[..], &["--columns", "dep_delay,carrier,flight"]].concat())
            .await?
            .as_str(),
        "dep_delay,carrier,flight\n,AA,1757\n,9E,4127\n",
    )?;
    let all = csv(cluster, &["--order-by", "distance", "--columns", "distance"]).await?;
    let distances: Vec<i64> = all.lines().filter_map(|line| line.parse().ok()).collect();
    check_equal(
        "rows, first and last distance",
        (distances.len(), distances.first(), distances.last()),
        (5_027, Some(&80), Some(&4_983)),
    )?;
    check("distances ascend", distances.is_sorted())?;
    let delays = csv(cluster, &["--order-by", "dep_delay", "--columns", "dep_delay"]).await?;
    let nulls = delays.lines().rev().take_while(|line| line.is_empty() || *line == "\"\"").count();
    check_equal("nulls at the end of ascending order", nulls, 133)?;
    check_equal(
        "limit 0",
        csv(cluster, &["--order-by", "year", "--limit", "0", "--columns", "year"]).await?.as_str(),
        "year\n",
    )
}

async fn check_memory_limit(cluster: &Cluster) -> Result<()> {
    let scan = ["scan", "flights", "--order-by", "distance", "--sort-memory", "64KiB"];
    cluster.run(&scan).await?.status(2)?.expect_stderr(&[
        "64KiB",
        "--limit",
        "--where",
        "--sort-memory",
    ])?;
    let few = ["--limit", "3", "--columns", "distance", "--format", "csv"];
    let found =
        cluster.run(&[&scan[..4], &few, &["--sort-memory", "2MiB"]].concat()).await?.ok()?;
    check_equal("the shortest flights", found.stdout.as_str(), "distance\n80\n94\n94\n")
}

async fn check_aggregates(cluster: &Cluster) -> Result<()> {
    let all = [
        "--count",
        "--sum",
        "distance,air_time",
        "--min",
        "dep_delay",
        "--min",
        "tailnum",
        "--max",
        "dep_delay",
        "--max",
        "time_hour",
        "--output",
        "json",
    ];
    let found: serde_json::Value = serde_json::from_str(&scan(cluster, &all).await?)
        .map_err(|error| HarnessError::violated(error.to_string()))?;
    check_equal(
        "aggregates",
        found,
        json!({
            "count": 5_027,
            "sum(distance)": 5_216_101,
            "sum(air_time)": 732_327,
            "min(dep_delay)": -19,
            "min(tailnum)": "N0EGMQ",
            "max(dep_delay)": 373,
            "max(time_hour)": "2014-01-01T01:00:00Z",
        }),
    )?;
    let average = csv(cluster, &["--avg", "dep_delay"]).await?;
    check_equal("average", average.as_str(), "avg(dep_delay)\n12.425623212096445\n")?;
    let counted = csv(cluster, &["--count", "--columns", "tailnum,air_time,year"]).await?;
    let expected = "count(tailnum),count(air_time),count(year)\n4977,4868,5027\n";
    check_equal("values", counted.as_str(), expected)?;
    let jfk = ["--where", "origin = \"JFK\"", "--count", "--sum", "distance"];
    let found = csv(cluster, &jfk).await?;
    check_equal("with a condition", found.as_str(), "count,sum(distance)\n1705,2153101\n")?;
    let none = ["--where", "distance < 0", "--count", "--sum", "distance", "--max", "origin"];
    let found = csv(cluster, &none).await?;
    check_equal("without rows", found.as_str(), "count,sum(distance),max(origin)\n0,,\n")?;
    check_equal("a bare count", scan(cluster, &["--count"]).await?.as_str(), "5027\n")?;
    check_equal("a count as CSV", csv(cluster, &["--count"]).await?.as_str(), "count\n5027\n")?;
    let table = scan(cluster, &["--sum", "distance"]).await?;
    check_equal("a table", table.as_str(), "sum(distance)\n-------------\n      5216101\n(1 row)\n")
}

async fn check_errors(cluster: &Cluster) -> Result<()> {
    for (args, status, parts) in [
        (&["--sum", "origin"][..], 2, &["sum(origin)", "utf8", "--min"][..]),
        (&["--avg", "time_hour"], 2, &["avg(time_hour)", "timestamp(ms, UTC)"]),
        (&["--sum", "distnace"], 3, &["distnace", "did you mean \"distance\"?"]),
        (&["--order-by", "distnace:desc"], 3, &["did you mean \"distance\"?"]),
        (&["--count", "--columns", "nope"], 3, &["nope", "its columns are year"]),
        (&["--sum", "distance", "--limit", "5"], 2, &["--limit", "--where"]),
        (&["--sum", "distance", "--order-by", "distance"], 2, &["--order-by"]),
        (&["--sum", "distance", "--columns", "origin"], 2, &["--columns", "--count"]),
    ] {
        cluster
            .run(&[&["scan", "flights"], args].concat())
            .await?
            .status(status)?
            .expect_stderr(parts)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sorted_scans_and_aggregates_return_known_figures() -> Result<()> {
    let cluster = ClusterPlan::default().nodes(1, 3, 0).start().await?;
    create(&cluster).await?;
    load(&cluster).await?;
    check_order(&cluster).await?;
    check_aggregates(&cluster).await?;
    check_memory_limit(&cluster).await?;
    check_errors(&cluster).await?;
    cluster.run(&["region", "flush", "--table", "flights"]).await?.ok()?;
    load(&cluster).await?;
    check_order(&cluster).await?;
    check_aggregates(&cluster).await?;
    cluster.finish().await
}
