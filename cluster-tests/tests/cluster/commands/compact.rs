//! `region compact --table`: all regions of a table, with a result for each.

use serde_json::Value;
use tidewater_cluster_tests::Result;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};

use super::{check, check_equal, file, json};

/// Loads and flushes rows, which gives each region one more file.
async fn add_files(cluster: &Cluster) -> Result<()> {
    let lines: String = (0..400).map(|id| format!("{id},n{id}\n")).collect();
    let rows = file(cluster, "t.csv", format!("id,name\n{lines}"))?;
    cluster.run(&["load", "t", &rows]).await?.ok()?;
    cluster.run(&["region", "flush", "--table", "t"]).await?.ok()?;
    Ok(())
}

fn len(value: &Value) -> Option<usize> {
    value.as_array().map(Vec::len)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn table_compaction_continues_after_a_failed_region() -> Result<()> {
    let plan = ClusterPlan::default().nodes(1, 1, 0).env("TIDEWATER_COMPACTION", "off");
    let cluster = plan.start().await?;
    let create =
        ["table", "create", "t", "--columns", "id int64, name utf8", "--primary-key", "id"];
    let placed = ["--distribute", "hash(id)", "--regions", "4"];
    cluster.run(&[&create[..], &placed].concat()).await?.ok()?;
    for _ in 0..2 {
        add_files(&cluster).await?;
    }

    let compact = ["region", "compact", "--table", "t", "--local", "--concurrency", "2"];
    let output = cluster.run(&compact).await?.ok()?;
    let lines: Vec<&str> = output.stdout.lines().collect();
    check_equal("lines", lines.len(), 5)?;
    check(lines[3], lines[3].starts_with("[4/4] region ") && lines[3].contains(": compacted "))?;
    check(lines[4], lines[4].starts_with("table t: 4 regions: 4 compacted, in "))?;
    let idle = json(&cluster, &compact).await?;
    check_equal("regions", (len(&idle["compacted"]), len(&idle["failed"])), (Some(4), Some(0)))?;
    let jobs = idle["compacted"].as_array().into_iter().flatten();
    check("there is nothing to compact", jobs.clone().all(|job| job["job_id"].is_null()))?;

    // Compactors are required, and there is none.
    let remote = ["region", "compact", "--table", "t", "--remote"];
    add_files(&cluster).await?;
    let failed = cluster.run(&remote).await?.status(5)?;
    failed.expect_stderr(&["[4/4] region", "4 of 4 regions of table t were not compacted"])?;

    // One region lacks the object of a file.
    let regions = json(&cluster, &["region", "list", "--table", "t"]).await?;
    let broken = regions[1]["region_id"].to_string();
    let files = json(&cluster, &["region", "files", &broken]).await?;
    let path = cluster.objects().join(files[0]["path"].as_str().unwrap_or_default());
    std::fs::remove_file(&path).expect("an object");
    let output = cluster.run(&[&compact[..], &["--output", "json"]].concat()).await?;
    check(&format!("{output:?}"), output.status.is_some_and(|status| status != 0))?;
    let results = output.json()?;
    check_equal("compacted", len(&results["compacted"]), Some(3))?;
    let ids = results["failed"].as_array().into_iter().flatten();
    let ids: Vec<_> = ids.map(|failed| failed["region_id"].to_string()).collect();
    check_equal("failed", ids, vec![broken.clone()])?;
    let object = path.display().to_string();
    check(&output.stderr, !output.stderr.contains("unknown"))?;
    output.expect_stderr(&[&format!("region {broken}: "), "1 of 4 regions", &object])?.status(1)?;

    cluster.run(&["region", "compact", "--table", "none"]).await?.status(3)?;
    cluster.run(&["region", "compact"]).await?.status(2)?;
    cluster.run(&["region", "compact", "1", "--table", "t"]).await?.status(2)?;
    cluster.finish().await
}
