//! Data nodes, clients and watchers without storage, which speak the real protocol to real meta nodes:
//! thousands in one process.
//!
//! # Terms
//!
//! - [`StubWorld`]: the groups and regions of all stub nodes, with members, leaders, schema versions and
//!   procedure steps. A group has one state, which all its replicas report: there is no Raft below the
//!   meta group.
//! - [`StubDataNode`]: has an address, a connection to the meta service and a catalog watch of its own,
//!   by the same code as a data node ([`MetaLink`](tidewater_rpc::MetaLink)). It can be killed, frozen and
//!   restarted.
//! - [`StubWatchers`]: catalog watches as of the client library, which keep only their positions.
//! - [`StubWriters`]: writers of the client library, whose rows are acknowledged and forgotten.
//! - [`MetaCalls`]: calls to the meta leader.
//!
//! # Differences from a data node
//!
//! A stub does not check calls against the catalog, but it waits for the revision that they name. It has
//! no producers: a repeated write counts twice. A frozen node still answers pings.
//!
//! # Costs
//!
//! A node takes two tasks for itself, and one for each connection. Timers are those of the runtime.

mod barrier_log;
mod counters;
mod cursors;
mod descriptors;
mod group;
mod heads;
mod listener;
mod meta_calls;
mod meta_search;
mod node;
mod node_core;
mod services;
mod watcher;
mod watchers;
mod world;
mod writers;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::net::TcpListener;
use tokio::time::Instant;

pub use barrier_log::{BarrierLog, BarrierTimes};
pub use counters::StubCounters;
pub use descriptors::raise_limit;
pub use heads::SnapshotHead;
pub use meta_calls::MetaCalls;
pub use node::StubDataNode;
pub use watcher::WatcherCounters;
pub use watchers::{ReachTimes, StubWatchers};
pub use world::StubWorld;
pub use writers::{StubWriters, WriterCounts, WriterFigures};

use crate::{HarnessError, Result, wait};

/// Registrations at the same time.
const REGISTERING: usize = 64;
/// Time after the death of a leader until its groups have another: about that of a data group.
const ELECTION: Duration = Duration::from_millis(1_500);

/// Loopback addresses of a stub node, as each data node has its own: the meta service limits registrations and
/// connections by address. Outgoing connections have another address, so that none takes the port of a
/// dead node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NodeAddresses {
    listen: IpAddr,
    source: IpAddr,
}

impl NodeAddresses {
    /// Addresses of node `number` in two of the networks 127.x.0.0/16: those of other tests are likely others.
    fn new(network: u8, second: u8, number: usize) -> Self {
        let host = |network: u8| {
            let [.., high, low] = (number % 65_000 + 1).to_be_bytes();
            IpAddr::V4(Ipv4Addr::new(127, network, high, low))
        };
        let network = network.clamp(2, 254);
        let source = if second == network { 1 } else { second.max(1) };
        Self { listen: host(network), source: host(source) }
    }
}

/// Data nodes without storage.
#[derive(Debug)]
pub struct StubCluster {
    /// The nodes, in order of registration.
    pub nodes: Vec<StubDataNode>,
    world: Arc<StubWorld>,
    metas: Vec<String>,
}

impl StubCluster {
    /// Creates a cluster without nodes for these meta nodes.
    pub fn new(metas: Vec<String>) -> Self {
        Self { nodes: Vec::new(), world: Arc::new(StubWorld::new()), metas }
    }

    /// Groups and counters of the nodes.
    pub fn world(&self) -> &StubWorld {
        &self.world
    }

