//! A server process.
//!
//! A node is *stopped* (no process), *running*, or *frozen* (SIGSTOP). The harness signals only its own
//! child processes, by process id. stdout and stderr go to files, to which every restart appends.

mod log;
mod memory;
mod processor;
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
pub use signal::{Signal, send as send_signal};

use crate::{HarnessError, Result};

/// Limit for a node to become ready, with a margin for a busy machine.
pub const READY_WITHIN: Duration = Duration::from_secs(60);
/// Limit for a node to stop after SIGTERM.
pub const STOPPED_WITHIN: Duration = Duration::from_secs(40);

/// Role of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Member of group 0.
    Meta,
    /// Host of data groups.
    Data,
    /// Host of compaction jobs.
    Compactor,
}

impl Role {
    /// Subcommand that starts the role.
    pub fn command(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Data => "data",
            Self::Compactor => "compactor",
        }
    }
}

/// Start parameters of a node, the same for every start.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    /// Name in messages and file names, e.g. `data-2`.
    pub name: String,
    /// Role of the node.
    pub role: Role,
    /// Address that the node binds.
    pub listen: SocketAddr,
    /// Address that the node advertises.
    pub advertise: SocketAddr,
    /// Data directory, if the role has one.
    pub data_dir: Option<PathBuf>,
    /// Arguments after the name of the binary.
    pub args: Vec<String>,
    /// Program with arguments that executes the binary in its place; empty: none.
    pub launcher: Vec<String>,
    /// Environment variables in addition to those of the test.
    pub env: Vec<(String, String)>,
}

/// Process ids of running nodes by node name. Proxies use them to identify the source of a connection.
pub type Pids = Arc<Mutex<Vec<(String, u32)>>>;

/// A server process.
#[derive(Debug)]
pub struct Node {
    /// Start parameters.
    pub spec: NodeSpec,
    binary: PathBuf,
    child: Option<Child>,
    out: LogFile,
    log: LogFile,
    pids: Pids,
}

impl Node {
    /// Creates a stopped node whose output goes to `<logs>/<name>.out` and `.log`.
    pub fn new(spec: NodeSpec, binary: PathBuf, logs: &Path, pids: Pids) -> Self {
        let out = LogFile::new(logs.join(format!("{}.out", spec.name)));
        let log = LogFile::new(logs.join(format!("{}.log", spec.name)));
        Self { spec, binary, child: None, out, log, pids }
    }

    /// Sets the binary of the next starts.
    pub fn set_binary(&mut self, binary: PathBuf) {
        self.binary = binary;
    }

    /// Starts the process and waits until it prints `ready`.
    ///
    /// # Errors
    /// If the process exits or is not ready in time, with the last lines of the log.
    pub async fn start(&mut self) -> Result<()> {
        self.spawn()?;
        self.wait_until_ready(READY_WITHIN).await
    }

    /// Starts the process without waiting.
    ///
    /// # Errors
    /// If the process cannot be started or is already running.
    pub fn spawn(&mut self) -> Result<()> {
        if self.child.is_some() {
            return Err(HarnessError::violated(format!("{} is already running", self.spec.name)));
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

    /// Waits for the `ready` line of the running process.
    ///
    /// # Errors
    /// If the process exits or is not ready within `limit`, with the last lines of the log.
    pub async fn wait_until_ready(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            if self.out.since_start()?.lines().any(|line| line.starts_with("ready")) {
                // A cluster is created once: a restart of the node must not bootstrap again.
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

    /// Waits until the process exits.
    ///
    /// # Errors
    /// If the process is still running after `limit`.
    pub async fn wait_for_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        let Some(child) = self.child.as_mut() else {
            return Err(HarnessError::violated(format!("{} is not running", self.spec.name)));
        };
        match tokio::time::timeout(limit, child.wait()).await {
            Ok(status) => {
                let status = status.map_err(HarnessError::io("wait for a node"))?;
                self.mark_stopped();
                Ok(status)
            }
            Err(_) => Err(HarnessError::Timeout {
                what: format!("{} exits", self.spec.name),
                limit,
                last: self.log.tail(),
            }),
        }
    }

    /// Returns true if the process is running or frozen.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Sends SIGKILL and waits until the process has exited.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub async fn kill(&mut self) -> Result<()> {
        if let Some(child) = self.child.as_mut() {
            child.kill().await.map_err(HarnessError::io(format!("kill {}", self.spec.name)))?;
        }
        self.mark_stopped();
        Ok(())
    }

    /// Sends SIGTERM and waits until the process exits.
    ///
    /// # Errors
    /// If the process does not exit in time with status 0.
    pub async fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::Term).await?;
        let status = self.wait_for_exit(STOPPED_WITHIN).await?;
        if status.success() { Ok(()) } else { Err(self.exit_error(status)) }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If the node is not running.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        match self.child.as_ref().and_then(Child::id) {
            Some(pid) => signal::send(pid, signal).await,
            None => Err(HarnessError::violated(format!("{} is not running", self.spec.name))),
        }
    }

    /// Removes the data directory of the stopped node.
    ///
    /// # Errors
    /// If the directory cannot be removed.
    pub fn wipe(&self) -> Result<()> {
        match &self.spec.data_dir {
            Some(dir) if dir.exists() => std::fs::remove_dir_all(dir)
                .map_err(HarnessError::io(format!("remove {}", dir.display()))),
            _ => Ok(()),
        }
    }

    /// Process id of the running node.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Returns the resident memory of the running process.
    ///
    /// # Errors
    /// If the node is not running or the system does not report its memory.
    pub fn memory(&self) -> Result<Memory> {
        match self.pid() {
            Some(pid) => Memory::of_process(pid),
            None => Err(HarnessError::violated(format!("{} is not running", self.spec.name))),
        }
    }

    /// Returns the processor time that the running process has used, over all its threads.
    ///
    /// # Errors
    /// If the node is not running or the system does not report its time.
    pub fn processor_time(&self) -> Result<Duration> {
        match self.pid() {
            Some(pid) => processor::time_of_process(pid),
            None => Err(HarnessError::violated(format!("{} is not running", self.spec.name))),
        }
    }

    /// File with the stderr of the node.
    pub fn log(&self) -> &LogFile {
        &self.log
    }

    /// File with the stdout of the node.
    pub fn out(&self) -> &LogFile {
        &self.out
    }

    fn exited(&mut self) -> Result<Option<ExitStatus>> {
        let Some(child) = self.child.as_mut() else { return Ok(None) };
        let status = child.try_wait().map_err(HarnessError::io("check the status of a node"))?;
        if status.is_some() {
            self.mark_stopped();
        }
        Ok(status)
    }

    fn mark_stopped(&mut self) {
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
