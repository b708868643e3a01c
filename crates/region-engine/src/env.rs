//! What a region is handed: store, clock, ids, options.

use std::fmt::Debug;
use std::sync::Arc;

use tidewater_common::clock::Clock;
use tidewater_common::ids::{FileId, WriterId};
use uuid::Uuid;

use crate::manifest::ManifestOptions;
use crate::storage::Storage;

/// Source of fresh ids; the only randomness in the engine.
pub trait IdSource: Debug + Send + Sync + 'static {
    /// A fresh UUIDv4.
    fn random(&self) -> Uuid;

    /// A fresh UUIDv7 of the given time (milliseconds since the Unix epoch).
    fn at(&self, time_ms: u64) -> Uuid;

    /// Id for a new data file: the greater of clock and GC floor, so that the floor never refuses
    /// what has just been written.
    fn file_id(&self, now_ms: u64, gc_floor_ms: u64) -> FileId {
        FileId(self.at(now_ms.max(gc_floor_ms)))
    }

    /// Id for the content of one delta.
    fn writer_id(&self) -> WriterId {
        WriterId(self.random())
    }
}

/// Ids from the operating system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemIds;

impl IdSource for SystemIds {
    fn random(&self) -> Uuid {
        Uuid::new_v4()
    }

    fn at(&self, time_ms: u64) -> Uuid {
        let random = *Uuid::new_v4().as_bytes();
        let mut tail = [0; 10];
        tail.copy_from_slice(&random[6..]);
        uuid::Builder::from_unix_timestamp_millis(time_ms, &tail).into_uuid()
    }
}

/// What every region of a process shares.
#[derive(Debug, Clone)]
pub struct RegionEnv {
    /// The object store.
    pub storage: Storage,
    /// Wall clock: times in deltas and ids only, never a decision of replay.
    pub clock: Arc<dyn Clock>,
    /// Fresh ids.
    pub ids: Arc<dyn IdSource>,
    /// Options of the engine.
    pub options: EngineOptions,
}

/// Options of the engine.
#[derive(Debug, Clone, Default)]
pub struct EngineOptions {
    /// Checkpoints and retries of manifests.
    pub manifest: ManifestOptions,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_ids_carry_the_greater_of_clock_and_floor() {
        for (now, floor, expected) in [(5_000, 7_000, 7_000), (9_000, 7_000, 9_000)] {
            let id = SystemIds.file_id(now, floor);
            let (secs, nanos) = id.0.get_timestamp().unwrap().to_unix();
            assert_eq!(secs * 1_000 + u64::from(nanos) / 1_000_000, expected);
            assert_eq!(id.0.get_version_num(), 7);
        }
        assert_ne!(SystemIds.at(1), SystemIds.at(1));
    }
}
