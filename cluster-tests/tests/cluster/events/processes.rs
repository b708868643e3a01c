//! Events of a standalone process, which writes them to a file, and of a compactor.

use std::path::Path;

use serde_json::Value;
use tidewater_cluster_tests::cluster::ClusterPlan;
use tidewater_cluster_tests::{Result, wait};

use super::numbers::expect_unique_ids;
use super::table::EventTable;
use crate::commands::standalone::Standalone;
use crate::compactors::CompactionScenario;
use crate::support::SETTLED_WITHIN;

/// Returns the complete lines of a file; none if it does not exist.
fn complete_lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
    complete.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// Number of lines of a type with a value.
fn count(lines: &[Value], event_type: &str, (column, value): (&str, &str)) -> usize {
    lines.iter().filter(|row| row["type"] == event_type && row[column] == value).count()
}

/// Waits until the file has a number of such lines.
async fn wait_for(path: &Path, event_type: &str, value: (&str, &str), number: usize) -> Result<()> {
    wait::until(&format!("{number} lines {event_type}, {value:?}"), SETTLED_WITHIN, || async {
        let lines = complete_lines(path);
        let found = count(&lines, event_type, value);
        if found >= number { Ok(()) } else { Err(format!("{found} of {lines:?}")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standalone_process_writes_events_to_its_file() -> Result<()> {
    let mut standalone = Standalone::start_with(&["--events", "jsonl"]).await?;
    let path = standalone.cluster.directory().join("standalone/events/events.jsonl");
    let is_data = ("node_kind", "data");
    wait_for(&path, "node_up", is_data, 1).await?;
    let create = ["table", "create", "t", "--columns", "id int64", "--primary-key", "id"];
    standalone.run(&create).await?.ok()?;
    standalone.node.terminate().await?;
    let before = complete_lines(&path);

    standalone.node.start().await?;
    wait_for(&path, "node_up", is_data, 2).await?;
    standalone.run(&["table", "drop", "t"]).await?.ok()?;
    wait_for(&path, "admin_call", ("call", "DropTable"), 1).await?;
    standalone.node.terminate().await?;
    let lines = complete_lines(&path);
    assert!(lines.starts_with(&before), "{before:?} is not the begin of {lines:?}");
    expect_unique_ids(&lines)?;
    let calls = lines.iter().filter(|row| row["type"] == "admin_call");
    let calls: Vec<_> = calls.map(|row| [&row["call"], &row["subject"], &row["outcome"]]).collect();
    assert_eq!(calls, [["CreateTable", "t", "completed"], ["DropTable", "t", "completed"]]);
    let leads = lines.iter().any(|row| row["type"] == "leader_changed" && row["group_id"] == 0);
    assert!(leads, "{lines:?}");
    let nodes = ["node_up", "node_down"].map(|event_type| count(&lines, event_type, is_data));
    assert_eq!(nodes, [2, 1], "{lines:?}");
    standalone.cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compactor_records_slow_compactions() -> Result<()> {
    let plan = ClusterPlan::default().nodes(1, 1, 2).events();
    let plan = plan.env("TIDEWATER_SLOW_OPERATION", "1ms");
    let scenario = CompactionScenario::start_with(plan).await?;
    let table = EventTable::connect(&scenario.cluster).await?;
    let report = scenario.compact(&["--remote"]).await?.ok()?.json()?;
    let node = &report["node_id"];
    let is_of_compactor = |row: &Value| {
        row["type"] == "slow_operation"
            && row["node_kind"] == "compactor"
            && row["region_id"].as_u64() == scenario.region.parse().ok()
    };
    let slow = table.wait_for("the compaction", is_of_compactor).await?;
    assert_eq!((&slow["node_id"], &slow["operation"]), (node, &"compaction".into()), "{slow}");
    assert_eq!(slow["limit_ms"], 1, "{slow}");
    assert!(slow["duration_ms"].as_u64() >= Some(1), "{slow}");
    scenario.conclude().await
}
