//! Options of clients and writers, with their defaults.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use tidewater_common::backoff::Backoff;
use uuid::Uuid;

/// Source of new ids and of random bits for jitter. Tests use a counter.
#[derive(Clone)]
pub struct IdSource(Arc<dyn Fn() -> Uuid + Send + Sync>);

impl IdSource {
    /// Creates a source of the ids that `make` returns. They must be unique: if two clients use the same
    /// producer id, a data node takes a write of one for a retry of the other's write.
    pub fn new(make: impl Fn() -> Uuid + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    /// Returns a new id.
    pub fn next(&self) -> Uuid {
        (self.0)()
    }

    /// Returns random bits for jitter.
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

/// Options of a client: connections, deadlines and retries.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Addresses of meta nodes, host:port. One that answers is enough; the client learns the others.
    pub meta: Vec<String>,
    /// Deadline of one operation, with all its retries. Much longer than a failover (2 to 4 s).
    pub deadline: Duration,
    /// Timeout of one attempt: a frozen node delays an operation by at most this time before a successor
    /// is known. Longer than a write may wait for memory in a data node (5 s), so that the node's own
    /// answer arrives first.
    pub attempt_timeout: Duration,
    /// Most attempts of one operation; a second limit in addition to the deadline.
    pub max_attempts: u32,
    /// Deadline of [`crate::Client::connect`] while no address can be reached.
    pub connect_deadline: Duration,
    /// Timeout of a TCP connection attempt.
    pub connect_timeout: Duration,
    /// Timeout of the next message of a scan.
    pub scan_idle_timeout: Duration,
    /// Longest time for which the stream of a scan's next region is open without being read. It holds
    /// memory of its node that the current region may wait for, and nodes end streams that are not read
    /// for a minute.
    pub scan_read_ahead: Duration,
    /// Time for which a refused call waits for a change of the catalog on the watch before it requests a
    /// refresh of the catalog.
    pub refresh_after: Duration,
    /// Backoff between attempts.
    pub backoff: Backoff,
    /// Backoff between attempts of the catalog watch to reconnect.
    pub watch_backoff: Backoff,
    /// Largest message that is sent or received, in bytes.
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
            connect_deadline: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(2),
            scan_idle_timeout: Duration::from_secs(30),
            scan_read_ahead: Duration::from_secs(10),
            refresh_after: Duration::from_secs(1),
            backoff: Backoff {
                first: Duration::from_millis(10),
                longest: Duration::from_millis(250),
            },
            watch_backoff: Backoff {
                first: Duration::from_millis(50),
                longest: Duration::from_secs(1),
            },
            max_message_bytes: 64 << 20,
            ids: IdSource::default(),
        }
    }
}

/// Options of a [`crate::TableWriter`]. Each must be above 0.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// Number of lanes: most concurrent writes to one region. In an upsert table all rows of a key go to
    /// the same lane, in the order of the calls. In an append-only table, batches that are not separated
    /// by a flush may be applied in any order unless this is 1.
    pub lanes: usize,
    /// Capacity of the queue in front of the lanes, in batches; `write` waits while it is full.
    pub queue_batches: usize,
    /// Most rows of one write to one region.
    pub max_write_rows: usize,
    /// Most bytes of one write to one region, estimated from the size of the batch in memory.
    pub max_write_bytes: usize,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self { lanes: 4, queue_batches: 4, max_write_rows: 65_536, max_write_bytes: 8 << 20 }
    }
}
