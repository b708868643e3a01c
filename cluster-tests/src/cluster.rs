//! The nodes of one cluster, their folders and addresses, and who leads what.
//!
//! A scenario ends with [`Cluster::finish`], which stops all nodes and looks for panics in their
//! logs. A cluster that is dropped before keeps its folder and prints where each node's log is.

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

pub use plan::{OnSmallDisk, Plan, Store};
pub use tables::LOG_TABLE;

use address::Reserved;

use crate::command::{self, Said};
use crate::disk::SmallDisk;
use crate::node::{Node, NodeSpec, Pids, Role};
use crate::proxy::{Party, Proxy, Rules};
use crate::s3::S3Endpoint;
use crate::{HarnessError, Result, binary, wait};

/// How long a cluster may take until every group has its replicas.
const HEALTHY_WITHIN: Duration = Duration::from_secs(60);

/// Where the disk of the objects is, in the cluster's folder.
const STORE_DISK: &str = "store";

/// Clusters that run at once in this process: they share the machine.
static RUNNING: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(2)));

/// The nodes of one cluster.
#[derive(Debug)]
pub struct Cluster {
    /// Members of group 0; the first bootstraps.
    pub meta: Vec<Node>,
    /// Hosts of the data groups.
    pub data: Vec<Node>,
    /// Compactors.
    pub compactors: Vec<Node>,
    /// What happens between the nodes, when the plan asked for proxies.
    pub rules: Rules,
    /// The endpoint, when objects are kept in S3.
    pub s3: Option<S3Endpoint>,
    /// The small disk, when the plan asked for one.
    pub disk: Option<SmallDisk>,
    plan: Plan,
    binary: PathBuf,
    store_url: String,
    proxies: Vec<Proxy>,
    dir: Option<TempDir>,
    _permit: OwnedSemaphorePermit,
}

impl Cluster {
    /// Starts three meta, three data nodes and a compactor on a local folder, and waits until all
    /// groups have their replicas.
    ///
    /// # Errors
    /// Whatever keeps a node from getting ready.
    pub async fn start() -> Result<Self> {
        Plan::default().start().await
    }

