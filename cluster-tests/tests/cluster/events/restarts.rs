//! Events of data nodes that were restarted, as `event list` shows them.

use serde_json::Value;
use tidewater_cluster_tests::cluster::Cluster;
use tidewater_cluster_tests::{HarnessError, Result, wait};

use super::numbers::expect_unique_ids;
use super::table::{EventTable, WRITTEN_WITHIN};

/// Waits until `event list` shows each data node as down and up at least as often as it was restarted, by position. Verifies
/// that the table has no event twice.
pub(crate) async fn expect_restarts(cluster: &Cluster, restarts: &[usize]) -> Result<()> {
    let mut expected = Vec::new();
    for (node, restarts) in cluster.data.iter().zip(restarts) {
        expected.push((cluster.node_id(&node.spec).await?, *restarts));
    }
    let counted = wait::until("event list shows each restart", WRITTEN_WITHIN, || async {
        let listed = node_events(cluster).await.map_err(|error| error.to_string())?;
        let types = ["node_down", "node_up"];
        let count = |node: u64| types.map(|event_type| count(&listed, event_type, node));
        let counted: Vec<_> =
            expected.iter().map(|(node, restarts)| (*node, *restarts, count(*node))).collect();
        let are_complete =
            counted.iter().all(|(_, restarts, counts)| counts.iter().all(|n| n >= restarts));
        if are_complete { Ok(counted) } else { Err(format!("{counted:?}")) }
    })
    .await?;
    let rows = EventTable::connect(cluster).await?.rows().await.map_err(HarnessError::violated)?;
    println!("{} events; node, restarts, down and up: {counted:?}", rows.len());
    expect_unique_ids(&rows)
}

async fn node_events(cluster: &Cluster) -> Result<Vec<Value>> {
    let list = ["event", "list", "--since", "240h", "--limit", "100000"];
    let nodes = ["--type", "node_down,node_up", "--output", "json"];
    let listed = cluster.run(&[&list[..], &nodes].concat()).await?.ok()?.json()?;
    Ok(listed.as_array().cloned().unwrap_or_default())
}

fn count(listed: &[Value], event_type: &str, node: u64) -> usize {
    listed.iter().filter(|row| row["type"] == event_type && row["node_id"] == node).count()
}
