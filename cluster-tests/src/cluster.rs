//! The nodes of one cluster, their directories and addresses, and the leaders of its groups.
//!
//! A scenario ends with [`Cluster::finish`], which stops all nodes and checks their logs for panics. A
//! cluster that is dropped before that keeps its directory and prints the path of each node's log.

mod address;
mod leaders;
mod plan;
mod tables;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use plan::{ClusterPlan, SmallDiskUse, Store};
pub use tables::LOG_TABLE;

use address::Reserved;

use crate::command::{self, CommandOutput};
use crate::disk::SmallDisk;
use crate::node::{Node, NodeSpec, Pids, Role};
use crate::proxy::{Party, Proxy, Rules};
use crate::s3::S3Endpoint;
use crate::{HarnessError, Result, binary, wait};

/// Limit for every group to have all its replicas.
const HEALTHY_WITHIN: Duration = Duration::from_secs(60);

/// Mount point of the object store's disk, in the cluster's directory.
const STORE_DISK: &str = "store";

/// Directory of the files that jsonl hooks write, in the cluster's directory.
const HOOK_DIRECTORY: &str = "hooks";
/// Directory of the files that sources read, in the cluster's directory.
const SOURCE_DIRECTORY: &str = "sources";
/// Directory below which exports may write, within that of the cluster.
const EXPORT_DIRECTORY: &str = "exports";
/// Directory of the passwords that sources read, in the cluster's directory.
const SECRET_DIRECTORY: &str = "secrets";

/// Limit of concurrent clusters in this process: they share the machine.
static RUNNING: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(2)));

/// The nodes of one cluster.
#[derive(Debug)]
pub struct Cluster {
    /// Members of group 0; the first one bootstraps.
    pub meta: Vec<Node>,
    /// Data nodes.
    pub data: Vec<Node>,
    /// Compactor nodes.
    pub compactors: Vec<Node>,
    /// Rules of the connections between nodes, if the plan has proxies.
    pub rules: Rules,
    /// The endpoint, if objects are stored in S3.
    pub s3: Option<S3Endpoint>,
    /// The small disk, if the plan has one.
    pub disk: Option<SmallDisk>,
    plan: ClusterPlan,
    binary: PathBuf,
    store_url: String,
    proxies: Vec<Proxy>,
    dir: Option<TempDir>,
    _permit: OwnedSemaphorePermit,
}

impl Cluster {
    /// Starts the default plan, with three meta and three data nodes, and waits until all groups have
    /// their replicas.
    ///
    /// # Errors
    /// If a node does not become ready.
    pub async fn start() -> Result<Self> {
        ClusterPlan::default().start().await
    }

