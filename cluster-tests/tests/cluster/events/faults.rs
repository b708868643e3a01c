//! Events of faults and changes: each once, in the order of their times, with the cause.

use serde_json::Value;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE};
use tidewater_cluster_tests::s3::{Fault, Mode};
use tidewater_cluster_tests::{HarnessError, Result, wait};

use super::numbers::expect_unique_ids;
use super::table::{EventTable, id_of, now_ns, time_of};
use super::tail::Tail;
use crate::compactors::CompactionScenario;
use crate::splits::routes;
use crate::support::{SETTLED_WITHIN, data_groups, keep_routes, wait_for_level};

/// Returns the events of a type that have these values, by time.
fn events<'a>(rows: &'a [Value], event_type: &str, values: &[(&str, Value)]) -> Vec<&'a Value> {
    let has_values = |row: &&Value| {
        row["type"] == event_type && values.iter().all(|(name, value)| row[*name] == *value)
    };
    let mut events: Vec<_> = rows.iter().filter(has_values).collect();
    events.sort_by_key(|row| time_of(row));
    events
}

/// Waits for an event of a type that has these values and is not older than `since`, 0 for an event of the catalog: its
/// replicated time may be behind the clock of this machine.
async fn wait_for(
    table: &EventTable,
    event_type: &str,
    values: &[(&str, Value)],
    since: i64,
) -> Result<Value> {
    let what = format!("{event_type} with {values:?}");
    let is_wanted = |row: &Value| {
        !events(std::slice::from_ref(row), event_type, values).is_empty() && time_of(row) >= since
    };
    table.wait_for(&what, is_wanted).await
}

fn expect_once(rows: &[Value], event_type: &str, values: &[(&str, Value)]) -> Result<()> {
    let found = events(rows, event_type, values);
    if found.len() == 1 {
        return Ok(());
    }
    Err(HarnessError::violated(format!("not once {event_type} with {values:?}: {found:?}")))
}

/// Verifies that a node was down once, and up once after it.
fn expect_outage(rows: &[Value], down: &Value) -> Result<()> {
    let node = [("node_id", down["node_id"].clone())];
    expect_once(rows, "node_down", &node)?;
    let ups = events(rows, "node_up", &node);
    let later = ups.iter().filter(|row| time_of(row) > time_of(down)).count();
    if later == 1 {
        return Ok(());
    }
    Err(HarnessError::violated(format!("not up once after {down}: {ups:?}")))
}

fn expect_cause(event: &Value) -> Result<()> {
    println!("{event}");
    if event["cause"].as_str().is_some_and(|cause| !cause.is_empty()) {
        return Ok(());
    }
    Err(HarnessError::violated(format!("an event without a cause: {event}")))
}

/// Kills a meta node that does not lead, and starts it again when it is down. Returns the events of its outage.
async fn restart_meta_follower(cluster: &mut Cluster, table: &EventTable) -> Result<[Value; 2]> {
    let (leader, _) = cluster.meta_leader().await?;
    let follower = (leader + 1) % cluster.meta.len();
    let node = cluster.node_id(&cluster.meta[follower].spec).await?;
    let node = [("node_id", Value::from(node)), ("node_kind", "meta".into())];
    cluster.meta[follower].kill().await?;
    let down = wait_for(table, "node_down", &node, 0).await?;
    expect_cause(&down)?;
    cluster.meta[follower].start().await?;
    let up = wait_for(table, "node_up", &node, time_of(&down)).await?;
    cluster.wait_until_healthy().await?;
    Ok([down, up])
}

/// Splits the only route of the log table, and moves the first half to another group. Returns the events of the changes.
async fn change_routes(cluster: &Cluster, table: &EventTable) -> Result<[Value; 2]> {
    let route = routes(cluster, LOG_TABLE).await?[0].clone();
    let id = route["route_id"].to_string();
    let at = "80".to_owned() + &"00".repeat(15);
    cluster.run(&["route", "split", &id, "--at", &at]).await?.ok()?;
    let split = [("table_name", Value::from(LOG_TABLE)), ("region_id", route["route_id"].clone())];
    let split = wait_for(table, "route_split", &split, 0).await?;
    let first = routes(cluster, LOG_TABLE).await?[0].clone();
    let (from, region) = (first["group_id"].clone(), first["route_id"].clone());
    let groups = data_groups(cluster).await?;
    let to = groups.iter().map(|group| &group["group_id"]).find(|group| **group != from);
    let to = to.ok_or_else(|| HarnessError::violated("there is one group"))?;
    cluster.run(&["route", "move", &region.to_string(), "--to", &to.to_string()]).await?.ok()?;
    let moved = [("region_id", region), ("group_id", to.clone()), ("former_group_id", from)];
    let moved = wait_for(table, "route_moved", &moved, 0).await?;
    Ok([split, moved])
}

/// Verifies that the procedure of an event began and ended once.
fn expect_procedure(rows: &[Value], change: &Value) -> Result<()> {
    let id = ("procedure_id", change["procedure_id"].clone());
    expect_once(rows, "procedure_begun", std::slice::from_ref(&id))?;
    expect_once(rows, "procedure_ended", &[id, ("outcome", "completed".into())])
}

