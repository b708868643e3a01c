//! Options of clients and writers, with their defaults.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::backoff::Backoff;

/// Source of fresh ids and of bits for jitter. Tests use a counter.
#[derive(Clone)]
pub struct IdSource(Arc<dyn Fn() -> Uuid + Send + Sync>);

impl IdSource {
    /// Creates a source of the ids returned by `make`. They must be unique: with a repeated producer
    /// id the server treats one client's write as a retry of another's.
    pub fn new(make: impl Fn() -> Uuid + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    /// Returns a fresh id.
    pub fn next(&self) -> Uuid {
        (self.0)()
    }

    /// Returns fresh bits for jitter.
    pub(crate) fn bits(&self) -> u64 {
        self.next().as_u64_pair().1
    }
}

impl Default for IdSource {
    fn default() -> Self {
        Self::new(Uuid::new_v4)
    }
}

impl fmt::Debug for IdSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdSource")
    }
}

/// Addresses, deadlines and retries of a client.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Addresses of meta nodes, host:port. One that responds is enough: the client learns the others.
    pub meta: Vec<String>,
    /// Deadline of an operation including its retries. Keep it well above the duration of a failover
    /// (2 to 4 s).
    pub deadline: Duration,
    /// Timeout of one attempt: the time that a frozen node delays an operation until another node
    /// replaces it. Keep it above the time that a node lets a write wait for memory (5 s), so that
    /// the node's own response arrives first.
    pub attempt_timeout: Duration,
    /// Maximum number of attempts of an operation, in addition to the deadline.
    pub max_attempts: u32,
    /// Time for which [`crate::Client::connect`] retries while no address can be reached.
    pub connect_retry_time: Duration,
    /// Timeout of a TCP connection attempt.
    pub connect_timeout: Duration,
    /// Timeout of the next message of a scan.
    pub scan_idle_timeout: Duration,
    /// Backoff between attempts.
    pub backoff: Backoff,
    /// Backoff between attempts to reopen the catalog watch.
    pub watch_backoff: Backoff,
    /// Maximum size of a message in either direction, in bytes.
    pub max_message_bytes: usize,
    /// Source of the ids of producers and requests.
    pub ids: IdSource,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            meta: vec!["127.0.0.1:7400".to_owned()],
            deadline: Duration::from_secs(60),
            attempt_timeout: Duration::from_secs(7),
            max_attempts: 1_000,
            connect_retry_time: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(2),
            scan_idle_timeout: Duration::from_secs(30),
            backoff: Backoff { first: Duration::from_millis(10), cap: Duration::from_millis(250) },
            watch_backoff: Backoff {
                first: Duration::from_millis(50),
                cap: Duration::from_secs(5),
            },
            max_message_bytes: 64 << 20,
            ids: IdSource::default(),
        }
    }
}

/// Parallelism and batching of a [`crate::TableWriter`].
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// Lanes: writes in flight at the same time. In an upsert table all rows of a key go through one
    /// lane, in the order of the calls. In an append-only table, batches that are not separated by a
    /// flush may be applied in any order unless this is 1.
    pub lanes: usize,
    /// Batches that may wait for the lanes before `write` blocks.
    pub queue_batches: usize,
    /// Maximum number of rows of one write to one region.
    pub max_write_rows: usize,
    /// Maximum bytes of one write to one region, as estimated from the batch in memory.
    pub max_write_bytes: usize,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self { lanes: 4, queue_batches: 4, max_write_rows: 65_536, max_write_bytes: 8 << 20 }
    }
}