    /// Prepares directories, addresses and command lines. Starts only the S3 endpoint.
    pub(crate) async fn prepare(plan: ClusterPlan) -> Result<Self> {
        let permit = RUNNING
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| HarnessError::violated("the cluster semaphore is closed"))?;
        let binary = binary::tidewater()?;
        let dir = tempfile::Builder::new()
            .prefix("tidewater-cluster-")
            .tempdir()
            .map_err(HarnessError::io("create the cluster's directory"))?;
        let logs = dir.path().join("logs");
        let hooks = dir.path().join(HOOK_DIRECTORY);
        let sources = dir.path().join(SOURCE_DIRECTORY);
        let exports = dir.path().join(EXPORT_DIRECTORY);
        let secrets = dir.path().join(SECRET_DIRECTORY);
        for directory in [&logs, &hooks, &sources, &exports, &secrets] {
            std::fs::create_dir_all(directory).map_err(HarnessError::io("create directories"))?;
        }
        let s3 = match plan.store {
            Store::S3 => Some(S3Endpoint::start(&logs.join("s3.log")).await?),
            Store::Directory | Store::Url(_) => None,
        };
        let store_url = match (&plan.store, &s3) {
            (Store::Url(url), _) => url.clone(),
            (_, Some(s3)) => s3.url("cluster"),
            // The root of a disk may contain other files.
            _ => format!("file://{}", dir.path().join(STORE_DISK).join("objects").display()),
        };
        let mut cluster = Self {
            meta: Vec::new(),
            data: Vec::new(),
            compactors: Vec::new(),
            rules: Rules::default(),
            s3,
            disk: None,
            plan,
            binary,
            store_url,
            proxies: Vec::new(),
            dir: Some(dir),
            _permit: permit,
        };
        cluster.lay_out(&logs).await?;
        Ok(cluster)
    }

    async fn lay_out(&mut self, logs: &Path) -> Result<()> {
        let pids = Pids::default();
        let roles = [
            (Role::Meta, self.plan.meta),
            (Role::Data, self.plan.data),
            (Role::Compactor, self.plan.compactors),
        ];
        let mut reserved = Reserved::new()?;
        let mut planned = Vec::new();
        for (role, count) in roles {
            for number in 1..=count {
                let name = format!("{}-{number}", role.command());
                let listen = reserved.next()?;
                let advertise = self.advertise(&mut reserved, &name, listen, &pids).await?;
                planned.push((role, number, name, listen, advertise));
            }
        }
        let of_role = |role| planned.iter().filter(move |node| node.0 == role);
        let peers: Vec<String> =
            of_role(Role::Meta).map(|(_, number, _, _, at)| format!("{number}={at}")).collect();
        let metas: Vec<String> = of_role(Role::Meta).map(|node| node.4.to_string()).collect();
        if self.plan.small_disk == Some(SmallDiskUse::Store) {
            self.disk = Some(SmallDisk::create(&self.directory().join(STORE_DISK)).await?);
        }
        for (role, number, name, listen, advertise) in planned {
            let data_dir =
                (role != Role::Compactor).then(|| self.directory().join("nodes").join(&name));
            let args = plan::server_args(&plan::ServerArgs {
                role,
                number,
                listen,
                advertise,
                data_dir: data_dir.as_deref(),
                peers: &peers.join(","),
                metas: &metas.join(","),
                store_url: &self.store_url,
                memory_limit: self.plan.memory_limit.as_deref(),
            });
            let mut env = self.env(&name);
            if role == Role::Compactor && self.plan.events {
                // Other nodes have a data directory.
                let events = self.directory().join("nodes").join(&name).join("events");
                env.push(("TIDEWATER_EVENT_DIR".to_owned(), events.display().to_string()));
            }
            let mut spec = NodeSpec {
                name,
                role,
                listen,
                advertise,
                data_dir,
                args,
                env,
                launcher: Vec::new(),
            };
            if let (Role::Data, Some(dir)) = (role, &spec.data_dir)
                && self.plan.small_disk == Some(SmallDiskUse::Data(number))
            {
                let disk = SmallDisk::create(dir).await?;
                disk.attach(&mut spec, true);
                self.disk = Some(disk);
            } else if let (Some(SmallDiskUse::Store), Some(disk)) =
                (self.plan.small_disk, &self.disk)
            {
                disk.attach(&mut spec, role == Role::Compactor);
            }
            let node = Node::new(spec, self.binary.clone(), logs, pids.clone());
            match role {
                Role::Meta => self.meta.push(node),
                Role::Data => self.data.push(node),
                Role::Compactor => self.compactors.push(node),
            }
        }
        Ok(())
    }

    async fn advertise(
        &mut self,
        reserved: &mut Reserved,
        name: &str,
        listen: SocketAddr,
        pids: &Pids,
    ) -> Result<SocketAddr> {
        if !self.plan.proxied {
            return Ok(listen);
        }
        let listener = reserved.listener().await?;
        let proxy =
            Proxy::start(listener, Party::node(name), listen, self.rules.clone(), pids.clone())?;
        let address = proxy.address();
        self.proxies.push(proxy);
        Ok(address)
    }

    fn env(&self, node: &str) -> Vec<(String, String)> {
        let mut env = self.s3.as_ref().map(|s3| s3.env(node)).unwrap_or_default();
        let hooks = self.hook_directory().display().to_string();
        env.push(("TIDEWATER_HOOK_DIR".to_owned(), hooks));
        let sources = self.source_directory().display().to_string();
        env.push(("TIDEWATER_SOURCE_DIR".to_owned(), sources));
        let exports = self.export_directory().display().to_string();
        env.push(("TIDEWATER_EXPORT_DIR".to_owned(), exports));
        let secrets = self.secret_directory().display().to_string();
        env.push(("TIDEWATER_SOURCE_SECRET_DIR".to_owned(), secrets));
        env.push(("TIDEWATER_SOURCE_HOSTS".to_owned(), "127.0.0.0/8".to_owned()));
        // A variable and not a flag: earlier releases ignore it.
        let events = if self.plan.events { "table" } else { "off" };
        env.push(("TIDEWATER_EVENTS".to_owned(), events.to_owned()));
        // Tests list tables and regions: without one that appears after a minute.
        env.push(("TIDEWATER_STATISTICS_EVERY".to_owned(), "0s".to_owned()));
        env.extend(self.plan.env.iter().cloned());
        env
    }

    /// Starts all stopped nodes, meta nodes first, and waits until they are ready.
    ///
    /// # Errors
    /// If a node does not become ready.
    pub async fn start_all(&mut self) -> Result<()> {
        self.start_with(self.data.len()).await
    }

    /// Starts all stopped nodes except for the data nodes after the first `data`, which join later.
    ///
    /// # Errors
    /// If a node does not become ready.
    pub async fn start_with(&mut self, data: usize) -> Result<()> {
        let first = data.min(self.data.len());
        for nodes in [&mut self.meta, &mut self.data[..first], &mut self.compactors] {
            let mut started = Vec::new();
            for node in nodes.iter_mut().filter(|node| !node.is_running()) {
                node.spawn()?;
                started.push(node);
            }
            for node in started {
                node.wait_until_ready(crate::node::READY_WITHIN).await?;
            }
        }
        Ok(())
    }

    /// Waits until `cluster status` reports a healthy cluster.
    ///
    /// # Errors
    /// On a timeout, with the problems reported last.
    pub async fn wait_until_healthy(&self) -> Result<()> {
        self.wait_until_healthy_within(HEALTHY_WITHIN).await
    }

    /// As [`wait_until_healthy`](Self::wait_until_healthy), with a limit for clusters with much to do.
    ///
    /// # Errors
    /// On a timeout, with the problems reported last.
    pub async fn wait_until_healthy_within(&self, limit: Duration) -> Result<()> {
        wait::until("the cluster is healthy", limit, || async {
            let output = self.run(&["cluster", "status", "--output", "json"]).await;
            let output = output.map_err(|error| error.to_string())?;
            // The exit status is not 0 while there are problems.
            let status = output.json().map_err(|error| error.to_string())?;
            match (status["healthy"] == true, output.status) {
                (true, Some(0)) => Ok(()),
                (_, exit) => Err(format!("exit status {exit:?}: {}", status["problems"])),
            }
        })
        .await
    }

    /// Runs a client command against this cluster.
    ///
    /// # Errors
    /// If the command cannot be run. A command that fails returns its output.
    pub async fn run(&self, args: &[&str]) -> Result<CommandOutput> {
        let metas = self.meta_addresses().join(",");
        let args = [args, &["--meta", &metas]].concat();
        command::run(&self.binary, &args, &[]).await
    }

    /// Runs any command of the binary, without adding `--meta`.
    ///
    /// # Errors
    /// If the command cannot be run.
    pub async fn run_bare(&self, args: &[&str]) -> Result<CommandOutput> {
        command::run(&self.binary, args, &self.env("command")).await
    }

    /// Addresses of the meta nodes, for `--meta`.
    pub fn meta_addresses(&self) -> Vec<String> {
        self.meta.iter().map(|node| node.spec.advertise.to_string()).collect()
    }

    /// Directory of all files of this cluster.
    pub fn directory(&self) -> &Path {
        self.dir.as_ref().map_or(Path::new(""), TempDir::path)
    }

    /// Directory below which jsonl hooks of this cluster may write.
    pub fn hook_directory(&self) -> PathBuf {
        self.directory().join(HOOK_DIRECTORY)
    }

    /// Directory below which sources of this cluster may read rows.
    pub fn source_directory(&self) -> PathBuf {
        self.directory().join(SOURCE_DIRECTORY)
    }

    /// Directory below which exports of this cluster may write.
    pub fn export_directory(&self) -> PathBuf {
        self.directory().join(EXPORT_DIRECTORY)
    }

    /// Directory below which sources of this cluster may read passwords and keys.
    pub fn secret_directory(&self) -> PathBuf {
        self.directory().join(SECRET_DIRECTORY)
    }

    /// Directory of the objects, if the object store is a local directory.
    pub fn objects(&self) -> PathBuf {
        self.directory().join(STORE_DISK).join("objects")
    }

    /// URL of the object store, for `--object-store`.
    pub fn store_url(&self) -> &str {
        &self.store_url
    }

    /// Names of all nodes.
    pub fn names(&self) -> Vec<String> {
        self.nodes().map(|node| node.spec.name.clone()).collect()
    }

    fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.meta.iter().chain(&self.data).chain(&self.compactors)
    }

    /// Returns an unused address for an extra node.
    ///
    /// # Errors
    /// If the system has no free port.
    pub fn spare_address(&self) -> Result<SocketAddr> {
        Reserved::on_ip_of(self.meta[0].spec.listen)?.next()
    }

    /// Returns a stopped node outside the plan, with the settings of `like` and its own arguments.
    pub fn extra(&self, name: &str, like: &NodeSpec, args: Vec<String>) -> Node {
        let spec = NodeSpec { name: name.to_owned(), args, ..like.clone() };
        Node::new(spec, self.binary.clone(), &self.directory().join("logs"), Pids::default())
    }

    /// Stops all nodes with SIGTERM, meta nodes last, and removes the directory.
    ///
    /// # Errors
    /// If a node does not exit with status 0, or has panicked since the start.
    pub async fn finish(mut self) -> Result<()> {
        for nodes in [&mut self.compactors, &mut self.data, &mut self.meta] {
            for node in nodes.iter_mut().filter(|node| node.is_running()) {
                node.terminate().await?;
            }
        }
        for node in self.nodes() {
            if node.log().text()?.contains("panicked at") {
                return Err(HarnessError::violated(format!(
                    "{} has panicked: see {}",
                    node.spec.name,
                    node.log().path().display()
                )));
            }
        }
        drop(self.dir.take());
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let Some(dir) = self.dir.take() else { return };
        // Child processes end with their handles; the logs stay for the analysis of the failure.
        let dir = dir.keep();
        eprintln!("the scenario did not finish; its files are in {}", dir.display());
        for node in self.nodes() {
            eprintln!("  {}: {}", node.spec.name, node.log().path().display());
        }
    }
}
