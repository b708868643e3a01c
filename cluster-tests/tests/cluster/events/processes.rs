//! Events of a standalone process, which writes them to a file, and of compactors.

use std::path::Path;

use serde_json::Value;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::{HarnessError, Result, wait};

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
    // A refused call is an event, too: the client repeats it while the first group of the cluster is created.
    let calls = lines.iter().filter(|row| row["type"] == "admin_call");
    let calls = calls.filter(|row| row["outcome"] == "completed");
    let calls: Vec<_> = calls.map(|row| [&row["call"], &row["subject"]]).collect();
    assert_eq!(calls, [["CreateTable", "t"], ["DropTable", "t"]]);
    let leads = lines.iter().any(|row| row["type"] == "leader_changed" && row["group_id"] == 0);
    assert!(leads, "{lines:?}");
    let nodes = ["node_up", "node_down"].map(|event_type| count(&lines, event_type, is_data));
    assert_eq!(nodes, [2, 1], "{lines:?}");
    standalone.cluster.finish().await
}

/// Restarts the compactors without recorders.
async fn stop_recording(cluster: &mut Cluster) -> Result<()> {
    for compactor in &mut cluster.compactors {
        compactor.terminate().await?;
        compactor.spec.env.retain(|(name, _)| !name.starts_with("TIDEWATER_EVENT"));
        compactor.start().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_compactions_of_compactors_are_recorded_once() -> Result<()> {
    let plan = ClusterPlan::default().nodes(1, 1, 2).events();
    let plan = plan.env("TIDEWATER_SLOW_OPERATION", "1ms");
    let mut scenario = CompactionScenario::start_with(plan).await?;
    let table = EventTable::connect(&scenario.cluster).await?;
    let region: Option<u64> = scenario.region.parse().ok();
    let is_of_compactor = |row: &Value| {
        row["type"] == "slow_operation"
            && row["node_kind"] == "compactor"
            && row["region_id"].as_u64() == region
    };
    let expect_recorded = async |node: &Value| {
        let is_wanted = |row: &Value| is_of_compactor(row) && row["node_id"] == *node;
        let slow = table.wait_for("the compaction", is_wanted).await?;
        assert_eq!(slow["operation"], "compaction", "{slow}");
        assert_eq!(slow["limit_ms"], 1, "{slow}");
        assert!(slow["duration_ms"].as_u64() >= Some(1), "{slow}");
        Ok::<_, HarnessError>(())
    };
    let report = scenario.compact(&["--remote"]).await?.ok()?.json()?;
    expect_recorded(&report["node_id"]).await?;

    // The data node records its jobs.
    stop_recording(&mut scenario.cluster).await?;
    scenario.flush(2).await?;
    let later = wait::until("a restarted compactor compacts", SETTLED_WITHIN, || async {
        let compacted = scenario.compact(&["--remote"]).await;
        let compacted = compacted.and_then(|output| output.ok()?.json());
        compacted.map_err(|error| error.to_string())
    })
    .await?;
    assert_ne!(later["node_id"], report["node_id"], "a restarted compactor is another node");
    expect_recorded(&later["node_id"]).await?;
    let rows = table.rows().await.map_err(HarnessError::violated)?;
    let recorded = rows.iter().filter(|row| is_of_compactor(row)).count();
    assert_eq!(recorded, 2, "{rows:?}");
    scenario.conclude().await
}
