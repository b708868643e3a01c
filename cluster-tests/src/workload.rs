//! Writers that run during faults.
//!
//! Each writer has its own client, sends one write at a time, and records the outcome of each. Rows are
//! identified by (writer, serial). The test never sends a row twice; only the client retries.

mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tidewater_client::ClientOptions;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use writer::Writer;

use crate::cluster::{Cluster, LOG_TABLE};
use crate::oracle::{Attempt, Outcome};
use crate::{HarnessError, Result, wait};

/// Limit for writes to resume after a fault.
const PROGRESS_WITHIN: Duration = Duration::from_secs(60);
/// Longest time, in microseconds, that an answer of a killed node can be in flight on loopback.
const MAX_IN_FLIGHT_MICROS: u64 = 100_000;

/// Options of the writers.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions {
    /// Number of concurrent writers.
    pub writers: i64,
    /// Number of the first writer. It identifies rows, so later loads of a table must continue the count.
    pub first_writer: i64,
    /// Rows per write.
    pub rows: i64,
    /// Bytes of the text of each row.
    pub note: usize,
    /// Pause after each write: a scenario needs writes in flight, not a saturated machine.
    pub pause: Duration,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { writers: 4, first_writer: 1, rows: 5, note: 40, pause: Duration::from_millis(5) }
    }
}

impl LoadOptions {
    /// Large writes without pauses.
    pub fn unthrottled() -> Self {
        Self { pause: Duration::ZERO, ..Self::heavy() }
    }

    /// Large writes that fill memtables.
    pub fn heavy() -> Self {
        Self { rows: 1_000, note: 200, pause: Duration::from_millis(20), ..Self::default() }
    }
}

/// State shared by the writers and the scenario.
#[derive(Debug)]
struct WorkloadState {
    stop: AtomicBool,
    acknowledged: AtomicU64,
    origin: Instant,
    /// Microseconds from `origin` to the last [`Workload::mark`].
    mark: AtomicU64,
    /// Microseconds from `origin` to the first acknowledgement by the cluster after the mark.
    resumed: AtomicU64,
    /// Microseconds of the slowest acknowledged write since the mark, from its begin.
    slowest: AtomicU64,
    /// Microseconds from `origin` to the last acknowledgement, or to a later mark.
    latest: AtomicU64,
    /// Microseconds of the longest time since the mark without an acknowledgement to any writer.
    gap: AtomicU64,
}

impl WorkloadState {
    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn record_acknowledgement(&self, begun: u64) {
        self.acknowledged.fetch_add(1, Ordering::SeqCst);
        let mark = self.mark.load(Ordering::SeqCst);
        let now = self.now();
        self.slowest.fetch_max(now.saturating_sub(begun), Ordering::SeqCst);
        let latest = self.latest.fetch_max(now, Ordering::SeqCst);
        self.gap.fetch_max(now.saturating_sub(latest), Ordering::SeqCst);
        if is_after_recovery(mark, begun, now) {
            let _ = self.resumed.compare_exchange(0, now, Ordering::SeqCst, Ordering::SeqCst);
        }
    }
}

/// Returns true if an acknowledgement shows that the cluster serves after the mark. The answer to a
/// write begun before the mark may have been in flight when the node was killed. It counts only if it
/// arrives later than any such answer could, which is far earlier than an election ends.
fn is_after_recovery(mark: u64, begun: u64, now: u64) -> bool {
    begun > mark || now > mark + MAX_IN_FLIGHT_MICROS
}

/// Running writers of [`LOG_TABLE`].
#[derive(Debug)]
pub struct Workload {
    shared: Arc<WorkloadState>,
    tasks: Vec<JoinHandle<Result<Vec<Attempt>>>>,
}

impl Workload {
    /// Starts the writers and waits for the first acknowledged writes.
    ///
    /// # Errors
    /// If a client cannot connect or no write is acknowledged in time.
    pub async fn start(cluster: &Cluster, load: LoadOptions) -> Result<Self> {
        let shared = Arc::new(WorkloadState {
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            origin: Instant::now(),
            mark: AtomicU64::new(0),
            resumed: AtomicU64::new(0),
            slowest: AtomicU64::new(0),
            latest: AtomicU64::new(0),
            gap: AtomicU64::new(0),
        });
        let mut tasks = Vec::new();
        for number in load.first_writer..load.first_writer + load.writers {
            let writer = Writer::connect(options(cluster), LOG_TABLE, number).await?;
            tasks.push(tokio::spawn(run(writer, load, shared.clone())));
        }
        let workload = Self { shared, tasks };
        workload.progress(u64::try_from(load.writers * 3).unwrap_or(1)).await?;
        Ok(workload)
    }

