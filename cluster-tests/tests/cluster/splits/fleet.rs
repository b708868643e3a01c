//! Data nodes that join, are drained, removed and replaced while routes follow their load, administrators split, merge
//! and move them, tables are loaded, altered, truncated and cloned, and nodes are killed and frozen: no acknowledged
//! row is lost, and each change ends once.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, Store};
use tidewater_cluster_tests::{HarnessError, Result, binary, command};
use tokio::time::Instant;

use super::clients::Clients;
use super::faults::inject;
use crate::joins::node_id;
use crate::support::{SETTLED_WITHIN, setting, wait_for_level};

/// Limit for one change of the nodes, with all faults during it.
const CHANGED_WITHIN: Duration = Duration::from_secs(240);
/// Exit status of a command that found no leader in time.
const UNAVAILABLE: i32 = 5;

/// A cluster whose data nodes change under load.
struct Fleet {
    cluster: Cluster,
    random: StdRng,
    clients: Clients,
}

impl Fleet {
    /// Runs a command until it succeeds, while nodes other than the leaving one have faults.
    async fn run(&mut self, leaving: usize, args: &[&str]) -> Result<()> {
        let begun = Instant::now();
        let binary = binary::tidewater()?;
        let meta = self.cluster.meta_addresses().join(",");
        let args: Vec<String> =
            args.iter().chain(&["--meta", &meta]).map(ToString::to_string).collect();
        let mut faults = 0;
        loop {
            let binary = binary.clone();
            let sent = args.clone();
            let running = tokio::spawn(async move {
                let sent: Vec<&str> = sent.iter().map(String::as_str).collect();
                command::run(&binary, &sent, &[]).await
            });
            while !running.is_finished() {
                self.clients.load.progress(20).await?;
                inject(&mut self.cluster, &mut self.random, Some(leaving)).await?;
                faults += 1;
            }
            let ended =
                running.await.map_err(|error| HarnessError::violated(error.to_string()))??;
            if ended.status != Some(UNAVAILABLE) || begun.elapsed() > CHANGED_WITHIN {
                println!("{} with {faults} faults: {:.1?}", args.join(" "), begun.elapsed());
                return ended.ok().map(drop);
            }
        }
    }

    /// Starts nodes that join.
    async fn join(&mut self, positions: [usize; 2]) -> Result<()> {
        for position in positions {
            self.cluster.data[position].start().await?;
        }
        self.cluster.wait_until_healthy().await
    }

    /// Drains and removes a node.
    async fn remove(&mut self, position: usize) -> Result<()> {
        let id = node_id(&self.cluster, position).await?.to_string();
        self.run(position, &["node", "drain", &id, "--within", "2m"]).await?;
        self.cluster.run(&["node", "remove", &id]).await?.ok()?;
        self.end(position).await
    }

    /// Replaces a node by one that has joined.
    async fn replace(&mut self, position: usize, by: usize) -> Result<()> {
        let id = node_id(&self.cluster, position).await?.to_string();
        let by = node_id(&self.cluster, by).await?.to_string();
        self.run(position, &["node", "replace", &id, "--by", &by, "--within", "2m"]).await?;
        self.end(position).await
    }

    /// Waits until a removed node has exited, and empties its directory: it joins as a new node later.
    async fn end(&mut self, position: usize) -> Result<()> {
        self.cluster.data[position].wait_for_exit(SETTLED_WITHIN).await?;
        self.cluster.data[position].wipe()
    }
}

// C3, C4.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_during_changes_of_nodes_lose_no_write() -> Result<()> {
    let time = Duration::from_secs(setting("TIDEWATER_FLEET_SECONDS", 0));
    let seed: u64 = setting("TIDEWATER_FLEET_SEED", rand::random::<u32>().into());
    println!("TIDEWATER_FLEET_SEED={seed}");
    let mut cluster = ClusterPlan::default().store(Store::S3).nodes(3, 5, 1).prepare().await?;
    cluster.start_with(3).await?;
    cluster.wait_until_healthy().await?;
    wait_for_level(&cluster).await?;
    let follow = ["--hotspots", "on", "--rest", "1s", "--split-score", "6000", "--max-routes", "8"];
    cluster.run(&[&["balance", "set"], &follow[..]].concat()).await?.ok()?;
    let clients = Clients::start(&cluster, seed).await?;
    let mut fleet = Fleet { cluster, random: StdRng::seed_from_u64(seed), clients };
    let (mut serving, mut spare) = ([0, 1, 2], [3, 4]);
    let end = Instant::now() + time;
    loop {
        let [removed, replaced, stays] = serving;
        fleet.join(spare).await?;
        fleet.remove(removed).await?;
        fleet.replace(replaced, spare[0]).await?;
        serving = [stays, spare[0], spare[1]];
        spare = [removed, replaced];
        if Instant::now() >= end {
            break;
        }
    }
    let Fleet { cluster, clients, .. } = fleet;
    clients.load.progress(40).await?;
    cluster.wait_until_healthy().await?;
    // In the middle of what they do.
    let rest = ["balance", "set", "--hotspots", "off", "--spread", "off"];
    cluster.run(&rest).await?.ok()?;
    clients.conclude(cluster).await
}
