//! Survey of one region: candidates and kept objects, with reasons. Pure.

use std::collections::{BTreeMap, HashMap};

use object_store::ObjectMeta;
use object_store::path::Path;
use tidewater_common::ids::ManifestVersion;
use uuid::Uuid;

use super::{Garbage, GarbageReason, HookPositions, KeepReason, RegionFloor, named};
use crate::env::id_time_ms;
use crate::hooks::RemovalReason;
use crate::layout::{ManifestObject, RegionDir, RegionObject};
use crate::manifest::ManifestState;

/// Objects of a region's directory.
#[derive(Debug, Default)]
pub(super) struct RegionSurvey {
    pub(super) candidates: Vec<GarbageCandidate>,
    pub(super) kept: BTreeMap<KeepReason, u64>,
    /// The region references objects of other regions.
    pub(super) names_others: bool,
    /// The floor that the region's manifest receives.
    pub(super) floor_ms: u64,
}

/// An object that is deleted unless another manifest references it.
#[derive(Debug)]
pub(super) struct GarbageCandidate {
    /// `None` for objects that no manifest references: deltas and checkpoints.
    pub(super) id: Option<Uuid>,
    pub(super) garbage: Garbage,
}

/// Classifies a region's objects by its state. `checkpoint`: the newest one, which has been read.
pub(super) fn survey(
    state: &ManifestState,
    checkpoint: ManifestVersion,
    objects: &[ObjectMeta],
    floor_ms: u64,
    positions: &HookPositions,
) -> RegionSurvey {
    let dir = state.dir;
    let mut own: HashMap<Uuid, KeepReason> = HashMap::new();
    let floor = positions.floor(state, floor_ms);
    let mut survey = RegionSurvey { floor_ms: floor.region_ms, ..RegionSurvey::default() };
    named::each(state, floor, |(origin, id), why| {
        survey.names_others |= origin != dir;
        if origin == dir {
            own.entry(id).or_insert(why);
        }
    });
    let reasons = removals(state);
    let checkpoints = objects.iter().filter_map(|object| match dir.object(&object.location) {
        RegionObject::Manifest(ManifestObject::Checkpoint(version)) => Some(version),
        _ => None,
    });
    let retained = positions.retained(state, checkpoints);
    for object in objects {
        let verdict = match dir.object(&object.location) {
            RegionObject::Manifest(object) => {
                if !is_covered(state, checkpoint, object, floor_ms) {
                    Ok(KeepReason::Manifest)
                } else if retained.is_some_and(|retained| retained.has(object)) {
                    Ok(KeepReason::Awaited)
                } else {
                    Err((None, GarbageReason::Covered))
                }
            }
            RegionObject::Data(file) => classify_id(state, &own, &reasons, file.0, floor),
            RegionObject::Index(index) => classify_id(state, &own, &reasons, index, floor),
            RegionObject::Other if object.location == dir.last_checkpoint() => {
                Ok(KeepReason::Manifest)
            }
            RegionObject::Other => Ok(KeepReason::Unknown),
        };
        match verdict {
            Ok(why) => *survey.kept.entry(why).or_default() += 1,
            Err((id, why)) => {
                survey.candidates.push(GarbageCandidate { id, garbage: garbage(dir, object, why) });
            }
        }
    }
    survey
}

fn garbage(dir: RegionDir, object: &ObjectMeta, why: GarbageReason) -> Garbage {
    let path: Path = object.location.clone();
    Garbage { dir, path, bytes: object.size, why }
}

/// Classifies a data file or an index: the reason to keep it, or the candidate's id and reason.
fn classify_id(
    state: &ManifestState,
    own: &HashMap<Uuid, KeepReason>,
    reasons: &HashMap<Uuid, RemovalReason>,
    id: Uuid,
    floor: RegionFloor,
) -> Result<KeepReason, (Option<Uuid>, GarbageReason)> {
    if let Some(why) = own.get(&id) {
        return Ok(*why);
    }
    // Without a manifest, no floor refuses older ids, now or later.
    if id.get_version_num() != 7 || state.version.get() == 0 {
        return Ok(KeepReason::Unknown);
    }
    let time_ms = id_time_ms(id);
    if time_ms >= floor.pass_ms {
        return Ok(KeepReason::Young);
    }
    if time_ms >= floor.region_ms {
        return Ok(KeepReason::Awaited);
    }
    let otherwise = if state.is_removed() { RemovalReason::Drop } else { RemovalReason::Orphan };
    Err((Some(id), GarbageReason::File(reasons.get(&id).copied().unwrap_or(otherwise))))
}

/// Returns the reasons for which files and their indexes were removed, while the state still has
/// them.
fn removals(state: &ManifestState) -> HashMap<Uuid, RemovalReason> {
    let mut reasons = HashMap::new();
    for (file, removed) in &state.removed {
        reasons.insert(file.file_id.0, removed.reason);
        for (index, _) in &removed.indexes {
            reasons.insert(*index, removed.reason);
        }
    }
    reasons
}

