//! One server process.
//!
//! A node is *stopped* (no process), *running*, or *frozen* (SIGSTOP). Signals go by process id to
//! children that this harness started, never by name. stdout and stderr go to files that outlive
//! the node and are appended to by every restart.

mod log;
mod memory;
mod signal;

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::process::{Child, Command};
use tokio::time::Instant;

pub use log::LogFile;
pub use memory::Memory;
pub use signal::Signal;

use crate::{HarnessError, Result};

/// How long a node may take to serve. Generous: a test machine may be busy.
pub const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a node may take to stop when asked to.
pub const STOPPED_WITHIN: Duration = Duration::from_secs(40);

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Member of group 0.
    Meta,
    /// Hosts data groups.
    Data,
    /// Merges files.
    Compactor,
}

impl Role {
    /// The subcommand that starts it.
    pub fn command(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Data => "data",
            Self::Compactor => "compactor",
        }
    }
}

/// How a node is started, every time the same.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    /// For people and file names, e.g. `data-2`.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// The address it binds.
    pub listen: SocketAddr,
    /// The address that others are told.
    pub advertise: SocketAddr,
    /// Its data directory, if the role has one.
    pub data_dir: Option<PathBuf>,
    /// All arguments after the binary's name.
    pub args: Vec<String>,
    /// A program with arguments that runs the binary and becomes it; empty: none.
    pub launcher: Vec<String>,
    /// Environment on top of the test's own.
    pub env: Vec<(String, String)>,
}

/// The process ids of running nodes by node name: the proxies learn from it who connects.
pub type Pids = Arc<Mutex<Vec<(String, u32)>>>;

/// One server process.
#[derive(Debug)]
pub struct Node {
    /// How it is started.
    pub spec: NodeSpec,
    binary: PathBuf,
    child: Option<Child>,
    out: LogFile,
    log: LogFile,
    pids: Pids,
}

impl Node {
    /// A stopped node whose output goes to `<logs>/<name>.out` and `.log`.
    pub fn new(spec: NodeSpec, binary: PathBuf, logs: &Path, pids: Pids) -> Self {
        let out = LogFile::new(logs.join(format!("{}.out", spec.name)));
        let log = LogFile::new(logs.join(format!("{}.log", spec.name)));
        Self { spec, binary, child: None, out, log, pids }
    }

    /// Starts the process and waits until it says `ready`.
    ///
    /// # Errors
    /// The log's last lines when it ends or is not ready in time.
    pub async fn start(&mut self) -> Result<()> {
        self.spawn()?;
        self.ready(READY_WITHIN).await
    }

    /// Starts the process and does not wait.
    ///
    /// # Errors
    /// When it cannot be started, or runs already.
    pub fn spawn(&mut self) -> Result<()> {
        if self.child.is_some() {
            return Err(HarnessError::violated(format!("{} runs already", self.spec.name)));
        }
        let words: Vec<&OsStr> = self.spec.launcher.iter().map(OsStr::new).collect();
        let words = [words, vec![self.binary.as_os_str()]].concat();
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .args(&self.spec.args)
            .envs(self.spec.env.iter().map(|(k, v)| (k, v)))
            .env_remove("TIDEWATER_META")
            .stdin(Stdio::null())
            .stdout(self.out.append()?)
            .stderr(self.log.append()?)
            .kill_on_drop(true);
        let child = command
            .spawn()
            .map_err(HarnessError::io(format!("start {}", self.binary.display())))?;
        if let Some(pid) = child.id() {
            self.pids.lock().push((self.spec.name.clone(), pid));
        }
        self.child = Some(child);
        Ok(())
    }

    /// Waits for the `ready` line of the process that runs now.
    ///
    /// # Errors
    /// The log's last lines when it ends or is not ready within `limit`.
    pub async fn ready(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            if self.out.since_start()?.lines().any(|line| line.starts_with("ready")) {
                // A cluster is created once: the same node started again must not ask for it.
                self.spec.args.retain(|argument| argument != "--bootstrap");
                return Ok(());
            }
            if let Some(status) = self.exited()? {
                return Err(self.exit_error(status));
            }
            if Instant::now() >= deadline {
                return Err(HarnessError::NotReady {
                    node: self.spec.name.clone(),
                    limit,
                    log: self.log.path().to_owned(),
                    tail: self.log.tail(),
                });
            }
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    }

    /// Waits for the end of a process that should end by itself.
    ///
    /// # Errors
    /// When it still runs after `limit`.
    pub async fn ended(&mut self, limit: Duration) -> Result<ExitStatus> {
        let Some(child) = self.child.as_mut() else {
            return Err(HarnessError::violated(format!("{} does not run", self.spec.name)));
        };
        match tokio::time::timeout(limit, child.wait()).await {
            Ok(status) => {
                let status = status.map_err(HarnessError::io("wait for a node"))?;
                self.forget();
                Ok(status)
            }
            Err(_) => Err(HarnessError::Timeout {
                what: format!("{} ends", self.spec.name),
                limit,
                last: self.log.tail(),
            }),
        }
    }

    /// Whether the process runs (frozen counts).
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// kill -9, and waits until the system has taken the process away.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub async fn kill(&mut self) -> Result<()> {
        if let Some(child) = self.child.as_mut() {
            child.kill().await.map_err(HarnessError::io(format!("kill {}", self.spec.name)))?;
        }
        self.forget();
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// When it does not end, or not with status 0.
    pub async fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::Term).await?;
        let status = self.ended(STOPPED_WITHIN).await?;
        if status.success() { Ok(()) } else { Err(self.exit_error(status)) }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the node does not run.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        match self.child.as_ref().and_then(Child::id) {
            Some(pid) => signal::send(pid, signal).await,
            None => Err(HarnessError::violated(format!("{} does not run", self.spec.name))),
        }
    }

    /// Forgets everything the stopped node had on its disk.
    ///
    /// # Errors
    /// When the folder cannot be removed.
    pub fn wipe(&self) -> Result<()> {
        match &self.spec.data_dir {
            Some(dir) if dir.exists() => std::fs::remove_dir_all(dir)
                .map_err(HarnessError::io(format!("remove {}", dir.display()))),
            _ => Ok(()),
        }
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Physical memory of the process since it was started.
    ///
    /// # Errors
    /// When it does not run, or the system does not say.
    pub fn memory(&self) -> Result<Memory> {
        match self.pid() {
            Some(pid) => Memory::of(pid),
            None => Err(HarnessError::violated(format!("{} does not run", self.spec.name))),
        }
    }

    /// What the node has written to stderr.
    pub fn log(&self) -> &LogFile {
        &self.log
    }

    /// What the node has written to stdout.
    pub fn out(&self) -> &LogFile {
        &self.out
    }

    fn exited(&mut self) -> Result<Option<ExitStatus>> {
        let Some(child) = self.child.as_mut() else { return Ok(None) };
        let status = child.try_wait().map_err(HarnessError::io("look at a node"))?;
        if status.is_some() {
            self.forget();
        }
        Ok(status)
    }

    fn forget(&mut self) {
        self.child = None;
        self.pids.lock().retain(|(name, _)| *name != self.spec.name);
    }

    fn exit_error(&self, status: ExitStatus) -> HarnessError {
        HarnessError::Exited {
            node: self.spec.name.clone(),
            status: status.to_string(),
            log: self.log.path().to_owned(),
            tail: self.log.tail(),
        }
    }
}
