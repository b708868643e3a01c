//! Versions of a manifest that a durable hook receives, as subjects of shared events (pure).

use ring::digest;
use tidewater_cluster_events::{SharedEvent, timestamp_ns, types};
use tidewater_common::ids::ManifestVersion;
use tidewater_events::Event;
use tidewater_region_engine::layout::RegionDir;
use uuid::Uuid;

/// A version of a region's manifest, and a durable hook that receives it.
#[derive(Debug, Clone, Copy)]
pub struct HookVersion<'a> {
    /// Name of the hook.
    pub hook: &'a str,
    /// Generation of the catalog's hook.
    pub generation: u64,
    /// Region of the manifest.
    pub dir: RegionDir,
    /// The version.
    pub version: ManifestVersion,
    /// Time of the version, milliseconds since the Unix epoch.
    pub time_ms: u64,
}

impl HookVersion<'_> {
    /// Gives an event the time of the version, and an id that follows from the version, the hook and the type. A version has one
    /// such event of a type, whichever nodes record it.
    pub fn shared(&self, event: Box<dyn Event>) -> SharedEvent {
        let id = self.id(event.event_type());
        SharedEvent::new(event, id, timestamp_ns(self.time_ms))
    }

    /// Returns the id of the event of a type: a UUIDv8 (RFC 9562) with the time in the place of UUIDv7, then a hash.
    fn id(&self, event_type: &str) -> Uuid {
        let mut hash = digest::Context::new(&digest::SHA256);
        let numbers = [
            self.generation,
            self.dir.table_id.get().into(),
            self.dir.region_id.get(),
            self.dir.incarnation.get(),
            self.version.get(),
        ];
        for number in numbers {
            hash.update(&number.to_be_bytes());
        }
        hash.update(self.hook.as_bytes());
        // The ids of this type are older than those of the others. Two hooks have different generations.
        if event_type != types::HookEvent::TYPE.name {
            hash.update(event_type.as_bytes());
        }
        let hash = hash.finish();
        // As in UUIDv7, 48 bits of the time: the others are 0 for the next 8,000 years.
        let time = self.time_ms.to_be_bytes().into_iter().skip(2);
        let mut bytes = [0; 16];
        for (byte, value) in bytes.iter_mut().zip(time.chain(hash.as_ref().iter().copied())) {
            *byte = value;
        }
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::{Incarnation, RegionId, TableId};
    use tidewater_events::is_shared;

    use super::*;

    const CALL: &str = "hook_event";
    const TIME_MS: u64 = 1_800_000_000_000;

    fn dir(table: u32, region: u64, incarnation: u64) -> RegionDir {
        RegionDir {
            table_id: TableId(table),
            region_id: RegionId(region),
            incarnation: Incarnation(incarnation),
        }
    }

    #[test]
    fn ids_differ_by_hook_region_version_and_type() {
        let id = |hook, generation, dir, version| {
            let version = ManifestVersion(version);
            HookVersion { hook, generation, dir, version, time_ms: TIME_MS }.id(CALL)
        };
        let first = id("audit", 1, dir(3, 7, 2), 9);
        assert_eq!(first, id("audit", 1, dir(3, 7, 2), 9));
        assert!(is_shared(first));
        let version = HookVersion {
            hook: "audit",
            generation: 1,
            dir: dir(3, 7, 2),
            version: ManifestVersion(9),
            time_ms: TIME_MS,
        };
        for other in [
            id("audi", 1, dir(3, 7, 2), 9),
            id("audit", 2, dir(3, 7, 2), 9),
            id("audit", 1, dir(4, 7, 2), 9),
            id("audit", 1, dir(3, 8, 2), 9),
            id("audit", 1, dir(3, 7, 3), 9),
            id("audit", 1, dir(3, 7, 2), 10),
            version.id("hook_lagging"),
        ] {
            assert_ne!(first, other);
        }
        // Another release must make the same id of a version that it delivers again.
        assert_eq!(first.to_string(), "01a3185c-5000-891b-bc58-49ae2d2d7b66");
    }

    #[test]
    fn ids_increase_with_the_time() {
        let at = |time_ms| {
            let version = ManifestVersion(9);
            HookVersion { hook: "a", generation: 1, dir: dir(3, 7, 2), version, time_ms }.id(CALL)
        };
        let ids = [at(0), at(1), at(255), at(256), at(TIME_MS), at(TIME_MS + 1)];
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    }
}