/// Returns `true` if no reader needs the object: a newer checkpoint replaces it, and readers that
/// were active when that was written have long finished.
fn is_covered(
    state: &ManifestState,
    checkpoint: ManifestVersion,
    object: ManifestObject,
    floor_ms: u64,
) -> bool {
    let (version, covered) = match object {
        ManifestObject::Delta(version) => (version, version <= checkpoint),
        ManifestObject::Checkpoint(version) => (version, version < checkpoint),
    };
    // The state keeps the writers of one week: versions without a slot are older.
    covered && state.slots.get(&version).is_none_or(|slot| slot.time_ms < floor_ms)
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::FileId;

    use super::*;
    use crate::file_meta::FileMeta;
    use crate::manifest::samples::*;
    use crate::manifest::state::{RemovedFile, VersionSlot};

    /// Ids of `file(n)` have the time 1,000,000 + n.
    const FLOOR: u64 = 1_000_005;

    fn object(path: Path) -> ObjectMeta {
        let last_modified = std::time::SystemTime::UNIX_EPOCH.into();
        ObjectMeta { location: path, last_modified, size: 10, e_tag: None, version: None }
    }

    fn state() -> ManifestState {
        let mut state = ManifestState::empty(DIR);
        state.version = ManifestVersion(9);
        state
    }

    fn verdicts(state: &ManifestState, paths: &[Path]) -> Vec<Result<KeepReason, GarbageReason>> {
        let verdict = |path: &Path| {
            let objects = [object(path.clone())];
            let survey =
                survey(state, ManifestVersion(8), &objects, FLOOR, &HookPositions::default());
            match (survey.candidates.first(), survey.kept.first_key_value()) {
                (Some(candidate), None) => Err(candidate.garbage.why),
                (None, Some((why, 1))) => Ok(*why),
                other => panic!("{path}: {other:?}"),
            }
        };
        paths.iter().map(verdict).collect()
    }

    #[test]
    fn old_unreferenced_files_are_candidates() {
        let mut state = state();
        let live = FileMeta { indexes: vec![index(1)], ..file(1) };
        state.live.insert(live.reference(), live.clone());
        for (number, at_ms, reason) in [
            (2, FLOOR, RemovalReason::Compaction),
            (3, FLOOR - 1, RemovalReason::Compaction),
            (4, 0, RemovalReason::Truncate),
        ] {
            let removed = RemovedFile { origin: DIR, at_ms, reason, indexes: Vec::new() };
            state.removed.insert(file(number).reference(), removed);
        }
        let old = crate::manifest::samples::file_id(1_000_004, 99);
        let paths = [
            DIR.data(file(1).file_id),
            DIR.index(index(1).index_id, "bloom"),
            DIR.data(file(2).file_id),
            DIR.data(file(3).file_id),
            DIR.data(file(4).file_id),
            DIR.data(old),
            DIR.index(old.0, "bloom"),
            DIR.data(file(5).file_id),
            DIR.data(FileId(Uuid::from_u128(5))),
            DIR.path().join("notes.txt"),
        ];
        let expected = [
            Ok(KeepReason::Live),
            Ok(KeepReason::Live),
            Ok(KeepReason::Recent),
            Err(GarbageReason::File(RemovalReason::Compaction)),
            Err(GarbageReason::File(RemovalReason::Truncate)),
            Err(GarbageReason::File(RemovalReason::Orphan)),
            Err(GarbageReason::File(RemovalReason::Orphan)),
            Ok(KeepReason::Young),
            Ok(KeepReason::Unknown),
            Ok(KeepReason::Unknown),
        ];
        assert_eq!(verdicts(&state, &paths), expected);
        state.removed_at_ms = Some(1);
        assert_eq!(
            verdicts(&state, &[DIR.data(old)]),
            [Err(GarbageReason::File(RemovalReason::Drop))]
        );
        state.version = ManifestVersion(0);
        assert_eq!(verdicts(&state, &[DIR.data(old)]), [Ok(KeepReason::Unknown)]);
    }

    #[test]
    fn deltas_covered_before_the_floor_are_candidates() {
        let mut state = state();
        let writer = tidewater_common::ids::WriterId(Uuid::from_u128(1));
        for (version, time_ms) in [(6, FLOOR - 1), (7, FLOOR), (8, FLOOR), (9, FLOOR)] {
            state.slots.insert(ManifestVersion(version), VersionSlot { writer, time_ms });
        }
        let v = ManifestVersion;
        let paths = [
            DIR.delta(v(5)),
            DIR.delta(v(6)),
            DIR.delta(v(7)),
            DIR.delta(v(9)),
            DIR.checkpoint(v(4)),
            DIR.checkpoint(v(7)),
            DIR.checkpoint(v(8)),
            DIR.last_checkpoint(),
        ];
        let expected = [
            Err(GarbageReason::Covered),
            Err(GarbageReason::Covered),
            Ok(KeepReason::Manifest),
            Ok(KeepReason::Manifest),
            Err(GarbageReason::Covered),
            Ok(KeepReason::Manifest),
            Ok(KeepReason::Manifest),
            Ok(KeepReason::Manifest),
        ];
        assert_eq!(verdicts(&state, &paths), expected);
        // At any age, the newest checkpoint and the deltas after it are the manifest.
        state.slots.clear();
        let newest = [DIR.checkpoint(v(8)), DIR.delta(v(9))];
        assert_eq!(verdicts(&state, &newest), [Ok(KeepReason::Manifest), Ok(KeepReason::Manifest)]);
    }
}