    /// Number of acknowledged writes.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::SeqCst)
    }

    /// Waits until `writes` more writes are acknowledged.
    ///
    /// # Errors
    /// After a minute without an acknowledged write.
    pub async fn progress(&self, writes: u64) -> Result<()> {
        let goal = self.acknowledged() + writes;
        loop {
            let before = self.acknowledged();
            if before >= goal {
                return Ok(());
            }
            wait::until("writes are acknowledged", PROGRESS_WITHIN, || async {
                let now = self.acknowledged();
                if now > before { Ok(()) } else { Err(format!("{} to go", goal - now)) }
            })
            .await?;
        }
    }

    /// Records the time of a fault, or of an operation.
    pub fn mark(&self) {
        self.shared.mark.store(self.shared.now(), Ordering::SeqCst);
        self.shared.resumed.store(0, Ordering::SeqCst);
        self.shared.slowest.store(0, Ordering::SeqCst);
        self.shared.latest.fetch_max(self.shared.now(), Ordering::SeqCst);
        self.shared.gap.store(0, Ordering::SeqCst);
    }

    /// Time of the slowest write acknowledged since the mark, from its begin with all retries: at least the
    /// longest time in which one of its keys could not be written.
    pub fn slowest_write(&self) -> Duration {
        Duration::from_micros(self.shared.slowest.load(Ordering::SeqCst))
    }

    /// Longest time since the mark in which no write of any writer was acknowledged.
    pub fn longest_gap(&self) -> Duration {
        Duration::from_micros(self.shared.gap.load(Ordering::SeqCst))
    }

    /// Waits for the first write acknowledged after the mark; returns the time between them.
    ///
    /// # Errors
    /// If no write is acknowledged within a minute.
    pub async fn wait_until_resumed(&self) -> Result<Duration> {
        wait::until("a write is acknowledged again", PROGRESS_WITHIN, || async {
            let mark = self.shared.mark.load(Ordering::SeqCst);
            match self.shared.resumed.load(Ordering::SeqCst) {
                0 => Err("none".to_owned()),
                at => Ok(Duration::from_micros(at.saturating_sub(mark))),
            }
        })
        .await
    }

    /// Lets each writer finish its current write and returns all attempts.
    ///
    /// # Errors
    /// If a writer has failed.
    pub async fn stop(self) -> Result<Vec<Attempt>> {
        self.shared.stop.store(true, Ordering::SeqCst);
        let mut attempts = Vec::new();
        for task in self.tasks {
            let joined = task.await.map_err(|error| HarnessError::violated(error.to_string()))?;
            attempts.extend(joined?);
        }
        Ok(attempts)
    }
}

async fn run(
    writer: Writer,
    load: LoadOptions,
    shared: Arc<WorkloadState>,
) -> Result<Vec<Attempt>> {
    let mut attempts = Vec::new();
    let mut first = 1;
    while !shared.stop.load(Ordering::SeqCst) {
        let begun = shared.now();
        let attempt = writer.write(first, load.rows, load.note).await?;
        first += load.rows;
        if attempt.outcome == Outcome::Acknowledged {
            shared.record_acknowledgement(begun);
        }
        attempts.push(attempt);
        tokio::time::sleep(load.pause).await;
    }
    Ok(attempts)
}

/// Returns the options of a client of this cluster.
pub fn options(cluster: &Cluster) -> ClientOptions {
    ClientOptions { meta: cluster.meta_addresses(), ..ClientOptions::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_in_flight_does_not_count_as_recovery() {
        let mark = 1_000_000;
        assert!(!is_after_recovery(mark, mark - 500, mark + 300), "in flight");
        assert!(is_after_recovery(mark, mark - 500, mark + 700_000), "retried at another node");
        assert!(is_after_recovery(mark, mark + 1, mark + 2), "begun after the mark");
    }
}
