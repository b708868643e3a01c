//! Cursor as this node uses it, and its moves.

use tidewater_common::ids::{GroupId, Incarnation, ManifestVersion, RegionId, TableId};
use tidewater_proto::v1::{self, CursorState};
use tidewater_region_engine::layout::RegionDir;

/// The region and the name of the hook.
pub(super) type CursorKey = (RegionId, String);

/// Position of a hook in a region's manifest, as stored by the meta group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) key: CursorKey,
    pub(super) generation: u64,
    pub(super) dir: RegionDir,
    pub(super) group: GroupId,
    pub(super) version: ManifestVersion,
    pub(super) state: CursorState,
}

/// Move of a cursor after a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CursorMove {
    /// The cursor moves to this version and state.
    To(ManifestVersion, CursorState),
    /// The removal of the region was delivered: the cursor is deleted.
    Done,
}

impl Cursor {
    /// Converts a stored cursor.
    pub(super) fn new(stored: v1::HookCursor) -> Self {
        let state = stored.state();
        Self {
            key: (RegionId(stored.region_id), stored.hook),
            generation: stored.generation,
            dir: RegionDir {
                table_id: TableId(stored.table_id),
                region_id: RegionId(stored.region_id),
                incarnation: Incarnation(stored.incarnation),
            },
            group: GroupId(stored.group_id),
            version: ManifestVersion(stored.version),
            state,
        }
    }

    /// Returns the request to move it.
    pub(super) fn advance(&self, to: CursorMove) -> v1::CursorAdvance {
        let (version, state, done) = match to {
            CursorMove::To(version, state) => (version, state, false),
            CursorMove::Done => (self.version, self.state, true),
        };
        v1::CursorAdvance {
            hook: self.key.1.clone(),
            generation: self.generation,
            region_id: self.key.0.get(),
            expected_version: self.version.get(),
            expected_state: self.state.into(),
            version: version.get(),
            state: state.into(),
            done,
        }
    }
}
