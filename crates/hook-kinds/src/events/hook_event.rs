//! Calls of hooks as events (pure).

use std::any::Any;

use ring::digest;
use tidewater_cluster_events::types;
use tidewater_common::ids::ManifestVersion;
use tidewater_events::{Event, EventError, ExtraColumn, Priority, Value};
use tidewater_region_engine::hooks::{HookEvent, HookHome, ManifestKind, RegionEvent};
use tidewater_region_engine::layout::RegionDir;
use uuid::Uuid;

use crate::record::Record;

/// Limit of the payload in bytes, a quarter of the recorder's default limit of an event: an event above the latter is
/// not recorded, so that a durable hook would lose a version.
pub(super) const MAX_PAYLOAD_BYTES: usize = 256 << 10;

/// A hook whose calls are events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HookIdentity {
    /// Name of the hook.
    pub(super) name: String,
    /// Generation of the catalog's hook.
    pub(super) generation: u64,
    /// Calls are repeated until they succeed, perhaps by another node.
    pub(super) durable: bool,
}

/// A version of a manifest that is delivered to a durable hook. Each delivery of it has the same id, time and values.
#[derive(Debug)]
struct DeliveredVersion {
    event: types::HookEvent,
    id: Uuid,
    timestamp_ns: i64,
}

/// Returns the event of a call of a hook on the node `home`.
pub(super) fn event_of(hook: &HookIdentity, home: HookHome, call: &RegionEvent) -> Box<dyn Event> {
    let dir = call.source.dir;
    let files_added = call.event.files().count();
    // Statistics of columns are reads of the object store, and may differ when a call is repeated.
    let mut record = Record::new(&hook.name, home, call, vec![None; files_added]);
    if hook.durable {
        record.set_node_unknown();
    }
    let event = types::HookEvent {
        node_id: (!hook.durable).then_some(home.node_id.get()),
        table_id: dir.table_id.get().into(),
        region_id: dir.region_id.get(),
        hook: hook.name.clone(),
        trigger: call.event.name().to_owned(),
        manifest_version: manifest_version(&call.event).map(ManifestVersion::get),
        files_added: files_added as u64,
        files_removed: files_removed(&call.event) as u64,
        payload: record.into_text_within(MAX_PAYLOAD_BYTES),
    };
    match &call.event {
        HookEvent::ManifestUpdated { actions, .. } if hook.durable => Box::new(DeliveredVersion {
            event,
            id: version_id(hook, dir, actions.version(), actions.time_ms()),
            timestamp_ns: timestamp_ns(actions.time_ms()),
        }),
        // A snapshot has no time of its own.
        _ => Box::new(event),
    }
}

fn manifest_version(event: &HookEvent) -> Option<ManifestVersion> {
    match event {
        HookEvent::ManifestUpdated { actions, .. } => Some(actions.version()),
        HookEvent::Bootstrap(snapshot) => Some(snapshot.version()),
        _ => None,
    }
}

/// Returns the number of files that an event lists as removed. A truncation up to a sequence lists none.
fn files_removed(event: &HookEvent) -> usize {
    match event {
        HookEvent::ManifestUpdated { actions, manifest } if *manifest != ManifestKind::Void => {
            actions.files_removed().count()
        }
        HookEvent::FilesRemoved(removed) => removed.files.len(),
        HookEvent::Gc(pass) => pass.removed.iter().map(|removed| removed.files.len()).sum(),
        _ => 0,
    }
}

/// Returns the id of the events of all deliveries of a version to a hook: a UUIDv8 (RFC 9562) with the time in the place
/// of UUIDv7, then a hash of the hook, the region and the version.
fn version_id(hook: &HookIdentity, dir: RegionDir, version: ManifestVersion, time_ms: u64) -> Uuid {
    let mut hash = digest::Context::new(&digest::SHA256);
    let numbers = [
        hook.generation,
        dir.table_id.get().into(),
        dir.region_id.get(),
        dir.incarnation.get(),
        version.get(),
    ];
    for number in numbers {
        hash.update(&number.to_be_bytes());
    }
    hash.update(hook.name.as_bytes());
    let hash = hash.finish();
    // As in UUIDv7, 48 bits of the time: the others are 0 for the next 8,000 years.
    let time = time_ms.to_be_bytes().into_iter().skip(2);
    let mut bytes = [0; 16];
    for (byte, value) in bytes.iter_mut().zip(time.chain(hash.as_ref().iter().copied())) {
        *byte = value;
    }
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// Returns a time in nanoseconds since the Unix epoch.
fn timestamp_ns(time_ms: u64) -> i64 {
    i64::try_from(time_ms).unwrap_or(i64::MAX).saturating_mul(1_000_000)
}

impl Event for DeliveredVersion {
    fn event_type(&self) -> &str {
        self.event.event_type()
    }

    fn timestamp(&self) -> Option<i64> {
        Some(self.timestamp_ns)
    }

    fn shared_id(&self) -> Option<Uuid> {
        Some(self.id)
    }

    fn json_payload(&self) -> Result<String, EventError> {
        self.event.json_payload()
    }

    fn extra_schema(&self) -> Vec<ExtraColumn> {
        self.event.extra_schema()
    }

    fn extra_row(&self) -> Result<Vec<Value>, EventError> {
        self.event.extra_row()
    }

    fn priority(&self) -> Priority {
        self.event.priority()
    }

    fn as_any(&self) -> &dyn Any {
        self.event.as_any()
    }
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::{Incarnation, RegionId, TableId};
    use tidewater_events::is_shared;

    use super::*;

    const TIME_MS: u64 = 1_800_000_000_000;

    fn hook(name: &str, generation: u64) -> HookIdentity {
        HookIdentity { name: name.to_owned(), generation, durable: true }
    }

    fn dir(table: u32, region: u64, incarnation: u64) -> RegionDir {
        RegionDir {
            table_id: TableId(table),
            region_id: RegionId(region),
            incarnation: Incarnation(incarnation),
        }
    }

    #[test]
    fn version_ids_differ_by_hook_region_and_version() {
        let id = |name, generation, dir, version| {
            version_id(&hook(name, generation), dir, ManifestVersion(version), TIME_MS)
        };
        let first = id("audit", 1, dir(3, 7, 2), 9);
        assert_eq!(first, id("audit", 1, dir(3, 7, 2), 9));
        assert!(is_shared(first));
        for other in [
            id("audi", 1, dir(3, 7, 2), 9),
            id("audit", 2, dir(3, 7, 2), 9),
            id("audit", 1, dir(4, 7, 2), 9),
            id("audit", 1, dir(3, 8, 2), 9),
            id("audit", 1, dir(3, 7, 3), 9),
            id("audit", 1, dir(3, 7, 2), 10),
        ] {
            assert_ne!(first, other);
        }
        // Another release must make the same id of a version that it delivers again.
        assert_eq!(first.to_string(), "01a3185c-5000-891b-bc58-49ae2d2d7b66");
    }

    #[test]
    fn version_ids_increase_with_the_time() {
        let at = |time_ms| version_id(&hook("a", 1), dir(3, 7, 2), ManifestVersion(9), time_ms);
        let ids = [at(0), at(1), at(255), at(256), at(TIME_MS), at(TIME_MS + 1)];
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
        assert_eq!(timestamp_ns(TIME_MS), 1_800_000_000_000_000_000);
        assert_eq!(timestamp_ns(u64::MAX), i64::MAX);
    }
}
