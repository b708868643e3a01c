//! `table describe`: sums over regions, also when the owner of a region does not answer.

use serde_json::Value;
use tidewater_cluster_tests::Result;
use tidewater_cluster_tests::cluster::Cluster;
use tidewater_cluster_tests::node::Signal;

use super::{check, check_equal, file, json};

/// Returns the number of a field of `stored`.
fn number(described: &Value, field: &str) -> u64 {
    described["stored"][field].as_u64().unwrap_or(u64::MAX)
}

/// Returns a file with `rows` rows, one for each minute from `first` on.
fn minutes(cluster: &Cluster, first: u32, rows: u32) -> Result<String> {
    let lines: String = (first..first + rows)
        .map(|minute| format!("{minute},2013-01-01T{:02}:{:02}:00Z\n", minute / 60, minute % 60))
        .collect();
    file(cluster, "minutes.csv", format!("id,at\n{lines}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn table_describe_sums_the_reports_of_all_regions() -> Result<()> {
    let cluster = Cluster::start().await?;
    let columns = "id int64, at timestamp(s, UTC) not null";
    let create = ["table", "create", "t", "--columns", columns, "--primary-key", "id"];
    let placed = ["--time-column", "at", "--distribute", "hash(id)", "--regions", "6"];
    cluster.run(&[&create[..], &placed].concat()).await?.ok()?;
    let empty = json(&cluster, &["table", "describe", "t"]).await?;
    check_equal("rows of the new table", number(&empty, "rows"), 0)?;
    check("no times", empty["stored"]["oldest_time"].is_null())?;

    let rows = minutes(&cluster, 60, 300)?;
    cluster.run(&["load", "t", &rows]).await?.ok()?;
    cluster.run(&["region", "flush", "--table", "t"]).await?.ok()?;
    let rows = minutes(&cluster, 10, 100)?;
    cluster.run(&["load", "t", &rows]).await?.ok()?;

    let described = json(&cluster, &["table", "describe", "t"]).await?;
    let regions = json(&cluster, &["region", "list", "--table", "t"]).await?;
    let sum = |field: &str| -> u64 {
        regions.as_array().into_iter().flatten().filter_map(|region| region[field].as_u64()).sum()
    };
    check_equal("regions", number(&described, "reported_regions"), 6)?;
    // 50 of the keys were written twice.
    check_equal("rows", number(&described, "rows"), 400)?;
    check_equal("unflushed rows", number(&described, "unflushed_rows"), 100)?;
    check_equal("exact", described["stored"]["rows_exact"].as_bool(), Some(false))?;
    for field in ["files", "bytes", "rows"] {
        check_equal(field, number(&described, field), sum(field))?;
    }
    check_equal("unflushed bytes", number(&described, "unflushed_bytes"), sum("memtable_bytes"))?;
    let times =
        (described["stored"]["oldest_time"].as_str(), described["stored"]["newest_time"].as_str());
    check_equal("times", times, (Some("2013-01-01T00:10:00Z"), Some("2013-01-01T05:59:00Z")))?;
    let text = cluster.run(&["table", "describe", "t"]).await?.ok()?.stdout;
    let line = "times        2013-01-01T00:10:00Z to 2013-01-01T05:59:00Z\n";
    check(&format!("the times are in {text}"), text.contains(line))?;
    check("the rows are in the text", text.contains("rows         400, as stored"))?;

    let frozen = cluster.owner("t").await?;
    let node = cluster.node_id(&cluster.data[frozen].spec).await?;
    let owned = |region: &&Value| region["node_id"].as_u64() == Some(node);
    let owned = regions.as_array().into_iter().flatten().filter(owned).count() as u64;
    cluster.data[frozen].signal(Signal::Stop).await?;
    // The groups elect new leaders, but not within the time limit of the command.
    let describe = ["table", "describe", "t", "--timeout", "1s"];
    let partial = json(&cluster, &describe).await?;
    check_equal("regions without a report", number(&partial, "reported_regions"), 6 - owned)?;
    let missing = partial["stored"]["unreported_regions"].as_array().cloned().unwrap_or_default();
    check_equal("missing regions", missing.len() as u64, owned)?;
    let reason = missing[0]["reason"].as_str().unwrap_or_default().to_owned();
    check(&reason, reason.starts_with(&format!("node {node} did not answer")))?;
    check("the sum is partial", number(&partial, "rows") < 400)?;
    cluster.data[frozen].signal(Signal::Continue).await?;
    cluster.wait_until_healthy().await?;
    cluster.finish().await
}
