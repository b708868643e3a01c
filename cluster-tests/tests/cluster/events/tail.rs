//! A process of `event tail`, and the delay with which it prints events.

use std::collections::BTreeMap;
use std::fs::File;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use parking_lot::Mutex;
use serde_json::Value;
use tidewater_cluster_tests::cluster::Cluster;
use tidewater_cluster_tests::{HarnessError, Result, binary, wait};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep};

use super::table::{EventTable, id_of, now_ns};
use crate::splits::distribution;
use crate::support::{SETTLED_WITHIN, keep_routes};

/// Pause between two scans of the table.
const SCAN_EVERY: Duration = Duration::from_millis(100);
/// Pause between two calls that become events.
const CALL_EVERY: Duration = Duration::from_secs(1);
/// Longest delay: 2 s, and a margin for a busy machine.
pub(super) const PRINTED_WITHIN: Duration = Duration::from_secs(8);

/// Times by the id of an event.
type Times = BTreeMap<String, Instant>;

/// A running `event tail`, and a task that scans the table.
pub(super) struct Tail {
    child: Child,
    printed: Arc<Mutex<Printed>>,
    /// End of the first scan that found an event.
    seen: Arc<Mutex<Times>>,
    scanning: AbortHandle,
    reading: JoinHandle<()>,
}

/// Lines that the process has printed.
#[derive(Debug, Default)]
struct Printed {
    times: Times,
    /// Type of each event, and the nanoseconds from its time to its line.
    delays: Vec<(String, i64)>,
    /// Lines without an id or a time, and those of an event that was printed before.
    wrong: Vec<String>,
}

impl Tail {
    /// Starts the process.
    pub(super) fn start(cluster: &Cluster, table: &EventTable) -> Result<Self> {
        let log = File::create(cluster.directory().join("logs").join("tail.log"));
        let mut child = Command::new(binary::tidewater()?)
            .args(["event", "tail", "--output", "json"])
            .args(["--meta", &cluster.meta_addresses().join(",")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.map_err(HarnessError::io("create the log of event tail"))?)
            .kill_on_drop(true)
            .spawn()
            .map_err(HarnessError::io("start event tail"))?;
        let stdout = child.stdout.take();
        let stdout = stdout.ok_or_else(|| HarnessError::violated("event tail has no stdout"))?;
        let printed = Arc::<Mutex<Printed>>::default();
        let seen = Arc::<Mutex<Times>>::default();
        let reading = tokio::spawn(read(BufReader::new(stdout).lines(), Arc::clone(&printed)));
        let scanning = tokio::spawn(scan(table.clone(), Arc::clone(&seen))).abort_handle();
        Ok(Self { child, printed, seen, scanning, reading })
    }

    /// Waits until the process prints events, of administrative calls.
    pub(super) async fn wait_until_following(&self, cluster: &Cluster) -> Result<()> {
        wait::until("event tail prints an event", SETTLED_WITHIN, || async {
            keep_routes(cluster).await.map_err(|error| error.to_string())?;
            sleep(CALL_EVERY).await;
            let printed = self.printed.lock();
            if printed.times.is_empty() { Err(format!("{printed:?}")) } else { Ok(()) }
        })
        .await
    }

    /// Waits until the process has printed this event.
    pub(super) async fn wait_for(&self, event: &Value) -> Result<()> {
        let id = id_of(event);
        wait::until(&format!("event tail prints {event}"), SETTLED_WITHIN, || async {
            let printed = self.printed.lock();
            if printed.times.contains_key(&id) { Ok(()) } else { Err(format!("{printed:?}")) }
        })
        .await
    }

    /// Returns the times from the events of a type to their lines.
    pub(super) fn delays(&self, event_type: &str) -> Vec<Duration> {
        let printed = self.printed.lock();
        let of_type = printed.delays.iter().filter(|(known, _)| known == event_type);
        // A time has whole milliseconds, rounded down.
        of_type.map(|(_, ns)| Duration::from_nanos(u64::try_from(*ns).unwrap_or(0))).collect()
    }

    /// Stops the process. Verifies that it has printed each event once that appeared in the table from `first` on and
    /// before `last`, within the time limit, and prints the delays.
    pub(super) async fn verify(mut self, first: &Value, last: &Value) -> Result<()> {
        self.wait_for(last).await?;
        wait::until("a scan finds the last event", SETTLED_WITHIN, || async {
            let found = self.seen.lock().contains_key(&id_of(last));
            if found { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await?;
        self.scanning.abort();
        self.child.kill().await.map_err(HarnessError::io("stop event tail"))?;
        self.reading.await.map_err(|error| HarnessError::violated(error.to_string()))?;
        let printed = std::mem::take(&mut *self.printed.lock());
        let seen = std::mem::take(&mut *self.seen.lock());
        if !printed.wrong.is_empty() {
            return Err(HarnessError::violated(format!("event tail printed {:?}", printed.wrong)));
        }
        let bounds = (seen.get(&id_of(first)), seen.get(&id_of(last)));
        let (Some(from), Some(to)) = bounds else {
            return Err(HarnessError::violated("no scan has found the first and the last event"));
        };
        // Others that the scan of the last event found may have become visible after it.
        let expected = seen.iter().filter(|(_, at)| *at >= from && *at < to);
        let mut delays = Vec::new();
        let mut missing = Vec::new();
        for (id, at) in expected {
            match printed.times.get(id) {
                Some(time) => delays.push(time.saturating_duration_since(*at)),
                None => missing.push(id),
            }
        }
        if !missing.is_empty() {
            return Err(HarnessError::violated(format!("event tail did not print {missing:?}")));
        }
        let longest = delays.iter().max().copied().unwrap_or_default();
        println!("event tail: {} events, delay {}", delays.len(), distribution(delays));
        if longest > PRINTED_WITHIN {
            let found = format!("event tail printed an event after {longest:?}");
            return Err(HarnessError::violated(found));
        }
        Ok(())
    }
}

async fn read(mut lines: Lines<BufReader<ChildStdout>>, printed: Arc<Mutex<Printed>>) {
    while let Ok(Some(line)) = lines.next_line().await {
        let printed_ns = now_ns();
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        let id = id_of(&event);
        let event_type = event["type"].as_str().unwrap_or_default().to_owned();
        let time = string_to_timestamp_nanos(event["timestamp"].as_str().unwrap_or_default());
        let mut printed = printed.lock();
        let is_new = id.len() == 32 && printed.times.insert(id, Instant::now()).is_none();
        match time {
            Ok(time_ns) if is_new => {
                printed.delays.push((event_type, printed_ns.saturating_sub(time_ns)));
            }
            _ => printed.wrong.push(line),
        }
    }
}

/// Scans the table again and again. During an outage there are no scans.
async fn scan(table: EventTable, seen: Arc<Mutex<Times>>) {
    loop {
        let rows = table.rows().await.unwrap_or_default();
        // A scan that waits for a new leader begins long before the rows are written.
        let ended = Instant::now();
        for row in rows {
            seen.lock().entry(id_of(&row)).or_insert(ended);
        }
        sleep(SCAN_EVERY).await;
    }
}
