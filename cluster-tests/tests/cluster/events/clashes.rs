//! A type of events with a column whose data type differs from that of the table, and a table with another key.

use std::time::Duration;

use serde_json::{Value, json};
use tidewater_cluster_tests::cluster::{ClusterPlan, LOG_TABLE};
use tidewater_cluster_tests::node::Node;
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tidewater_common::clock::{Clock, SystemClock};

use super::recorder::Recorder;
use super::spool::spool_of;
use super::table::{EVENTS, EventTable};
use crate::splits::routes;
use crate::support::{SETTLED_WITHIN, keep_routes, wait_for_kind, wait_for_level};

/// Time for which a table takes no events before it is a problem.
const NOT_WRITTEN: Duration = Duration::from_secs(2 * 60);

/// Limit for the problem to be reported, and to be over: a batch whose retries have failed pauses for 30 s.
const REPORTED_WITHIN: Duration = Duration::from_secs(2 * 60);

/// Column of events of splits and merges only.
const COLUMN: &str = "second_region_id";

/// Returns the lines of a node's file of events that were set aside; none if it does not exist.
fn set_aside(node: &Node) -> Result<Vec<Value>> {
    let path = spool_of(node).join("set-aside.jsonl");
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read.map_err(HarnessError::io(format!("read {}", path.display())))?,
    };
    let lines = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>();
    lines.map_err(|error| HarnessError::violated(format!("{}: {error}", path.display())))
}

// V3.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_a_clashing_type_are_set_aside() -> Result<()> {
    let cluster = ClusterPlan::default().nodes(1, 1, 0).events().start().await?;
    wait_for_level(&cluster).await?;
    keep_routes(&cluster).await?;
    cluster.create_log_table().await?;
    let table = EventTable::connect(&cluster).await?;
    table.wait_for("a first event", |_| true).await?;
    let column = format!("{COLUMN} utf8");
    cluster.run(&["table", "alter", EVENTS, "--add-column", &column]).await?.ok()?;

    let route = routes(&cluster, LOG_TABLE).await?[0]["route_id"].to_string();
    let at = "80".to_owned() + &"00".repeat(15);
    cluster.run(&["route", "split", &route, "--at", &at]).await?.ok()?;
    let line = wait::until("the event of the split is set aside", SETTLED_WITHIN, || async {
        let lines = set_aside(&cluster.meta[0]).map_err(|error| error.to_string())?;
        let found = lines.iter().find(|line| line["event"]["type"] == "route_split").cloned();
        found.ok_or_else(|| format!("{lines:?}"))
    })
    .await?;
    println!("{line}");
    assert_eq!(line["table"], EVENTS);
    assert_eq!(line["event"]["table_name"], LOG_TABLE);
    assert_eq!(line["event"]["region_id"].to_string(), route);
    let reason = line["reason"].as_str().unwrap_or_default();
    let is_clear =
        ["extra columns differ", COLUMN, "uint64"].iter().all(|word| reason.contains(word));
    assert!(is_clear, "{reason}");

    // Events of other types are written, before and after it.
    let is_end = |row: &Value| row["type"] == "procedure_ended" && row["table_name"] == LOG_TABLE;
    table.wait_for("the end of the split", is_end).await?;
    let mut recorder = Recorder::start(&cluster, &cluster.directory().join("recorder"))?;
    recorder.record(&json!({ "type": "later", "payload": 1 })).await?;
    table.wait_for("a later event", |row| row["type"] == "later").await?;
    recorder.end().await?;
    let rows = table.rows().await.map_err(HarnessError::violated)?;
    assert!(rows.iter().all(|row| row["type"] != "route_split"), "the event was written as well");
    let lines = set_aside(&cluster.meta[0])?;
    assert!(lines.iter().all(|line| line["event"]["type"] == "route_split"), "{lines:?}");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn table_with_another_key_is_a_problem() -> Result<()> {
    let mut cluster = ClusterPlan::default().nodes(1, 1, 0).start().await?;
    wait_for_level(&cluster).await?;
    let create = ["table", "create", EVENTS, "--columns", "id int64", "--primary-key", "id"];
    cluster.run(&create).await?.ok()?;
    cluster.meta[0].terminate().await?;
    cluster.meta[0].spec.env.push(("TIDEWATER_EVENTS".to_owned(), "table".to_owned()));
    cluster.meta[0].start().await?;
    cluster.wait_until_healthy().await?;
    // An administrative call, which is an event of the meta node.
    keep_routes(&cluster).await?;
    wait::until("the problem is reported", NOT_WRITTEN + REPORTED_WITHIN, || async {
        let status =
            cluster.run(&["cluster", "status"]).await.map_err(|error| error.to_string())?;
        let is_reported = status.stdout.contains("events_not_recorded");
        if is_reported { Ok(()) } else { Err(status.stdout) }
    })
    .await?;
    let is_of_key = |problem: &Value| {
        problem["node_id"] == 1 && problem["detail"].to_string().contains("its key is (id)")
    };
    let problem = wait_for_kind(&cluster, "events_not_recorded", is_of_key).await?;
    println!("{problem}");
    let since_ms = problem["since_ms"].as_u64().unwrap_or_default();
    let age = Duration::from_millis(SystemClock.now_ms().saturating_sub(since_ms));
    // Replicated time may differ a little from this machine's clock.
    assert!(age + Duration::from_secs(2) >= NOT_WRITTEN, "it was reported after {age:?}");

    // The events have waited in the spool.
    cluster.run(&["table", "drop", EVENTS]).await?.ok()?;
    cluster.wait_until_healthy_within(REPORTED_WITHIN).await?;
    let table = EventTable::connect(&cluster).await?;
    table.wait_for("the administrative call", |row| row["type"] == "admin_call").await?;
    cluster.finish().await
}
