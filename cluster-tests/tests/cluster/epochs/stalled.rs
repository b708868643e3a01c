//! Epochs of tables while some groups have no quorum.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use parking_lot::Mutex;
use serde_json::Value;
use tidewater_client::{Client, ScanSpec};
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::node::Signal;
use tidewater_cluster_tests::workload::options;
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tidewater_common::ids::Epoch;

use super::failed;
use crate::support::{SETTLED_WITHIN, keep_routes, wait_for_level};

const DATA_NODES: u32 = 5;
/// Tables of one region each, in different groups.
const TABLES: usize = 10;

fn name(number: usize) -> String {
    format!("t{number}")
}

/// Returns the members of each group.
async fn members(cluster: &Cluster) -> Result<BTreeMap<u64, BTreeSet<u64>>> {
    let groups = cluster.run(&["group", "list", "--output", "json"]).await?.ok()?.json()?;
    let members = |group: &Value| {
        let voters = group["voters"].as_array().into_iter().flatten();
        Some((group["group_id"].as_u64()?, voters.filter_map(Value::as_u64).collect()))
    };
    Ok(groups.as_array().into_iter().flatten().filter_map(members).collect())
}

async fn group_of(cluster: &Cluster, table: &str) -> Result<u64> {
    let list = ["route", "list", "--table", table, "--output", "json"];
    let routes = cluster.run(&list).await?.ok()?.json()?;
    routes[0]["group_id"].as_u64().ok_or_else(|| HarnessError::violated(routes.to_string()))
}

/// Returns the positions of the nodes with these ids.
async fn positions(cluster: &Cluster, ids: &[u64]) -> Result<Vec<usize>> {
    let mut positions = Vec::new();
    for (position, node) in cluster.data.iter().enumerate() {
        if ids.contains(&cluster.node_id(&node.spec).await?) {
            positions.push(position);
        }
    }
    Ok(positions)
}

/// Writes one row to each table.
async fn write(cluster: &Cluster, tables: &[String], id: u64) -> Result<()> {
    let file = cluster.directory().join("row.csv");
    fs::write(&file, format!("id\n{id}\n")).map_err(HarnessError::io("write a file"))?;
    let file = file.display().to_string();
    for table in tables {
        cluster.run(&["load", table, &file]).await?.ok()?;
    }
    Ok(())
}

/// Waits until a table has completed its present epoch, and returns the newest complete one.
async fn complete_epoch(client: &Client, table: &str) -> Result<Epoch> {
    let present = Mutex::new(None);
    wait::until(&format!("{table} completes its present epoch"), SETTLED_WITHIN, || async {
        let epochs = client.table_epochs(table).await.map_err(|error| error.to_string())?;
        let present = *present.lock().get_or_insert(epochs.upper);
        epochs.newest().filter(|newest| *newest >= present).ok_or_else(|| format!("{epochs:?}"))
    })
    .await
}

/// A row before a barrier is visible as of it, and a row after it is not.
async fn barrier_divides_rows(cluster: &Cluster, client: &Client, tables: &[String]) -> Result<()> {
    write(cluster, tables, 1).await?;
    let mut epochs = Vec::new();
    for table in tables {
        epochs.push(complete_epoch(client, table).await?);
    }
    write(cluster, tables, 2).await?;
    for (table, epoch) in tables.iter().zip(epochs) {
        let as_of = |epoch| ScanSpec { as_of: Some(epoch), ..ScanSpec::all(table) };
        let before = client.count(as_of(epoch)).await.map_err(failed)?;
        let later = complete_epoch(client, table).await?;
        let after = client.count(as_of(later)).await.map_err(failed)?;
        if (before, after) != (1, 2) {
            let text = format!("{table} has {before} rows as of {epoch}, {after} as of {later}");
            return Err(HarnessError::violated(text));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_groups_hold_back_their_own_tables_only() -> Result<()> {
    let plan = ClusterPlan::default().nodes(1, DATA_NODES, 0).env("TIDEWATER_HISTORY", "10m");
    let cluster = plan.start().await?;
    wait_for_level(&cluster).await?;
    keep_routes(&cluster).await?;
    let tables: Vec<String> = (0..TABLES).map(name).collect();
    for table in &tables {
        let create = ["table", "create", table, "--columns", "id int64", "--primary-key", "id"];
        cluster.run(&[&create[..], &["--regions", "1"]].concat()).await?.ok()?;
    }
    let client = Client::connect(options(&cluster)).await.map_err(failed)?;
    barrier_divides_rows(&cluster, &client, &tables).await?;

    let members = members(&cluster).await?;
    let mut groups = BTreeMap::new();
    for table in &tables {
        groups.insert(table.clone(), group_of(&cluster, table).await?);
    }
    let lost: Vec<u64> = members[&groups[&tables[0]]].iter().copied().take(2).collect();
    let frozen = positions(&cluster, &lost).await?;
    // Groups that keep their quorum and their leader: calls to a frozen leader take long, and prove nothing.
    let mut others = Vec::new();
    for table in &tables {
        let is_stalled = lost.iter().all(|node| members[&groups[table]].contains(node));
        if !is_stalled && !frozen.contains(&cluster.owner(table).await?) {
            others.push(table);
        }
    }
    println!(
        "nodes {lost:?} are frozen; others: {others:?} of {groups:?}, whose members are {members:?}"
    );
    if others.is_empty() {
        return Err(HarnessError::violated("each table has a frozen leader"));
    }
    for node in &frozen {
        cluster.data[*node].signal(Signal::Stop).await?;
    }
    for table in &others {
        complete_epoch(&client, table).await?;
    }
    for node in &frozen {
        cluster.data[*node].signal(Signal::Continue).await?;
    }
    for table in tables.iter() {
        complete_epoch(&client, table).await?;
    }
    cluster.wait_until_healthy().await?;
    cluster.finish().await
}
