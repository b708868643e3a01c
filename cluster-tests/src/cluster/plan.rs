//! ClusterPlan of a cluster, and the command line of each node.

use std::net::SocketAddr;
use std::path::Path;

use super::Cluster;
use crate::Result;
use crate::node::Role;

/// Object store of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// A directory of the cluster.
    Directory,
    /// An S3 endpoint of the cluster.
    S3,
    /// Any other object store URL.
    Url(String),
}

/// Data placed on a small disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmallDiskUse {
    /// The data directory of a data node, numbered from 1.
    Data(u32),
    /// The object store, in a directory that all nodes share.
    Store,
}

/// Nodes and settings of a cluster.
#[derive(Debug, Clone)]
pub struct ClusterPlan {
    /// Number of meta nodes.
    pub meta: u32,
    /// Number of data nodes.
    pub data: u32,
    /// Number of compactor nodes.
    pub compactors: u32,
    /// Object store.
    pub store: Store,
    /// True if nodes connect to each other through proxies.
    pub proxied: bool,
    /// Data on a small disk.
    pub small_disk: Option<SmallDiskUse>,
    /// `--memory-limit` of the data nodes.
    pub memory_limit: Option<String>,
    /// True if nodes record events in the events table.
    pub events: bool,
    /// Environment variables of every node.
    pub env: Vec<(String, String)>,
}

impl Default for ClusterPlan {
    fn default() -> Self {
        Self {
            meta: 3,
            data: 3,
            compactors: 0,
            store: Store::Directory,
            proxied: false,
            small_disk: None,
            memory_limit: None,
            events: false,
            env: vec![("RUST_BACKTRACE".to_owned(), "1".to_owned())],
        }
    }
}

impl ClusterPlan {
    /// Connects the nodes through proxies.
    #[must_use]
    pub fn proxied(mut self) -> Self {
        self.proxied = true;
        self
    }

    /// Sets the object store.
    #[must_use]
    pub fn store(mut self, store: Store) -> Self {
        self.store = store;
        self
    }

    /// Sets the numbers of nodes.
    #[must_use]
    pub fn nodes(mut self, meta: u32, data: u32, compactors: u32) -> Self {
        self.meta = meta;
        self.data = data;
        self.compactors = compactors;
        self
    }

    /// Places data on a small disk.
    #[must_use]
    pub fn small_disk(mut self, what: SmallDiskUse) -> Self {
        self.small_disk = Some(what);
        self
    }

    /// Sets the memory limit of data nodes.
    #[must_use]
    pub fn memory_limit(mut self, limit: &str) -> Self {
        self.memory_limit = Some(limit.to_owned());
        self
    }

    /// Lets nodes record events in the events table.
    #[must_use]
    pub fn events(mut self) -> Self {
        self.events = true;
        self
    }

    /// Adds an environment variable to every node.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Prepares the cluster without starting its nodes.
    ///
    /// # Errors
    /// If directories or addresses are not available, or the S3 endpoint does not start.
    pub async fn prepare(self) -> Result<Cluster> {
        Cluster::prepare(self).await
    }

    /// Starts all nodes and waits until all groups have their replicas.
    ///
    /// # Errors
    /// If a node does not become ready.
    pub async fn start(self) -> Result<Cluster> {
        let mut cluster = self.prepare().await?;
        cluster.start_all().await?;
        cluster.wait_until_healthy().await?;
        Ok(cluster)
    }
}

/// Values on the command line of a server.
pub(super) struct ServerArgs<'a> {
    pub(super) role: Role,
    pub(super) number: u32,
    pub(super) listen: SocketAddr,
    pub(super) advertise: SocketAddr,
    pub(super) data_dir: Option<&'a Path>,
    pub(super) peers: &'a str,
    pub(super) metas: &'a str,
    pub(super) store_url: &'a str,
    pub(super) memory_limit: Option<&'a str>,
}

/// Returns the arguments that start a server. The first meta node bootstraps.
pub(super) fn server_args(server: &ServerArgs<'_>) -> Vec<String> {
    let mut args = vec![server.role.command().to_owned()];
    let mut flag = |name: &str, value: String| args.extend([name.to_owned(), value]);
    flag("--listen", server.listen.to_string());
    flag("--advertise", server.advertise.to_string());
    if let Some(dir) = server.data_dir {
        flag("--data-dir", dir.display().to_string());
    }
    match server.role {
        Role::Meta => {
            flag("--node-id", server.number.to_string());
            flag("--peers", server.peers.to_owned());
        }
        Role::Data | Role::Compactor => {
            flag("--meta", server.metas.to_owned());
            flag("--object-store", server.store_url.to_owned());
        }
    }
    if let (Role::Data, Some(limit)) = (server.role, server.memory_limit) {
        flag("--memory-limit", limit.to_owned());
    }
    if server.role == Role::Meta && server.number == 1 {
        args.push("--bootstrap".to_owned());
    }
    args
}
