//! Data nodes that join and get their share of groups, leaders and routes, under load, and that leave again.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tidewater_cluster_tests::cluster::{Cluster, LOG_TABLE};
use tidewater_cluster_tests::metrics::Metrics;
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tokio::time::{Instant, sleep};

use crate::reader::Reader;
use crate::support::{SETTLED_WITHIN, conclude, data_groups, start_with_groups, wait_for_groups};

/// Regions of the test table: a few for each group.
const REGIONS: u32 = 20;
/// Limit for a changed cluster to be balanced: the balance begins after 30 s without a registration.
const BALANCED_WITHIN: Duration = Duration::from_secs(240);
/// The busiest node may carry this multiple of the mean.
const MAX_SHARE: f64 = 1.25;

/// Returns the id of a data node by its position in the cluster.
pub(crate) async fn node_id(cluster: &Cluster, position: usize) -> Result<u64> {
    let nodes = cluster.run(&["node", "list", "--output", "json"]).await?.ok()?.json()?;
    let address = cluster.data[position].spec.listen.to_string();
    let is_node = |node: &&Value| {
        let is_data = node["role"] == "data" && node["state"] != "removed";
        is_data && node["address"] == address.as_str()
    };
    let found = nodes.as_array().into_iter().flatten().find(is_node);
    let id = found.and_then(|node| node["node_id"].as_u64());
    id.ok_or_else(|| HarnessError::violated(format!("{address} in {nodes}")))
}

/// Groups and regions that each node leads.
#[derive(Debug, Default)]
struct Shares {
    leaders: BTreeMap<u64, usize>,
    regions: BTreeMap<u64, usize>,
}

impl Shares {
    /// Shares of the nodes with these positions.
    async fn of(cluster: &Cluster, positions: &[usize]) -> Result<Self> {
        let mut shares = Self::default();
        for position in positions {
            let node = node_id(cluster, *position).await?;
            shares.leaders.insert(node, 0);
            shares.regions.insert(node, 0);
        }
        let catalog = cluster.catalog().await?;
        for group in catalog.groups.iter().filter(|group| group.leader != 0) {
            let regions = catalog.routes.iter().filter(|route| route.group_id == group.group_id);
            *shares.leaders.entry(group.leader).or_default() += 1;
            *shares.regions.entry(group.leader).or_default() += regions.count();
        }
        Ok(shares)
    }

    fn are_even(&self) -> bool {
        busiest(&self.leaders) <= MAX_SHARE && busiest(&self.regions) <= MAX_SHARE
    }
}

/// Greatest share as a multiple of the mean.
fn busiest(shares: &BTreeMap<u64, usize>) -> f64 {
    let total: usize = shares.values().sum();
    let most = shares.values().max().copied().unwrap_or_default();
    most as f64 * shares.len() as f64 / total.max(1) as f64
}