    /// Lays out folders, addresses and command lines; starts nothing but the S3 endpoint.
    pub(crate) async fn prepare(plan: Plan) -> Result<Self> {
        let permit = RUNNING
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| HarnessError::violated("the cluster semaphore is closed"))?;
        let binary = binary::tidewater()?;
        let dir = tempfile::Builder::new()
            .prefix("tidewater-cluster-")
            .tempdir()
            .map_err(HarnessError::io("make the cluster's folder"))?;
        let logs = dir.path().join("logs");
        std::fs::create_dir_all(&logs).map_err(HarnessError::io("make the log folder"))?;
        let s3 = match plan.store {
            Store::S3 => Some(S3Endpoint::start(&logs.join("s3.log")).await?),
            Store::Folder | Store::Url(_) => None,
        };
        let store_url = match (&plan.store, &s3) {
            (Store::Url(url), _) => url.clone(),
            (_, Some(s3)) => s3.url("cluster"),
            // A disk has other things at its root.
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
        let mut seats = Vec::new();
        for (role, count) in roles {
            for number in 1..=count {
                let name = format!("{}-{number}", role.command());
                let listen = reserved.next()?;
                let advertise = self.advertise(&mut reserved, &name, listen, &pids).await?;
                seats.push((role, number, name, listen, advertise));
            }
        }
        let of_role = |role| seats.iter().filter(move |seat| seat.0 == role);
        let peers: Vec<String> =
            of_role(Role::Meta).map(|(_, number, _, _, at)| format!("{number}={at}")).collect();
        let metas: Vec<String> = of_role(Role::Meta).map(|seat| seat.4.to_string()).collect();
        if self.plan.small_disk == Some(OnSmallDisk::Store) {
            self.disk = Some(SmallDisk::make(&self.folder().join(STORE_DISK)).await?);
        }
        for (role, number, name, listen, advertise) in seats {
            let data_dir =
                (role != Role::Compactor).then(|| self.folder().join("nodes").join(&name));
            let args = plan::server_args(&plan::Seat {
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
            let env = self.env(&name);
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
                && self.plan.small_disk == Some(OnSmallDisk::Data(number))
            {
                let disk = SmallDisk::make(dir).await?;
                disk.under(&mut spec, true);
                self.disk = Some(disk);
            } else if let (Some(OnSmallDisk::Store), Some(disk)) =
                (self.plan.small_disk, &self.disk)
            {
                disk.under(&mut spec, role == Role::Compactor);
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
        env.extend(self.plan.env.iter().cloned());
        env
    }

    /// Starts all nodes that do not run, meta nodes first, and waits until they are ready.
    ///
    /// # Errors
    /// Whatever keeps a node from getting ready.
    pub async fn start_all(&mut self) -> Result<()> {
        for nodes in [&mut self.meta, &mut self.data, &mut self.compactors] {
            let mut started = Vec::new();
            for node in nodes.iter_mut().filter(|node| !node.is_running()) {
                node.spawn()?;
                started.push(node);
            }
            for node in started {
                node.ready(crate::node::READY_WITHIN).await?;
            }
        }
        Ok(())
    }

    /// Waits until `cluster status` finds nothing wrong.
    ///
    /// # Errors
    /// With the problems that it last named.
    pub async fn healthy(&self) -> Result<()> {
        wait::until("the cluster is healthy", HEALTHY_WITHIN, || async {
            let said = self.run(&["cluster", "status", "--output", "json"]).await;
            let status = said.and_then(Said::ok).and_then(|said| said.json());
            let status = status.map_err(|error| error.to_string())?;
            if status["healthy"] == true { Ok(()) } else { Err(status["problems"].to_string()) }
        })
        .await
    }

    /// Runs a client command against this cluster.
    ///
    /// # Errors
    /// When it cannot be run. A command that fails is not an error here.
    pub async fn run(&self, args: &[&str]) -> Result<Said> {
        let metas = self.meta_addresses().join(",");
        let args = [args, &["--meta", &metas]].concat();
        command::run(&self.binary, &args, &[]).await
    }

    /// Runs any command of the binary as it stands.
    ///
    /// # Errors
    /// When it cannot be run.
    pub async fn run_bare(&self, args: &[&str]) -> Result<Said> {
        command::run(&self.binary, args, &self.env("command")).await
    }

    /// What `--meta` takes.
    pub fn meta_addresses(&self) -> Vec<String> {
        self.meta.iter().map(|node| node.spec.advertise.to_string()).collect()
    }

    /// The folder that holds everything of this cluster.
    pub fn folder(&self) -> &Path {
        self.dir.as_ref().map_or(Path::new(""), TempDir::path)
    }

    /// Where objects lie that are kept in a folder.
    pub fn objects(&self) -> PathBuf {
        self.folder().join(STORE_DISK).join("objects")
    }

    /// What `--object-store` takes.
    pub fn store_url(&self) -> &str {
        &self.store_url
    }

    /// The names of all nodes.
    pub fn names(&self) -> Vec<String> {
        self.nodes().map(|node| node.spec.name.clone()).collect()
    }

    fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.meta.iter().chain(&self.data).chain(&self.compactors)
    }

    /// An address for a node that was not planned.
    ///
    /// # Errors
    /// When the system has no port left.
    pub fn spare_address(&self) -> Result<SocketAddr> {
        Reserved::beside(self.meta[0].spec.listen)?.next()
    }

    /// A node that was not planned: another command line in the manner of `like`, not started.
    pub fn extra(&self, name: &str, like: &NodeSpec, args: Vec<String>) -> Node {
        let spec = NodeSpec { name: name.to_owned(), args, ..like.clone() };
        Node::new(spec, self.binary.clone(), &self.folder().join("logs"), Pids::default())
    }

    /// Stops every node with SIGTERM, data nodes first, and removes the folder.
    ///
    /// # Errors
    /// When one does not end well, or has panicked in its life.
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
        // Children end with their handles; their logs stay for whoever looks into the failure.
        let dir = dir.keep();
        eprintln!("the scenario did not finish; everything is kept in {}", dir.display());
        for node in self.nodes() {
            eprintln!("  {}: {}", node.spec.name, node.log().path().display());
        }
    }
}
