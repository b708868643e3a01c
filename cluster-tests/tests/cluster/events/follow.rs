//! Delays of `event tail`, and its end by signals and closed pipes.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::node::{Signal, send_signal};
use tidewater_cluster_tests::{HarnessError, Result, binary, wait};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{sleep, timeout};

use super::recorder::Recorder;
use super::table::{EventTable, WRITTEN_WITHIN};
use super::tail::{PRINTED_WITHIN, Tail};
use crate::splits::distribution;
use crate::support::wait_for_level;

/// Events whose delays are measured.
const TIMED: u64 = 20;
/// Pause between two of them: they are recorded at different times of a batch's interval, and of a read's.
const PAUSE: Duration = Duration::from_millis(730);
/// Limit of the median delay: the interval of a batch (1 s), that of reads (0.5 s), and the calls.
const USUALLY_WITHIN: Duration = Duration::from_secs(2);
/// Events that are more than a pipe takes.
const MANY: usize = 1_000;
/// Length of the payload of each.
const LENGTH: usize = 1_000;
/// Limit for a process to end.
const ENDED_WITHIN: Duration = Duration::from_secs(30);

/// Item 2 of the issue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tail_prints_events_within_two_seconds() -> Result<()> {
    let cluster = ClusterPlan::default().events().start().await?;
    wait_for_level(&cluster).await?;
    let table = EventTable::connect(&cluster).await?;
    let tail = Tail::start(&cluster, &table)?;
    tail.wait_until_following(&cluster).await?;
    let mut recorder = Recorder::start(&cluster, &cluster.directory().join("recorder"))?;
    // The recorder connects to the cluster with its first event.
    recorder.record(&json!({ "type": "first_timed" })).await?;
    let first = table.wait_for("the first event", |row| row["type"] == "first_timed").await?;
    for number in 0..TIMED {
        recorder.record(&json!({ "type": "timed", "payload": number })).await?;
        sleep(PAUSE).await;
    }
    recorder.record(&json!({ "type": "last_timed" })).await?;
    let last = table.wait_for("the last event", |row| row["type"] == "last_timed").await?;
    tail.wait_for(&last).await?;
    let mut delays = tail.delays("timed");
    delays.sort();
    assert_eq!(delays.len() as u64, TIMED);
    println!("event tail: {TIMED} events from record to line, {}", distribution(delays.clone()));
    let median = delays[delays.len() / 2];
    assert!(median <= USUALLY_WITHIN, "the median is {median:?}");
    let longest = delays.last().copied().unwrap_or_default();
    assert!(longest <= PRINTED_WITHIN, "an event was printed after {longest:?}");
    tail.verify(&first, &last).await?;
    recorder.end().await?;
    cluster.finish().await
}

/// A process of `event tail` that prints old events first.
struct Process {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    fn start(cluster: &Cluster) -> Result<Self> {
        let mut child = Command::new(binary::tidewater()?)
            .args(["event", "tail", "--since", "1h", "--type", "burst", "--output", "json"])
            .args(["--meta", &cluster.meta_addresses().join(",")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(HarnessError::io("start event tail"))?;
        let stdout = child.stdout.take();
        let stdout = stdout.ok_or_else(|| HarnessError::violated("event tail has no stdout"))?;
        Ok(Self { child, stdout: BufReader::new(stdout) })
    }

    /// Returns the first line. The process then waits for room in its pipe.
    async fn first_line(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = timeout(WRITTEN_WITHIN, self.stdout.read_line(&mut line)).await;
        let read = read.map_err(|_| HarnessError::violated("event tail prints nothing"))?;
        read.map_err(HarnessError::io("read a line of event tail"))?;
        Ok(line)
    }

    /// Sends a signal, and returns the output from then on.
    async fn interrupt(&mut self, signal: Signal) -> Result<String> {
        let pid = self.child.id();
        let pid = pid.ok_or_else(|| HarnessError::violated("event tail has ended"))?;
        send_signal(pid, signal).await?;
        let mut rest = String::new();
        let read = timeout(ENDED_WITHIN, self.stdout.read_to_string(&mut rest)).await;
        let read = read.map_err(|_| {
            HarnessError::violated(format!("event tail does not end after {signal:?}"))
        })?;
        read.map_err(HarnessError::io("read the output of event tail"))?;
        Ok(rest)
    }

    /// Closes the pipe and waits for the end. Returns the status and what was written to stderr.
    async fn ended(mut self) -> Result<(ExitStatus, String)> {
        drop(self.stdout);
        let status = timeout(ENDED_WITHIN, self.child.wait()).await;
        let status = status.map_err(|_| HarnessError::violated("event tail does not end"))?;
        let status = status.map_err(HarnessError::io("wait for event tail"))?;
        let mut errors = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            let read = stderr.read_to_string(&mut errors).await;
            read.map_err(HarnessError::io("read the errors of event tail"))?;
        }
        Ok((status, errors))
    }
}

/// Writes many events, and waits until the table has them.
async fn write_burst(cluster: &Cluster, table: &EventTable) -> Result<()> {
    let mut recorder = Recorder::start(cluster, &cluster.directory().join("recorder"))?;
    let payload = "x".repeat(LENGTH);
    for _ in 0..MANY {
        recorder.send(&json!({ "type": "burst", "payload": payload })).await?;
    }
    wait::until("the table has all events", WRITTEN_WITHIN, || async {
        let rows = table.rows().await?;
        let found = rows.iter().filter(|row| row["type"] == "burst").count();
        if found == MANY { Ok(()) } else { Err(format!("{found} of {MANY}")) }
    })
    .await?;
    recorder.end().await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tail_ends_on_signals_and_closed_pipes() -> Result<()> {
    let cluster = ClusterPlan::default().nodes(1, 1, 0).events().start().await?;
    wait_for_level(&cluster).await?;
    let table = EventTable::connect(&cluster).await?;
    write_burst(&cluster, &table).await?;

    for signal in [Signal::Interrupt, Signal::Term] {
        let mut process = Process::start(&cluster)?;
        let output = process.first_line().await? + &process.interrupt(signal).await?;
        let (status, errors) = process.ended().await?;
        assert_eq!((status.code(), errors.as_str()), (Some(0), ""), "{signal:?}");
        assert!(output.ends_with('\n'), "{signal:?}: the last line is cut off: {output}");
        let lines: Vec<&str> = output.lines().collect();
        for line in &lines {
            let event: serde_json::Result<Value> = serde_json::from_str(line);
            assert!(event.is_ok_and(|event| event["type"] == "burst"), "{signal:?}: {line}");
        }
        // It ends between two lines of a read.
        assert!(lines.len() < MANY, "{signal:?}: all events were printed");
        println!("{signal:?}: ended after {} lines", lines.len());
    }

    // As `event tail | head -1`.
    let mut process = Process::start(&cluster)?;
    let line = process.first_line().await?;
    assert!(line.ends_with('\n'), "{line}");
    let (status, errors) = process.ended().await?;
    assert_eq!((status.code(), errors.as_str()), (Some(0), ""));
    cluster.finish().await
}
