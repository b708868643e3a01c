//! Objects that a manifest's state references (pure).

use uuid::Uuid;

use super::{KeepReason, RegionFloor};
use crate::layout::RegionDir;
use crate::manifest::{ActionKind, ManifestState};

/// An object of a region's directory, by its id: data files and indexes never share one.
pub type ObjectName = (RegionDir, Uuid);

/// Calls `name` for every object that the state references, with the reason for keeping it. A file
/// may be referenced more than once.
pub fn each(
    state: &ManifestState,
    floor: RegionFloor,
    mut name: impl FnMut(ObjectName, KeepReason),
) {
    for file in state.files() {
        name((file.origin, file.file_id.0), KeepReason::Live);
        for index in &file.indexes {
            name((file.origin, index.index_id), KeepReason::Live);
        }
    }
    let staged = state.areas.values().flat_map(|area| &area.actions);
    for action in staged {
        let ActionKind::Edit(edit) = &action.kind else { continue };
        for file in &edit.add {
            name((file.origin, file.file_id.0), KeepReason::Staged);
            for index in &file.indexes {
                name((file.origin, index.index_id), KeepReason::Staged);
            }
        }
        for (file, index) in &edit.add_indexes {
            if let Some(file) = state.live.get(file) {
                name((file.origin, index.index_id), KeepReason::Staged);
            }
        }
    }
    for (file, removed) in &state.removed {
        if removed.at_ms < floor.region_ms {
            continue;
        }
        let is_recent = removed.at_ms >= floor.pass_ms;
        let why = if is_recent { KeepReason::Recent } else { KeepReason::Awaited };
        name((removed.origin, file.file_id.0), why);
        for (index, _) in &removed.indexes {
            name((removed.origin, *index), why);
        }
    }
}

/// Returns `true` if the state references objects in other regions' directories.
pub fn names_others(state: &ManifestState) -> bool {
    let mut others = false;
    each(state, RegionFloor::of_pass(0), |(dir, _), _| others |= dir != state.dir);
    others
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tidewater_common::ids::{RegionId, Sequence};

    use super::*;
    use crate::file_meta::FileMeta;
    use crate::hooks::RemovalReason;
    use crate::manifest::samples::*;
    use crate::manifest::state::{RemovedFile, StagingArea};
    use crate::manifest::{Action, AreaId, Edit};

    #[test]
    fn live_staged_and_recently_removed_files_are_referenced() {
        let other = RegionDir { region_id: RegionId(1), ..DIR };
        let mut state = ManifestState::empty(DIR);
        let live = FileMeta { indexes: vec![index(1)], ..file(1) };
        let foreign = FileMeta { origin: other, ..file(2) };
        for file in [&live, &foreign] {
            state.live.insert(file.reference(), file.clone());
        }
        let edit = Edit {
            add: vec![FileMeta { indexes: vec![index(3)], ..file(3) }],
            add_indexes: vec![(live.reference(), index(4))],
            ..Edit::default()
        };
        let area = AreaId(Uuid::from_u128(9));
        let actions = vec![Action::staged(area, ActionKind::Edit(edit))];
        state.areas.insert(area, StagingArea { logged: true, deadline_ms: 0, actions });
        for (number, at_ms) in [(5, 89), (6, 100), (7, 90), (8, 99)] {
            let removed = RemovedFile {
                origin: DIR,
                at_ms,
                reason: RemovalReason::Compaction,
                indexes: vec![(index(number).index_id, "bloom".to_owned())],
            };
            state.removed.insert(file(number).reference(), removed);
        }
        let mut named = BTreeMap::new();
        let floor = RegionFloor { pass_ms: 100, region_ms: 90 };
        each(&state, floor, |name, why| assert_eq!(named.insert(name, why), None));
        let expected = BTreeMap::from([
            ((DIR, live.file_id.0), KeepReason::Live),
            ((DIR, index(1).index_id), KeepReason::Live),
            ((other, foreign.file_id.0), KeepReason::Live),
            ((DIR, file(3).file_id.0), KeepReason::Staged),
            ((DIR, index(3).index_id), KeepReason::Staged),
            ((DIR, index(4).index_id), KeepReason::Staged),
            ((DIR, file(6).file_id.0), KeepReason::Recent),
            ((DIR, index(6).index_id), KeepReason::Recent),
            ((DIR, file(7).file_id.0), KeepReason::Awaited),
            ((DIR, index(7).index_id), KeepReason::Awaited),
            ((DIR, file(8).file_id.0), KeepReason::Awaited),
            ((DIR, index(8).index_id), KeepReason::Awaited),
        ]);
        assert_eq!(named, expected);
        assert!(names_others(&state));
        state.live.remove(&foreign.reference());
        assert!(!names_others(&state));
        assert_eq!(state.flushed, Sequence(0));
    }
}
