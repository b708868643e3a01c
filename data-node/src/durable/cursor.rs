//! A cursor as this node uses it.

use tidewater_common::ids::{GroupId, Incarnation, ManifestVersion, RegionId, TableId};
use tidewater_proto::v1::{self, CursorState};
use tidewater_region_engine::layout::RegionDir;

/// The region, and the hook's name.
pub(super) type Key = (RegionId, String);

/// How far a hook is with a region, as the meta group has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) key: Key,
    pub(super) generation: u64,
    pub(super) dir: RegionDir,
    pub(super) group: GroupId,
    pub(super) version: ManifestVersion,
    pub(super) state: CursorState,
}

/// What comes of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    /// The cursor goes there.
    To(ManifestVersion, CursorState),
    /// The region's end was told: the cursor goes away.
    Done,
}

impl Cursor {
    /// Of a stored one.
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

    /// The request to move it.
    pub(super) fn advance(&self, to: Move) -> v1::CursorAdvance {
        let (version, state, done) = match to {
            Move::To(version, state) => (version, state, false),
            Move::Done => (self.version, self.state, true),
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
