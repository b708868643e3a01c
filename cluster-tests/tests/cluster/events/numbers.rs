//! Numbered events, recorded by one process after another with the same spool.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tidewater_cluster_tests::cluster::Cluster;
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::recorder::{Outcomes, Recorder, log_path};
use super::table::{EventTable, WRITTEN_WITHIN, id_of};

/// Type of the events.
const NUMBERED: &str = "numbered";
/// Events without a receipt, at most: fewer than the queue of a recorder takes.
const MOST_PENDING: u64 = 500;
/// Pause between two events.
const PAUSE: Duration = Duration::from_millis(4);

/// Numbered events, and those of them that must be in the table.
pub(super) struct NumberedEvents {
    spool: PathBuf,
    /// Number of the next event.
    next: u64,
    /// Numbers whose receipts are `spooled`.
    spooled: BTreeSet<u64>,
    feed: Option<Feed>,
}

/// A process, and the task that sends events to it.
struct Feed {
    ending: oneshot::Sender<Ending>,
    task: JoinHandle<Result<Fed>>,
}

/// End of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// SIGKILL, while it records events.
    Kill,
    /// End of its input.
    End,
}

/// Lines that a process has read, and their outcomes.
struct Fed {
    lines: u64,
    outcomes: Outcomes,
}

impl NumberedEvents {
    /// Starts the first process.
    pub(super) fn start(cluster: &Cluster) -> Result<Self> {
        let spool = cluster.directory().join("recorder");
        let mut events = Self { spool, next: 1, spooled: BTreeSet::new(), feed: None };
        events.resume(cluster)?;
        Ok(events)
    }

    /// Starts a process that continues the numbers.
    fn resume(&mut self, cluster: &Cluster) -> Result<()> {
        let recorder = Recorder::start(cluster, &self.spool)?;
        let (ending, receiver) = oneshot::channel();
        let task = tokio::spawn(feed(recorder, self.next, receiver));
        self.feed = Some(Feed { ending, task });
        Ok(())
    }

    /// Kills the process and starts the next one.
    pub(super) async fn kill(&mut self, cluster: &Cluster) -> Result<()> {
        self.stop(Ending::Kill).await?;
        self.resume(cluster)
    }

    async fn stop(&mut self, ending: Ending) -> Result<()> {
        let Some(feed) = self.feed.take() else { return Ok(()) };
        // A process that has failed has ended its task, which has the reason.
        let _ = feed.ending.send(ending);
        let fed = feed.task.await.map_err(|error| HarnessError::violated(error.to_string()))??;
        let unexpected = fed.outcomes.values().find(|outcome| *outcome != "spooled");
        if let Some(outcome) = unexpected {
            return Err(HarnessError::violated(format!("the outcome of an event is {outcome}")));
        }
        if ending == Ending::End && fed.outcomes.len() as u64 != fed.lines {
            let outcomes = fed.outcomes.len();
            return Err(HarnessError::violated(format!("{outcomes} outcomes of {}", fed.lines)));
        }
        let first = self.next;
        self.spooled.extend(fed.outcomes.keys().map(|line| first + line - 1));
        self.next += fed.lines;
        Ok(())
    }

    /// Ends the process, and waits until the table has all events of its spool. Verifies that each event with a receipt
    /// is there once, and no other one twice.
    pub(super) async fn verify(mut self, cluster: &Cluster, table: &EventTable) -> Result<()> {
        self.stop(Ending::End).await?;
        let last = Recorder::start(cluster, &self.spool)?;
        wait::until("the table has each event with a receipt", WRITTEN_WITHIN, || async {
            let counts = counts(&table.rows().await?);
            let missing: Vec<_> =
                self.spooled.iter().filter(|number| !counts.contains_key(*number)).collect();
            match missing.first() {
                None => Ok(()),
                Some(first) => Err(format!("{} are missing, the first is {first}", missing.len())),
            }
        })
        .await?;
        last.end().await?;
        // A batch whose outcome is unknown may be repeated as long as the spool has it.
        wait::until("the spool is empty", WRITTEN_WITHIN, || async {
            match drained(cluster, &self.spool).await {
                Ok(true) => Ok(()),
                Ok(false) => Err("events are left in the spool".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await?;
        let rows = table.rows().await.map_err(HarnessError::violated)?;
        let counts = counts(&rows);
        let twice: Vec<_> = counts.iter().filter(|(_, count)| **count != 1).collect();
        let sent = self.next - 1;
        println!("{sent} sent, {} with a receipt, {} written", self.spooled.len(), counts.len());
        let unknown = counts.keys().find(|number| **number >= self.next);
        let missing = self.spooled.iter().find(|number| !counts.contains_key(*number));
        if !twice.is_empty() || unknown.is_some() || missing.is_some() {
            let found = format!("twice {twice:?}, never sent {unknown:?}, missing {missing:?}");
            return Err(HarnessError::violated(found));
        }
        if self.spooled.is_empty() || (self.spooled.len() as u64) < sent / 2 {
            return Err(HarnessError::violated("too few events had a receipt to verify anything"));
        }
        expect_unique_ids(&rows)
    }
}

/// Runs a process with the spool and no input; returns whether it has left no event in the spool.
async fn drained(cluster: &Cluster, spool: &Path) -> Result<bool> {
    let log = log_path(cluster);
    let text =
        || std::fs::read_to_string(&log).map_err(HarnessError::io("read the recorder's log"));
    let before = text()?.len();
    Recorder::start(cluster, spool)?.end().await?;
    Ok(!text()?.get(before..).unwrap_or_default().contains("left in the spool"))
}

/// Verifies that no event is in the table twice.
pub(super) fn expect_unique_ids(rows: &[Value]) -> Result<()> {
    let mut ids = BTreeSet::new();
    match rows.iter().find(|row| !ids.insert(id_of(row))) {
        Some(row) => Err(HarnessError::violated(format!("the table has twice {row}"))),
        None => Ok(()),
    }
}

/// Number of rows of each numbered event.
fn counts(rows: &[Value]) -> BTreeMap<u64, usize> {
    let mut counts = BTreeMap::new();
    for row in rows.iter().filter(|row| row["type"] == NUMBERED) {
        *counts.entry(row["payload"]["number"].as_u64().unwrap_or_default()).or_default() += 1;
    }
    counts
}

/// Sends numbered events to a process until it is to end.
async fn feed(
    mut recorder: Recorder,
    first: u64,
    mut ending: oneshot::Receiver<Ending>,
) -> Result<Fed> {
    let mut lines = 0;
    let ending = loop {
        // An event without a receipt has no outcome to verify: the queue must take all.
        if recorder.pending() < MOST_PENDING {
            let event = json!({ "type": NUMBERED, "payload": { "number": first + lines } });
            lines = recorder.send(&event).await?;
        }
        tokio::select! {
            ending = &mut ending => break ending.unwrap_or(Ending::Kill),
            () = sleep(PAUSE) => {}
        }
    };
    let outcomes = match ending {
        Ending::Kill => recorder.kill().await?,
        Ending::End => recorder.end().await?,
    };
    Ok(Fed { lines, outcomes })
}
