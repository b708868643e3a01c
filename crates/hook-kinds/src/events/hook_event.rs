//! Calls of hooks as events (pure).

use tidewater_cluster_events::types;
use tidewater_common::ids::ManifestVersion;
use tidewater_events::Event;
use tidewater_region_engine::hooks::{HookEvent, HookHome, ManifestKind, RegionEvent};

use crate::hook_version::HookVersion;
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
        // Each delivery of a version has the same id, time and values.
        HookEvent::ManifestUpdated { actions, .. } if hook.durable => {
            let version = HookVersion {
                hook: &hook.name,
                generation: hook.generation,
                dir,
                version: actions.version(),
                time_ms: actions.time_ms(),
            };
            Box::new(version.shared(Box::new(event)))
        }
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