    /// Registers and runs more nodes. The meta service limits the rate of new nodes: 256 at once, then 4 each
    /// second, and half of that for each address.
    ///
    /// # Errors
    /// If a node is refused, or they are not registered within `limit`.
    pub async fn add_nodes(&mut self, count: usize, limit: Duration) -> Result<()> {
        let [network, second]: [u8; 2] = rand::random();
        let first = self.nodes.len();
        let (world, metas) = (&self.world, &self.metas);
        let started = stream::iter(first..first + count)
            .map(|number| async move {
                let addresses = NodeAddresses::new(network, second, number);
                let ip = addresses.listen;
                let listener = TcpListener::bind((ip, 0))
                    .await
                    .map_err(HarnessError::io(format!("listen on {ip}")))?;
                StubDataNode::start(world.clone(), metas, listener, addresses.source).await
            })
            .buffer_unordered(REGISTERING)
            .try_collect::<Vec<_>>();
        let started = tokio::time::timeout(limit, started).await;
        let mut started = started.map_err(|_| HarnessError::Timeout {
            what: format!("{count} stub nodes are registered"),
            limit,
            last: "some are not".to_owned(),
        })??;
        started.sort_by_key(StubDataNode::id);
        self.nodes.extend(started);
        Ok(())
    }

    /// Waits until the nodes have `groups` groups with leaders.
    ///
    /// # Errors
    /// On a timeout, with their number.
    pub async fn wait_until_led(&self, groups: usize, limit: Duration) -> Result<()> {
        wait::until(&format!("{groups} groups are led"), limit, || async {
            let led = self.world.led_groups();
            if led >= groups { Ok(()) } else { Err(format!("{led} are")) }
        })
        .await
    }

    /// Kills nodes, by their position in [`nodes`](Self::nodes). Their groups elect other leaders about as
    /// fast as data groups do.
    pub fn kill(&self, positions: impl IntoIterator<Item = usize>) {
        for node in positions.into_iter().filter_map(|position| self.nodes.get(position)) {
            node.kill();
        }
        self.elect_later();
    }

    /// Freezes nodes. Their groups elect other leaders.
    pub fn freeze(&self, positions: impl IntoIterator<Item = usize>) {
        for node in positions.into_iter().filter_map(|position| self.nodes.get(position)) {
            node.freeze();
        }
        self.elect_later();
    }

    /// Continues frozen nodes.
    pub fn thaw(&self) {
        for node in &self.nodes {
            node.thaw();
        }
        self.elect_later();
    }

    /// Restarts dead nodes.
    ///
    /// # Errors
    /// If one cannot listen or is refused.
    pub async fn restart_dead(&mut self) -> Result<()> {
        let dead = self.nodes.iter_mut().filter(|node| node.is_dead());
        let restarted = stream::iter(dead.map(StubDataNode::restart)).buffer_unordered(REGISTERING);
        restarted.try_collect::<()>().await?;
        self.elect_later();
        Ok(())
    }

    fn elect_later(&self) {
        let world = self.world.clone();
        tokio::spawn(async move {
            tokio::time::sleep(ELECTION).await;
            world.elect();
        });
    }

    /// Waits until the meta service has accepted a heartbeat of each running node after `since`, and each has
    /// received an event of its catalog watch since then, and the revision.
    ///
    /// # Errors
    /// On a timeout, with the number of nodes of which that is not true.
    pub async fn wait_until_served(
        &self,
        since: Instant,
        revision: u64,
        limit: Duration,
    ) -> Result<()> {
        wait::until("all stub nodes are served", limit, || async {
            let running = self.nodes.iter().filter(|node| node.is_running());
            let waiting = running.filter(|node| !node.is_served(since, revision)).count();
            if waiting == 0 {
                Ok(())
            } else {
                Err(format!("{waiting} of {} are not", self.nodes.len()))
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_node_has_its_own_addresses() {
        for (network, second) in [(0, 0), (7, 7), (255, 254), (9, 200)] {
            let addresses = (0..2_000).map(|number| NodeAddresses::new(network, second, number));
            let distinct: BTreeSet<IpAddr> =
                addresses.flat_map(|addresses| [addresses.listen, addresses.source]).collect();
            assert_eq!(distinct.len(), 4_000, "{network} {second}");
            assert!(distinct.iter().all(IpAddr::is_loopback));
        }
    }
}
