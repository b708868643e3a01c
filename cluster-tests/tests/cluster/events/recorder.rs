//! Processes of `event record`, which records a line of its input as an event and prints its outcome.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tidewater_cluster_tests::cluster::Cluster;
use tidewater_cluster_tests::{HarnessError, Result, binary, wait};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

use crate::support::SETTLED_WITHIN;

/// Limit for a process to end after its input.
const ENDED_WITHIN: Duration = Duration::from_secs(60);

/// Outcomes by number of the line, from 1.
pub(super) type Outcomes = BTreeMap<u64, String>;

/// Path of the log of all processes.
pub(super) fn log_path(cluster: &Cluster) -> PathBuf {
    cluster.directory().join("logs").join("recorder.log")
}

/// A running process.
pub(super) struct Recorder {
    child: Child,
    stdin: ChildStdin,
    lines: u64,
    outcomes: Arc<Mutex<Outcomes>>,
    reading: JoinHandle<()>,
}

impl Recorder {
    /// Starts a process with the spool of this directory.
    pub(super) fn start(cluster: &Cluster, spool: &Path) -> Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(log_path(cluster));
        let mut child = Command::new(binary::tidewater()?)
            .args(["event", "record", "--spool"])
            .arg(spool)
            .args(["--meta", &cluster.meta_addresses().join(",")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.map_err(HarnessError::io("open the recorder's log"))?)
            .kill_on_drop(true)
            .spawn()
            .map_err(HarnessError::io("start event record"))?;
        let missing = || HarnessError::violated("event record has no pipes");
        let stdin = child.stdin.take().ok_or_else(missing)?;
        let stdout = child.stdout.take().ok_or_else(missing)?;
        let outcomes = Arc::<Mutex<Outcomes>>::default();
        let reading = tokio::spawn(read(stdout, Arc::clone(&outcomes)));
        Ok(Self { child, stdin, lines: 0, outcomes, reading })
    }

    /// Sends an event; returns the number of its line.
    pub(super) async fn send(&mut self, event: &Value) -> Result<u64> {
        let sent = self.stdin.write_all(format!("{event}\n").as_bytes()).await;
        sent.map_err(HarnessError::io("send an event to event record"))?;
        self.lines += 1;
        Ok(self.lines)
    }

    /// Sends an event and waits until its receipt is `spooled`.
    pub(super) async fn record(&mut self, event: &Value) -> Result<()> {
        let line = self.send(event).await?;
        wait::until(&format!("{event} is recorded"), SETTLED_WITHIN, || async {
            match self.outcomes.lock().get(&line) {
                Some(outcome) if outcome == "spooled" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// Number of lines without an outcome.
    pub(super) fn pending(&self) -> u64 {
        self.lines - self.outcomes.lock().len() as u64
    }

    /// Ends the input and waits for the process, which exits with status 0. Returns the outcomes.
    pub(super) async fn end(self) -> Result<Outcomes> {
        let Self { mut child, stdin, outcomes, reading, .. } = self;
        drop(stdin);
        let ended = tokio::time::timeout(ENDED_WITHIN, child.wait()).await;
        let ended = ended.map_err(|_| HarnessError::violated("event record does not end"))?;
        let status = ended.map_err(HarnessError::io("wait for event record"))?;
        if !status.success() {
            return Err(HarnessError::violated(format!("event record ended with {status}")));
        }
        all(&outcomes, reading).await
    }

    /// Sends SIGKILL. Returns the outcomes that the process has printed.
    pub(super) async fn kill(self) -> Result<Outcomes> {
        let Self { mut child, outcomes, reading, .. } = self;
        child.kill().await.map_err(HarnessError::io("kill event record"))?;
        all(&outcomes, reading).await
    }
}

/// Returns the outcomes of a process that has ended, once its output is read.
async fn all(outcomes: &Mutex<Outcomes>, reading: JoinHandle<()>) -> Result<Outcomes> {
    reading.await.map_err(|error| HarnessError::violated(error.to_string()))?;
    Ok(std::mem::take(&mut *outcomes.lock()))
}

async fn read(stdout: ChildStdout, outcomes: Arc<Mutex<Outcomes>>) {
    let mut stdout = BufReader::new(stdout);
    let mut line = String::new();
    // A line without its end was cut off by a kill.
    while stdout.read_line(&mut line).await.is_ok_and(|bytes| bytes > 0) && line.ends_with('\n') {
        let (number, outcome) = line.trim_end().split_once(' ').unwrap_or_default();
        if let Ok(number) = number.parse() {
            outcomes.lock().insert(number, outcome.to_owned());
        }
        line.clear();
    }
}
