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

/// How the writers write.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Writers at once.
    pub writers: i64,
    /// Rows of each write.
    pub rows: i64,
    /// Bytes of each row's text.
    pub note: usize,
    /// Rest after each write: a scenario needs writes in flight, not a full machine.
    pub rest: Duration,
}

impl Default for Load {
    fn default() -> Self {
        Self { writers: 4, rows: 5, note: 40, rest: Duration::from_millis(5) }
    }
}

impl Load {
    /// Heavy enough to fill memtables.
    pub fn heavy() -> Self {
        Self { writers: 4, rows: 1_000, note: 200, rest: Duration::from_millis(20) }
    }
}

/// What all writers share with the scenario.
#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    acknowledged: AtomicU64,
    origin: Instant,
    /// Microseconds from `origin` to the last acknowledgement.
    last: AtomicU64,
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
            last: AtomicU64::new(0),
        });
        let mut tasks = Vec::new();
        for number in 1..=load.writers {
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

    /// Time from `since` to the first write acknowledged after it that was also counted after it.
    ///
    /// # Errors
    /// When there is none within a minute.
    pub async fn resumed(&self, since: Instant) -> Result<Duration> {
        let deadline = Instant::now() + PROGRESS_WITHIN;
        let after = since.duration_since(self.shared.origin);
        while Instant::now() < deadline {
            let last = Duration::from_micros(self.shared.last.load(Ordering::SeqCst));
            if last > after {
                return Ok(last - after);
            }
            // Fine enough for a measurement in milliseconds.
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        Err(HarnessError::Timeout {
            what: "a write is acknowledged again".to_owned(),
            limit: PROGRESS_WITHIN,
            last: "none".to_owned(),
        })
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
        let attempt = writer.write(first, load.rows, load.note).await?;
        first += load.rows;
        if attempt.outcome == Outcome::Acknowledged {
            let now = shared.origin.elapsed().as_micros();
            shared.last.store(u64::try_from(now).unwrap_or(u64::MAX), Ordering::SeqCst);
            shared.acknowledged.fetch_add(1, Ordering::SeqCst);
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
