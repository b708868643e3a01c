//! Writers of the client library whose rows stub nodes acknowledge without storing them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidewater_client::{Client, ClientOptions};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::oracle::Outcome;
use crate::workload::Writer;
use crate::{HarnessError, Result};

/// Bytes of the text of each row.
const NOTE_BYTES: usize = 20;
/// Wait before a writer that has failed is replaced.
const REOPEN_DELAY: Duration = Duration::from_millis(10);

/// Results of writes since the last [`StubWriters::restart_figures`].
#[derive(Debug, Default)]
pub struct WriterFigures {
    /// Writes that were acknowledged.
    pub acknowledged: AtomicU64,
    /// Writes that failed, or whose outcome is unknown.
    pub failed: AtomicU64,
    /// Longest time from the beginning of a write until one is acknowledged, in microseconds.
    pub slowest_micros: AtomicU64,
}

/// Running writers of one table, each of one row at a time. They end when this is dropped.
#[derive(Debug)]
pub struct StubWriters {
    figures: Arc<WriterFigures>,
    _tasks: JoinSet<()>,
}

/// Numbers of clients and writers.
#[derive(Debug, Clone, Copy)]
pub struct WriterCounts {
    /// Clients: each has a catalog and a watch of its own.
    pub clients: usize,
    /// Writers, in turn of the clients.
    pub writers: usize,
    /// Pause of a writer after each write.
    pub pause: Duration,
}

impl StubWriters {
    /// Connects the clients, one after the other, and starts the writers.
    ///
    /// # Errors
    /// If a client cannot connect, or the table does not exist.
    pub async fn start(metas: &[String], table: &str, counts: WriterCounts) -> Result<Self> {
        let mut clients = Vec::new();
        for _ in 0..counts.clients.max(1) {
            let options = ClientOptions { meta: metas.to_vec(), ..ClientOptions::default() };
            let connected = Client::connect(options).await;
            clients.push(connected.map_err(|error| {
                HarnessError::violated(format!("a writer cannot connect: {error}"))
            })?);
        }
        let figures = Arc::new(WriterFigures::default());
        let mut tasks = JoinSet::new();
        for (number, client) in (1_i64..).zip(clients.iter().cycle().take(counts.writers)) {
            let source = WriterSource { client: client.clone(), table: table.to_owned(), number };
            let writer = source.open().await?;
            tasks.spawn(run(source, writer, counts.pause, figures.clone()));
        }
        Ok(Self { figures, _tasks: tasks })
    }

    /// Results so far.
    pub fn figures(&self) -> &WriterFigures {
        &self.figures
    }

    /// Sets the results to 0.
    pub fn restart_figures(&self) {
        for figure in
            [&self.figures.acknowledged, &self.figures.failed, &self.figures.slowest_micros]
        {
            figure.store(0, Ordering::SeqCst);
        }
    }
}

/// Opens writers with the same number.
#[derive(Debug)]
struct WriterSource {
    client: Client,
    table: String,
    number: i64,
}

impl WriterSource {
    async fn open(&self) -> Result<Writer> {
        Writer::of_client(&self.client, &self.table, self.number).await
    }
}

/// Writes rows. A writer whose table was altered fails: as an application, the task opens another one.
async fn run(
    source: WriterSource,
    mut writer: Writer,
    pause: Duration,
    figures: Arc<WriterFigures>,
) {
    let mut serial = 1;
    let mut begun = Instant::now();
    loop {
        let attempt = writer.write(serial, 1, NOTE_BYTES).await;
        serial += 1;
        if attempt.is_ok_and(|attempt| attempt.outcome == Outcome::Acknowledged) {
            figures.acknowledged.fetch_add(1, Ordering::SeqCst);
            let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            figures.slowest_micros.fetch_max(micros, Ordering::SeqCst);
            tokio::time::sleep(pause).await;
            begun = Instant::now();
            continue;
        }
        figures.failed.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(REOPEN_DELAY).await;
        if let Ok(opened) = source.open().await {
            writer = opened;
        }
    }
}
