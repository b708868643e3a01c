//! Routes of an engine, with counters of their accesses.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidewater_common::ids::RegionId;

use crate::{GlobalKey, KeyedRoute, RouteDescriptor};

/// Kind of an access to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessKind {
    /// The key is read.
    Read,
    /// The key is written.
    Write,
}

/// Number and bytes of the accesses to a route. The fields are read one after the other, so they may differ by the
/// accesses that are counted at the same time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RouteLoad {
    /// Number of reads.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Number of writes.
    pub writes: u64,
    /// Bytes written.
    pub written_bytes: u64,
}

impl RouteLoad {
    /// Returns the weight of the accesses: a write counts as four reads.
    #[must_use]
    pub fn score(&self) -> u64 {
        self.writes.saturating_mul(4).saturating_add(self.reads)
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.reads = self.reads.saturating_add(other.reads);
        self.read_bytes = self.read_bytes.saturating_add(other.read_bytes);
        self.writes = self.writes.saturating_add(other.writes);
        self.written_bytes = self.written_bytes.saturating_add(other.written_bytes);
    }
}

/// Counters of a route. Aligned to a cache line, so that counting one route does not slow down another.
#[derive(Debug, Default)]
#[repr(align(64))]
struct LoadCounters {
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    written_bytes: AtomicU64,
}

/// A route of an engine.
#[derive(Debug)]
pub struct EngineRoute {
    descriptor: RouteDescriptor,
    /// Shared with the same route of other versions.
    counters: Arc<LoadCounters>,
}

impl EngineRoute {
    /// Creates a route that continues the counters of an earlier version of it.
    pub(super) fn new(descriptor: RouteDescriptor, before: Option<&Self>) -> Self {
        let is_same = |before: &&Self| {
            let known = &before.descriptor;
            (known.route_id, &known.start, &known.end)
                == (descriptor.route_id, &descriptor.start, &descriptor.end)
        };
        let counters = before.filter(is_same).map(|before| Arc::clone(&before.counters));
        Self { counters: counters.unwrap_or_default(), descriptor }
    }

    /// The route as the catalog has it.
    pub fn descriptor(&self) -> &RouteDescriptor {
        &self.descriptor
    }

    /// Accesses since the route exists with this range.
    pub fn load(&self) -> RouteLoad {
        RouteLoad {
            reads: self.counters.reads.load(Ordering::Relaxed),
            read_bytes: self.counters.read_bytes.load(Ordering::Relaxed),
            writes: self.counters.writes.load(Ordering::Relaxed),
            written_bytes: self.counters.written_bytes.load(Ordering::Relaxed),
        }
    }

    pub(super) fn count(&self, kind: AccessKind, bytes: u64) {
        let (number, total) = match kind {
            AccessKind::Read => (&self.counters.reads, &self.counters.read_bytes),
            AccessKind::Write => (&self.counters.writes, &self.counters.written_bytes),
        };
        number.fetch_add(1, Ordering::Relaxed);
        total.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl KeyedRoute for EngineRoute {
    fn id(&self) -> RegionId {
        self.descriptor.id()
    }

    fn start(&self) -> GlobalKey<'_> {
        self.descriptor.start()
    }

    fn end(&self) -> Option<GlobalKey<'_>> {
        self.descriptor.end()
    }
}
