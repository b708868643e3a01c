//! What a cluster consists of, and the command line of each node.

use std::net::SocketAddr;
use std::path::Path;

use super::Cluster;
use crate::Result;
use crate::node::Role;

/// Where the cluster keeps its objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// In a folder of the cluster's own.
    Folder,
    /// In an S3 endpoint of the cluster's own.
    S3,
    /// Somewhere else.
    Url(String),
}

/// What lies on a small disk of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnSmallDisk {
    /// The folder of a data node, counted from 1.
    Data(u32),
    /// The objects, in a folder that all nodes see.
    Store,
}

/// What a cluster consists of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Meta nodes.
    pub meta: u32,
    /// Data nodes.
    pub data: u32,
    /// Compactor nodes.
    pub compactors: u32,
    /// Where objects are kept.
    pub store: Store,
    /// Whether nodes reach each other through proxies.
    pub proxied: bool,
    /// What gets a small disk, if anything.
    pub small_disk: Option<OnSmallDisk>,
    /// `--memory-limit` of the data nodes.
    pub memory_limit: Option<String>,
    /// Environment of every node.
    pub env: Vec<(String, String)>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            meta: 3,
            data: 3,
            compactors: 0,
            store: Store::Folder,
            proxied: false,
            small_disk: None,
            memory_limit: None,
            env: vec![("RUST_BACKTRACE".to_owned(), "1".to_owned())],
        }
    }
}

impl Plan {
    /// With proxies between the nodes.
    #[must_use]
    pub fn proxied(mut self) -> Self {
        self.proxied = true;
        self
    }

    /// With other places for the objects.
    #[must_use]
    pub fn store(mut self, store: Store) -> Self {
        self.store = store;
        self
    }

    /// With other numbers of nodes.
    #[must_use]
    pub fn nodes(mut self, meta: u32, data: u32, compactors: u32) -> Self {
        (self.meta, self.data, self.compactors) = (meta, data, compactors);
        self
    }

    /// With something on a small disk.
    #[must_use]
    pub fn small_disk(mut self, what: OnSmallDisk) -> Self {
        self.small_disk = Some(what);
        self
    }

    /// With a memory limit for data nodes.
    #[must_use]
    pub fn memory_limit(mut self, limit: &str) -> Self {
        self.memory_limit = Some(limit.to_owned());
        self
    }

    /// With a setting in the environment of every node.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Lays the cluster out without starting its nodes.
    ///
    /// # Errors
    /// When folders or addresses cannot be had, or the S3 endpoint does not start.
    pub async fn prepare(self) -> Result<Cluster> {
        Cluster::prepare(self).await
    }

    /// Starts all nodes and waits until all groups have their replicas.
    ///
    /// # Errors
    /// Whatever keeps a node from getting ready.
    pub async fn start(self) -> Result<Cluster> {
        let mut cluster = self.prepare().await?;
        cluster.start_all().await?;
        cluster.healthy().await?;
        Ok(cluster)
    }
}

/// All that the command line of a server names.
pub(super) struct Seat<'a> {
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

/// The arguments that start a server. The first meta node bootstraps.
pub(super) fn server_args(seat: &Seat<'_>) -> Vec<String> {
    let mut args = vec![seat.role.command().to_owned()];
    let mut flag = |name: &str, value: String| args.extend([name.to_owned(), value]);
    flag("--listen", seat.listen.to_string());
    flag("--advertise", seat.advertise.to_string());
    if let Some(dir) = seat.data_dir {
        flag("--data-dir", dir.display().to_string());
    }
    match seat.role {
        Role::Meta => {
            flag("--node-id", seat.number.to_string());
            flag("--peers", seat.peers.to_owned());
        }
        Role::Data | Role::Compactor => {
            flag("--meta", seat.metas.to_owned());
            flag("--object-store", seat.store_url.to_owned());
        }
    }
    if let (Role::Data, Some(limit)) = (seat.role, seat.memory_limit) {
        flag("--memory-limit", limit.to_owned());
    }
    if seat.role == Role::Meta && seat.number == 1 {
        args.push("--bootstrap".to_owned());
    }
    args
}
