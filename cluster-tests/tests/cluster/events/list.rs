//! Options of `event list`.

use std::time::Duration;

use serde_json::{Value, json};
use tidewater_cluster_tests::clock::WallClock;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE};
use tidewater_cluster_tests::command::{CommandOutput, run};
use tidewater_cluster_tests::{Result, binary};

use super::recorder::Recorder;
use super::table::{EventTable, id_of, now_ns};
use crate::support::wait_for_level;

/// Types of the events, and the minutes for which they are old. Their payloads are the numbers 1 to 5.
const EVENTS: [(&str, u64); 5] = [
    ("door_opened", 300),
    ("door_closed", 200),
    ("window_opened", 100),
    ("door_opened", 30),
    ("door_closed", 10),
];

/// Choice of these events only, of any time.
const OWN: [&str; 4] = ["--type", "door_*,window_*", "--since", "1d"];

/// Records the events, and waits until the table has them.
async fn record(cluster: &Cluster) -> Result<()> {
    let table = EventTable::connect(cluster).await?;
    let mut recorder = Recorder::start(cluster, &cluster.directory().join("recorder"))?;
    for (nth, (event_type, minutes)) in (1..).zip(EVENTS) {
        let ago = i64::try_from(Duration::from_secs(60 * minutes).as_nanos()).unwrap_or(i64::MAX);
        let timestamp_ns = now_ns() - ago;
        let payload = json!({ "nth": nth });
        let event = json!({ "type": event_type, "timestamp_ns": timestamp_ns, "payload": payload });
        recorder.record(&event).await?;
        table.wait_for("the event", |row| row["payload"]["nth"] == nth).await?;
    }
    recorder.end().await.map(drop)
}

async fn list(cluster: &Cluster, options: &[&str]) -> Result<CommandOutput> {
    cluster.run(&[&["event", "list"][..], options].concat()).await
}

/// Returns the events of a list in JSON.
fn listed(output: &CommandOutput) -> Result<Vec<Value>> {
    Ok(output.json()?.as_array().cloned().unwrap_or_default())
}

/// Returns the events that are listed with these options.
async fn events(cluster: &Cluster, options: &[&str]) -> Result<Vec<Value>> {
    let options = [options, &["--output", "json"]].concat();
    listed(&list(cluster, &options).await?.ok()?)
}

/// Returns the numbers of the events, without those of nodes, in the order of the list.
fn numbers(events: &[Value]) -> Vec<u64> {
    events.iter().filter_map(|event| event["payload"]["nth"].as_u64()).collect()
}

async fn expect_choices(cluster: &Cluster) -> Result<()> {
    let own = events(cluster, &OWN).await?;
    assert_eq!(numbers(&own), [1, 2, 3, 4, 5], "{own:?}");
    let third = own[2]["timestamp"].as_str().unwrap_or_default();
    let before_third = format!("timestamp < \"{third}\"");
    let types = OWN[1];
    let cases: [(&[&str], &[u64]); 16] = [
        (&["--type", types], &[4, 5]),
        (&["--type", types, "--since", "2h"], &[3, 4, 5]),
        (&["--type", types, "--since", "15m"], &[5]),
        (&["--type", types, "--since", "1m"], &[]),
        (&["--type", types, "--since", third], &[3, 4, 5]),
        (&["--type", types, "--since", "1d", "--until", third], &[1, 2]),
        (&["--type", types, "--since", "4h", "--until", "20m"], &[2, 3, 4]),
        (&["--since", "1d", "--type", "door_opened"], &[1, 4]),
        (&["--since", "1d", "--type", "door_opened,window_opened"], &[1, 3, 4]),
        (&["--since", "1d", "--type", "door_*"], &[1, 2, 4, 5]),
        (&["--since", "1d", "--type", "!door_closed"], &[1, 3, 4]),
        (&["--since", "1d", "--type", "!door_closed,door_*"], &[1, 3, 4]),
        (&["--since", "1d", "--where", "type = 'door_closed'"], &[2, 5]),
        (&["--since", "1d", "--where", &before_third], &[1, 2]),
        (&["--since", "1d", "--table", "events", "--type", "window_opened"], &[3]),
        (&["--since", "1d", "--type", "door_*", "--where", "type != 'door_closed'"], &[1, 4]),
    ];
    for (options, expected) in cases {
        let found = events(cluster, options).await?;
        assert_eq!(numbers(&found), expected, "{options:?}");
    }
    let nodes = events(cluster, &["--type", "!door_*,!window_*"]).await?;
    assert!(!nodes.is_empty() && numbers(&nodes).is_empty(), "{nodes:?}");
    Ok(())
}