/// Verifies that `event list` shows the events of the table that are not newer than the last one, by time.
async fn expect_listed(cluster: &Cluster, rows: &[Value]) -> Result<()> {
    let list = ["event", "list", "--limit", "100000", "--output", "json"];
    let listed = cluster.run(&list).await?.ok()?.json()?;
    let listed = listed.as_array().cloned().unwrap_or_default();
    let ids: Vec<String> = listed.iter().map(id_of).collect();
    let mut expected: Vec<&Value> = rows.iter().collect();
    expected.sort_by_key(|row| (time_of(row), id_of(row)));
    let expected: Vec<String> = expected.into_iter().map(id_of).collect();
    // Later events may have been added.
    let mut listed = ids.iter().filter(|id| expected.contains(id));
    if expected.iter().all(|id| listed.next() == Some(id)) {
        return Ok(());
    }
    Err(HarnessError::violated(format!("event list has {ids:?}, expected {expected:?}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_report_each_fault_once_in_order() -> Result<()> {
    let mut cluster = ClusterPlan::default().events().start().await?;
    wait_for_level(&cluster).await?;
    keep_routes(&cluster).await?;
    cluster.create_log_table().await?;
    let table = EventTable::connect(&cluster).await?;
    let created = [("call", Value::from("CreateTable")), ("subject", LOG_TABLE.into())];
    let created = wait_for(&table, "admin_call", &created, 0).await?;
    let tail = Tail::start(&cluster, &table)?;
    tail.wait_until_following(&cluster).await?;

    let owner = cluster.owner(LOG_TABLE).await?;
    let group = cluster.region(LOG_TABLE).await?.group_id;
    let node = cluster.node_id(&cluster.data[owner].spec).await?;
    let since = now_ns();
    cluster.data[owner].kill().await?;
    let led = [("group_id", Value::from(group))];
    let led = wait_for(&table, "leader_changed", &led, since).await?;
    assert_ne!(led["node_id"], node, "{led}");
    expect_cause(&led)?;
    let down = [("node_id", Value::from(node)), ("node_kind", "data".into())];
    let down = wait_for(&table, "node_down", &down, 0).await?;
    expect_cause(&down)?;
    cluster.data[owner].start().await?;
    let up = [("node_id", Value::from(node)), ("node_kind", "data".into())];
    let up = wait_for(&table, "node_up", &up, time_of(&down)).await?;
    cluster.wait_until_healthy().await?;
    let [meta_down, meta_up] = restart_meta_follower(&mut cluster, &table).await?;
    let [split, moved] = change_routes(&cluster, &table).await?;

    let rows = wait_for_end_of(&table, &moved).await?;
    expect_unique_ids(&rows)?;
    for down in [&down, &meta_down] {
        expect_outage(&rows, down)?;
    }
    for change in events(&rows, "leader_changed", &[]) {
        let term = ["group_id", "term"].map(|name| (name, change[name].clone()));
        expect_once(&rows, "leader_changed", &term)?;
    }
    for change in [&split, &moved] {
        expect_procedure(&rows, change)?;
        let id = [("procedure_id", change["procedure_id"].clone())];
        expect_once(&rows, change["type"].as_str().unwrap_or_default(), &id)?;
    }
    let order = [&created, &down, &up, &meta_down, &meta_up, &split, &moved].map(time_of);
    assert!(order.is_sorted(), "{order:?}");
    expect_listed(&cluster, &rows).await?;
    tail.verify(&led, &moved).await?;
    cluster.finish().await
}

/// Waits until the procedure of a change has ended, and returns all rows.
async fn wait_for_end_of(table: &EventTable, change: &Value) -> Result<Vec<Value>> {
    let id = [("procedure_id", change["procedure_id"].clone())];
    wait_for(table, "procedure_ended", &id, 0).await?;
    table.rows().await.map_err(HarnessError::violated)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_report_quarantine_and_suspended_hook_once() -> Result<()> {
    let plan = ClusterPlan::default().nodes(1, 1, 2).events();
    let plan = plan.env("TIDEWATER_COMPACTION_PATIENCE", "3s");
    let scenario = CompactionScenario::start_with(plan).await?;
    let cluster = &scenario.cluster;
    let table = EventTable::connect(cluster).await?;
    let node = cluster.node_id(&cluster.data[0].spec).await?;
    let region = Value::from(cluster.region(LOG_TABLE).await?.region_id);
    let place = [("node_id", node.into()), ("region_id", region)];

    // Every attempt stalls.
    scenario.s3().inject(Fault::new(Mode::Hold).on_puts().on_path("data")).await?;
    let failed = scenario.compact(&["--remote"]).await?;
    assert_ne!(failed.status, Some(0), "{failed:?}");
    scenario.s3().heal().await?;
    let quarantined = wait_for(&table, "compaction_quarantined", &place, 0).await?;
    assert_eq!(quarantined["attempts"], 3, "{quarantined}");
    expect_cause(&quarantined)?;

    let path = cluster.hook_directory().join("audit.jsonl");
    let config = format!(r#"{{"path":"{}"}}"#, path.display());
    let add = ["hook", "add", "audit", "--kind", "jsonl", "--config", &config];
    cluster.run(&[&add[..], &["--table", LOG_TABLE]].concat()).await?.ok()?;
    // Each call fails, and each flush makes two.
    std::fs::create_dir(&path).map_err(HarnessError::io("create a directory"))?;
    scenario.flush(3).await?;
    wait::until("the hook is suspended", SETTLED_WITHIN, || async {
        let hooks = cluster.run(&["hook", "list", "--output", "json"]).await;
        let hooks = hooks.and_then(|output| output.json()).map_err(|error| error.to_string())?;
        if hooks[0]["state"] == "suspended" { Ok(()) } else { Err(hooks.to_string()) }
    })
    .await?;
    let suspended = [&place[..], &[("hook", "audit".into())]].concat();
    let suspended = wait_for(&table, "hook_suspended", &suspended, 0).await?;
    expect_cause(&suspended)?;

    let rows = table.rows().await.map_err(HarnessError::violated)?;
    expect_once(&rows, "compaction_quarantined", &[])?;
    expect_once(&rows, "hook_suspended", &[])?;
    assert!(time_of(&quarantined) < time_of(&suspended));
    expect_unique_ids(&rows)?;
    scenario.conclude().await
}
