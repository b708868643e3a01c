//! What a caller may choose, with the one default of each.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::backoff::Backoff;

/// Where fresh ids, and the bits for jitter, come from. Tests hand in a counter.
#[derive(Clone)]
pub struct IdSource(Arc<dyn Fn() -> Uuid + Send + Sync>);

impl IdSource {
    /// Ids made by `make`. They must be unique: a producer id used twice makes the server take one
    /// client's write for a repeat of another's.
    pub fn new(make: impl Fn() -> Uuid + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    /// A fresh id.
    pub fn next(&self) -> Uuid {
        (self.0)()
    }

    /// Fresh bits for jitter.
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

/// How a client connects and how long it keeps trying.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Addresses of meta nodes, host:port. One that answers is enough: the others are learned.
    pub meta: Vec<String>,
    /// How long one operation may take with all its repeats. Longer than a failover (2 to 4 s) by
    /// a good measure.
    pub deadline: Duration,
    /// How long one attempt may take: how long a frozen node holds up an operation while nobody
    /// has taken its place. Longer than a node lets a write wait for memory (5 s), so that the
    /// node's own answer comes first.
    pub attempt_timeout: Duration,
    /// Most attempts of one operation; a second bound beside the deadline.
    pub max_attempts: u32,
    /// How long [`crate::Client::connect`] keeps trying while not one address can be reached.
    pub connect_deadline: Duration,
    /// Longest wait for a TCP connection.
    pub connect_timeout: Duration,
    /// Longest wait for the next message of a scan.
    pub scan_idle_timeout: Duration,
    /// Waits between attempts.
    pub backoff: Backoff,
    /// Waits between attempts of the catalog watch to connect again.
    pub watch_backoff: Backoff,
    /// Largest message sent or received, in bytes.
    pub max_message_bytes: usize,
    /// Ids of producers and requests.
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

/// How a [`crate::TableWriter`] cuts and sends.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// Producers, which is writes in flight at once. In an upsert table the rows of a key all go by
    /// one of them, in the order in which they were handed in. In an append-only table, batches that
    /// are not separated by a flush may be applied in any order unless this is 1.
    pub producers: usize,
    /// Batches that may wait in front of the producers before `write` blocks.
    pub queue_batches: usize,
    /// Most rows of one write to one region.
    pub max_write_rows: usize,
    /// Most bytes of one write to one region, as estimated from the batch in memory.
    pub max_write_bytes: usize,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self { lanes: 4, queue_batches: 4, max_write_rows: 65_536, max_write_bytes: 8 << 20 }
    }
}