async fn expect_limits(cluster: &Cluster) -> Result<()> {
    let note = "the newest 2 of 5 events; --limit lists more\n";
    let cases: [(&str, &[u64], &str); 3] =
        [("2", &[4, 5], note), ("5", &[1, 2, 3, 4, 5], ""), ("100000", &[1, 2, 3, 4, 5], "")];
    for (limit, expected, note) in cases {
        let options = [&OWN[..], &["--limit", limit, "--output", "json"]].concat();
        let output = list(cluster, &options).await?.ok()?;
        assert_eq!(numbers(&listed(&output)?), expected, "{limit}");
        assert_eq!(output.stderr, note, "{limit}");
    }
    Ok(())
}

async fn expect_output(cluster: &Cluster) -> Result<()> {
    let own = events(cluster, &OWN).await?;
    for event in &own {
        assert_eq!(id_of(event).len(), 32, "{event}");
        assert!(event["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{event}");
    }
    let text = list(cluster, &OWN).await?.ok()?.stdout;
    let lines: Vec<&str> = text.lines().collect();
    let headings: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(headings, ["TIME", "TYPE", "DETAILS"], "{text}");
    assert_eq!(lines.len(), 1 + own.len(), "{text}");
    for (line, event) in lines[1..].iter().zip(&own) {
        let [time, event_type] = ["timestamp", "type"].map(|name| event[name].as_str());
        let payload = format!("payload={}", event["payload"]);
        let cells: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(cells, [time.unwrap_or(""), event_type.unwrap_or(""), &payload], "{text}");
    }
    Ok(())
}

async fn expect_errors(cluster: &Cluster) -> Result<()> {
    let cases: [(&[&str], i32, &str); 13] = [
        (&["--type", "Door"], 2, "is not a filter of event types"),
        (&["--since", "soon"], 2, "`soon` is no time"),
        (&["--until", "yesterday"], 2, "`yesterday` is no time"),
        (&["--since", "1h", "--until", "2h"], 2, "--until is not after --since"),
        (&["--limit", "0"], 2, "--limit"),
        (&["--limit", "100001"], 2, "--limit"),
        (&["--limit", "many"], 2, "--limit"),
        (&["--output", "xml"], 2, "--output"),
        (&["--where", "type ="], 2, "--where: "),
        (&["--where", "timestamp > 'noon'"], 2, "--where: "),
        (&["--where", "colour = 1"], 3, "there is no column \"colour\""),
        (&["--table", "nothing"], 3, "there is no table \"nothing\""),
        (&["--table", LOG_TABLE], 2, "is no table of events: it has no column id"),
    ];
    for (options, status, words) in cases {
        let output = list(cluster, options).await?.status(status)?.expect_stderr(&[words])?;
        assert_eq!(output.stdout, "", "{options:?}");
    }
    Ok(())
}

/// Lists the last 20 minutes on a machine whose clock is an hour ahead.
async fn expect_time_of_the_cluster(cluster: &Cluster) -> Result<()> {
    let clock = WallClock::create(cluster.directory(), "command")?;
    clock.set("+3600")?;
    let mut spec = cluster.meta[0].spec.clone();
    spec.env.clear();
    clock.attach(&mut spec);
    let meta = cluster.meta_addresses().join(",");
    let list = ["event", "list", "--since", "20m", "--type", "door_*", "--output", "json"];
    let arguments = [&list[..], &["--meta", &meta]].concat();
    let output = run(&binary::tidewater()?, &arguments, &spec.env).await?.ok()?;
    assert_eq!(numbers(&listed(&output)?), [5], "{output:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn list_has_the_chosen_events() -> Result<()> {
    let cluster = ClusterPlan::default().nodes(1, 1, 0).events().start().await?;
    wait_for_level(&cluster).await?;
    cluster.create_log_table().await?;
    record(&cluster).await?;
    expect_choices(&cluster).await?;
    expect_limits(&cluster).await?;
    expect_output(&cluster).await?;
    expect_errors(&cluster).await?;
    expect_time_of_the_cluster(&cluster).await?;
    cluster.finish().await
}
