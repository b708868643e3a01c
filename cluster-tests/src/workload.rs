//! Writers that run while something is broken.
//!
//! Each writer has a client of its own, sends one write at a time, and keeps a book of what it was
//! told. Rows are named by (writer, serial) and never sent twice by the test: repeats are the
//! client's.

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

/// How long it may take until writes go on after something broke.
const PROGRESS_WITHIN: Duration = Duration::from_secs(60);
/// Longest time, in microseconds, that an answer of a dead node can be on its way over loopback.
const ON_ITS_WAY: u64 = 100_000;

/// How the writers write.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Writers at once.
    pub writers: i64,
    /// Number of the first one; rows are named by it, so later loads on a table must go on counting.
    pub first_writer: i64,
    /// Rows of each write.
    pub rows: i64,
    /// Bytes of each row's text.
    pub note: usize,
    /// Rest after each write: a scenario needs writes in flight, not a full machine.
    pub rest: Duration,
}

impl Default for Load {
    fn default() -> Self {
        Self { writers: 4, first_writer: 1, rows: 5, note: 40, rest: Duration::from_millis(5) }
    }
}

impl Load {
    /// As fast as the cluster takes it.
    pub fn flat_out() -> Self {
        Self { rest: Duration::ZERO, ..Self::heavy() }
    }

    /// Heavy enough to fill memtables.
    pub fn heavy() -> Self {
        Self { rows: 1_000, note: 200, rest: Duration::from_millis(20), ..Self::default() }
    }
}

/// What all writers share with the scenario.
#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    acknowledged: AtomicU64,
    origin: Instant,
    /// Microseconds from `origin` to the last [`Workload::mark`].
    mark: AtomicU64,
    /// Microseconds from `origin` to the first acknowledgement owed to the time after the mark.
    resumed: AtomicU64,
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn acknowledge(&self, begun: u64) {
        self.acknowledged.fetch_add(1, Ordering::SeqCst);
        let (mark, now) = (self.mark.load(Ordering::SeqCst), self.now());
        if owed_to_after(mark, begun, now) {
            let _ = self.resumed.compare_exchange(0, now, Ordering::SeqCst, Ordering::SeqCst);
        }
    }
}

/// Whether an acknowledgement shows that the cluster serves after the mark. The answer to a write
/// begun before may have been on its way when the node died: it counts only when it comes later
/// than any such answer could, and far earlier than an election ends.
fn owed_to_after(mark: u64, begun: u64, now: u64) -> bool {
    begun > mark || now > mark + ON_ITS_WAY
}

/// Writers at work on [`LOG_TABLE`].
#[derive(Debug)]
pub struct Workload {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<Result<Vec<Attempt>>>>,
}

impl Workload {
    /// Starts writers and returns once each of them has written.
    ///
    /// # Errors
    /// When a client cannot connect or nothing gets written.
    pub async fn start(cluster: &Cluster, load: Load) -> Result<Self> {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            origin: Instant::now(),
            mark: AtomicU64::new(0),
            resumed: AtomicU64::new(0),
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

    /// Writes acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::SeqCst)
    }

    /// Waits until so many more writes are acknowledged.
    ///
    /// # Errors
    /// When that takes longer than a minute.
    pub async fn progress(&self, writes: u64) -> Result<()> {
        let goal = self.acknowledged() + writes;
        wait::until("writes are acknowledged", PROGRESS_WITHIN, || async {
            let now = self.acknowledged();
            if now >= goal { Ok(()) } else { Err(format!("{} to go", goal - now)) }
        })
        .await
    }

    /// Remembers this moment: something has just been broken.
    pub fn mark(&self) {
        self.shared.mark.store(self.shared.now(), Ordering::SeqCst);
        self.shared.resumed.store(0, Ordering::SeqCst);
    }

    /// Time from the mark to the first write acknowledged after it.
    ///
    /// # Errors
    /// When there is none within a minute.
    pub async fn resumed(&self) -> Result<Duration> {
        wait::until("a write is acknowledged again", PROGRESS_WITHIN, || async {
            let mark = self.shared.mark.load(Ordering::SeqCst);
            match self.shared.resumed.load(Ordering::SeqCst) {
                0 => Err("none".to_owned()),
                at => Ok(Duration::from_micros(at.saturating_sub(mark))),
            }
        })
        .await
    }

    /// Lets each writer finish its write and collects the books.
    ///
    /// # Errors
    /// When a writer could not go on.
    pub async fn stop(self) -> Result<Vec<Attempt>> {
        self.shared.stop.store(true, Ordering::SeqCst);
        let mut attempts = Vec::new();
        for task in self.tasks {
            let book = task.await.map_err(|error| HarnessError::violated(error.to_string()))?;
            attempts.extend(book?);
        }
        Ok(attempts)
    }
}

async fn run(writer: Writer, load: Load, shared: Arc<Shared>) -> Result<Vec<Attempt>> {
    let mut attempts = Vec::new();
    let mut first = 1;
    while !shared.stop.load(Ordering::SeqCst) {
        let begun = shared.now();
        let attempt = writer.write(first, load.rows, load.note).await?;
        first += load.rows;
        if attempt.outcome == Outcome::Acknowledged {
            shared.acknowledge(begun);
        }
        attempts.push(attempt);
        tokio::time::sleep(load.rest).await;
    }
    Ok(attempts)
}

/// The options of a client of this cluster.
pub fn options(cluster: &Cluster) -> ClientOptions {
    ClientOptions { meta: cluster.meta_addresses(), ..ClientOptions::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_dead_does_not_count_as_recovery() {
        let mark = 1_000_000;
        assert!(!owed_to_after(mark, mark - 500, mark + 300), "it was on its way");
        assert!(owed_to_after(mark, mark - 500, mark + 700_000), "repeated elsewhere");
        assert!(owed_to_after(mark, mark + 1, mark + 2), "begun after");
    }
}