/// Bytes that clients wrote to each node within some seconds.
async fn written(cluster: &Cluster) -> Result<BTreeMap<u64, usize>> {
    let mut begun = Vec::new();
    for node in &cluster.data {
        begun.push(Metrics::fetch(node.spec.listen).await?.sum("tidewater_write_bytes_total"));
    }
    sleep(Duration::from_secs(5)).await;
    let mut written = BTreeMap::new();
    for (at, (node, before)) in (0..).zip(cluster.data.iter().zip(begun)) {
        let now = Metrics::fetch(node.spec.listen).await?.sum("tidewater_write_bytes_total");
        written.insert(at, usize::try_from(now - before).unwrap_or_default());
    }
    Ok(written)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_join_get_their_share_and_leave_again() -> Result<()> {
    let mut cluster = start_with_groups(5, 3).await?;
    cluster.create_log_table_with_regions(REGIONS).await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    let reader = Reader::start(&cluster).await?;
    load.progress(40).await?;

    load.mark();
    let begun = Instant::now();
    cluster.start_all().await?;
    wait_for_groups(&cluster, 10, BALANCED_WITHIN).await?;
    println!("10 groups after {:.1?}", begun.elapsed());
    wait::until("an even share of each node", BALANCED_WITHIN, || async {
        let shares = Shares::of(&cluster, &[0, 1, 2, 3, 4]).await;
        let shares = shares.map_err(|error| error.to_string())?;
        if shares.are_even() { Ok(()) } else { Err(format!("{shares:?}")) }
    })
    .await?;
    let shares = Shares::of(&cluster, &[0, 1, 2, 3, 4]).await?;
    let bytes = written(&cluster).await?;
    println!(
        "even after {:.1?}: leaders {:.2}, regions {:.2}, bytes {:.2} times the mean; slowest write {:.1?}",
        begun.elapsed(),
        busiest(&shares.leaders),
        busiest(&shares.regions),
        busiest(&bytes),
        load.slowest_write(),
    );
    if busiest(&bytes) > MAX_SHARE {
        return Err(HarnessError::violated(format!("{shares:?}, {bytes:?}")));
    }

    load.mark();
    let begun = Instant::now();
    for position in [0, 1] {
        let id = node_id(&cluster, position).await?.to_string();
        cluster.run(&["node", "drain", &id, "--output", "json"]).await?.ok()?;
        cluster.run(&["node", "remove", &id]).await?.ok()?;
        cluster.data[position].wait_for_exit(SETTLED_WITHIN).await?;
    }
    println!("two nodes drained and removed after {:.1?}", begun.elapsed());
    wait_for_groups(&cluster, 6, BALANCED_WITHIN).await?;
    println!("6 groups after {:.1?}; slowest write {:.1?}", begun.elapsed(), load.slowest_write());
    load.progress(40).await?;
    let scans = reader.stop().await?;
    println!("{scans} scans");
    let verdict = conclude(cluster, load).await?;
    if verdict.failed > 0 || verdict.unknown > 0 {
        return Err(HarnessError::violated(format!("a write was not acknowledged: {verdict}")));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_that_is_down_is_replaced() -> Result<()> {
    let mut cluster = start_with_groups(5, 3).await?;
    refuses_invalid_settings(&cluster).await?;
    cluster.create_log_table_with_regions(4).await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    load.progress(20).await?;
    let lost = cluster.owner(LOG_TABLE).await?;
    let old = node_id(&cluster, lost).await?.to_string();
    cluster.data[lost].kill().await?;
    load.progress(20).await?;
    let other = node_id(&cluster, (lost + 1) % 3).await?.to_string();
    let itself = cluster.run(&["node", "replace", &other, "--by", &other]).await?;
    itself.status(2)?.expect_stderr(&["the same node"])?;
    let unknown = cluster.run(&["node", "replace", &other, "--by", "999"]).await?;
    unknown.status(3)?.expect_stderr(&["node 999 does not exist"])?;
    // Two could have the replicas; the one that is named is not the first choice of the planner.
    cluster.data[3].start().await?;
    cluster.data[4].start().await?;
    let new = node_id(&cluster, 4).await?;
    let by = new.to_string();
    let begun = Instant::now();
    let replace = ["node", "replace", &old, "--by", &by, "--output", "json"];
    let replaced = cluster.run(&replace).await?.ok()?.json()?;
    println!("replaced in {:.1?}: {replaced}", begun.elapsed());
    if replaced["removed"] != true {
        return Err(HarnessError::violated(replaced.to_string()));
    }
    let groups = data_groups(&cluster).await?;
    let has_old = |group: &Value| group["voters"].to_string().contains(&old);
    // The balance may have moved replicas on since.
    let first = first_learners(&cluster)?;
    if groups.iter().any(has_old) || first.len() < 6 || first.values().any(|node| *node != by) {
        return Err(HarnessError::violated(format!("{first:?}, {groups:?}")));
    }
    if cluster.data[lost].start().await.is_ok() {
        return Err(HarnessError::violated("a removed node has joined again"));
    }
    load.progress(40).await?;
    conclude(cluster, load).await?;
    Ok(())
}

/// Returns the node of the first replica that each of the first six groups got on a new node, as the meta nodes have
/// logged it.
fn first_learners(cluster: &Cluster) -> Result<BTreeMap<u64, String>> {
    let mut lines = Vec::new();
    for meta in &cluster.meta {
        let text = meta.log().text()?;
        let added = text.lines().filter(|line| line.contains("adding a replica as learner"));
        lines.extend(added.map(str::to_owned));
    }
    // Each begins with its time.
    lines.sort();
    let mut first = BTreeMap::new();
    for line in lines {
        let field = |name: &str| {
            let word = line.split_whitespace().find_map(|word| word.strip_prefix(name));
            word.unwrap_or_default().to_owned()
        };
        // The first six groups were complete before the fourth node joined.
        let is_new = field("node=").parse().is_ok_and(|node: u64| node > 103);
        if let Some(group) = field("group=").parse().ok().filter(|group| is_new && *group <= 6) {
            first.entry(group).or_insert_with(|| field("node="));
        }
    }
    Ok(first)
}

async fn refuses_invalid_settings(cluster: &Cluster) -> Result<()> {
    let shown = cluster.run(&["balance", "show", "--output", "json"]).await?.ok()?.json()?;
    let off = cluster.run(&["balance", "set", "--spread", "off", "--output", "json"]).await?;
    let off = off.ok()?.json()?;
    let expected = (Value::Bool(true), Value::Bool(false));
    if (shown["spread"].clone(), off["spread"].clone()) != expected || shown["rest_ms"] != 60_000 {
        return Err(HarnessError::violated(format!("{shown}, {off}")));
    }
    cluster.run(&["balance", "set", "--rest", "0s"]).await?.status(2)?;
    let long = cluster.run(&["balance", "set", "--rest", "25h"]).await?;
    long.status(2)?.expect_stderr(&["use 1s to 1h"])?;
    cluster.run(&["balance", "set"]).await?.status(2)?;
    cluster.run(&["balance", "set", "--spread", "on"]).await?.ok()?;
    Ok(())
}
