//! Effects of actions on the state, applied after the rules have accepted them. Nothing here can
//! fail.

use tidewater_common::ids::Sequence;

use crate::file_meta::{FileMeta, FileRef};
use crate::hooks::RemovalReason;
use crate::manifest::state::{RegionOwner, RemovedFile, StagingArea, TableState};
use crate::manifest::{
    Action, ActionKind, AreaId, AreaOutcome, AreaStep, Delta, Edit, ManifestState, Truncate,
};

/// Records an action in its area.
pub(super) fn stage(state: &mut ManifestState, area: AreaId, action: &Action) {
    if let Some(area) = state.areas.get_mut(&area) {
        area.actions.push(action.clone());
    }
}

/// Applies an action.
pub(super) fn apply_action(state: &mut ManifestState, delta: &Delta, kind: &ActionKind) {
    // A slow clock must not shorten the grace period of the files that this delta removes: scans
    // that began just before still read them. So no removal is dated earlier than anything before
    // it in the manifest.
    let at_ms = delta.time_ms.max(state.time_ms).max(state.gc_floor_ms);
    match kind {
        ActionKind::Alter { schema, options } => {
            let schema = (**schema).clone();
            state.table = Some(TableState { schema, options: options.clone() });
        }
        ActionKind::PartitionExprChange { range } => {
            // A repeated seal keeps the version of the first: nothing has changed since.
            let sealed_at = state.sealed_at.unwrap_or(delta.version);
            state.sealed_at = range.is_empty().then_some(sealed_at);
            state.range = Some(range.clone());
        }
        ActionKind::Edit(edit) => apply_edit(state, at_ms, edit),
        ActionKind::Truncate(Truncate::UpTo(sequence)) => truncate(state, at_ms, *sequence),
        ActionKind::Truncate(Truncate::Files(files)) => {
            for file in files {
                remove_file(state, at_ms, file, RemovalReason::Truncate);
            }
        }
        ActionKind::Remove => {
            state.removed_at_ms = Some(at_ms);
            let files: Vec<FileRef> = state.live.keys().cloned().collect();
            for file in &files {
                remove_file(state, at_ms, file, RemovalReason::Drop);
            }
            close_areas(state, |_| true);
        }
        ActionKind::Fence { owner, group, .. } => {
            if state.owner.is_none_or(|before| before.epoch < *owner) {
                // An area that no log entry opened ends with its owner.
                close_areas(state, |area| !area.logged);
            }
            state.owner = Some(RegionOwner { epoch: *owner, group: *group });
        }
        ActionKind::GcFloor { floor_ms } => {
            state.gc_floor_ms = state.gc_floor_ms.max(*floor_ms);
            let floor_ms = state.gc_floor_ms;
            // Their objects are garbage from now on, and the floor refuses their ids.
            state.removed.retain(|_, removed| removed.at_ms >= floor_ms);
        }
        ActionKind::Area { area, step } => match step {
            AreaStep::Open { logged, deadline_ms } => {
                let area_state =
                    StagingArea { logged: *logged, deadline_ms: *deadline_ms, actions: Vec::new() };
                state.areas.insert(*area, area_state);
            }
            AreaStep::Publish => {
                state.areas.remove(area);
                state.closed_areas.insert(*area, AreaOutcome::Published);
            }
            AreaStep::Abandon => {
                state.areas.remove(area);
                state.closed_areas.insert(*area, AreaOutcome::Abandoned);
            }
            AreaStep::Merged(_) => {}
        },
    }
}

fn apply_edit(state: &mut ManifestState, at_ms: u64, edit: &Edit) {
    for file in &edit.remove {
        remove_file(state, at_ms, file, RemovalReason::Compaction);
    }
    for file in &edit.add {
        let reference = file.reference();
        state.removed.remove(&reference);
        if file.max_sequence() <= state.truncated {
            state.removed.insert(reference, removed(file, at_ms, RemovalReason::Truncate));
        } else {
            state.live.insert(reference, file.clone());
        }
    }
    for (file, index) in &edit.add_indexes {
        if let Some(file) = state.live.get_mut(file) {
            file.indexes.push(index.clone());
        }
    }
    if let Some(flushed) = edit.flushed {
        state.flushed = state.flushed.max(flushed);
    }
    if let Some(since) = edit.since {
        state.since = state.since.max(since);
    }
    if edit.window_ms.is_some() {
        state.window_ms = edit.window_ms;
    }
    for mark in &edit.expired {
        state.expired.add(*mark);
    }
}

fn truncate(state: &mut ManifestState, at_ms: u64, sequence: Sequence) {
    state.truncated = state.truncated.max(sequence);
    state.flushed = state.flushed.max(sequence);
    let truncated: Vec<FileRef> = state
        .live
        .iter()
        .filter(|(_, file)| file.max_sequence() <= sequence)
        .map(|(reference, _)| reference.clone())
        .collect();
    for file in &truncated {
        remove_file(state, at_ms, file, RemovalReason::Truncate);
    }
}

fn remove_file(state: &mut ManifestState, at_ms: u64, file: &FileRef, reason: RemovalReason) {
    if let Some(meta) = state.live.remove(file) {
        state.removed.insert(file.clone(), removed(&meta, at_ms, reason));
    }
}

fn removed(file: &FileMeta, at_ms: u64, reason: RemovalReason) -> RemovedFile {
    let indexes = file.indexes.iter().map(|index| (index.index_id, index.kind.clone())).collect();
    RemovedFile { origin: file.origin, at_ms, reason, indexes }
}

fn close_areas(state: &mut ManifestState, ends: impl Fn(&StagingArea) -> bool) {
    let ended: Vec<AreaId> =
        state.areas.iter().filter(|(_, area)| ends(area)).map(|(id, _)| *id).collect();
    for id in ended {
        state.areas.remove(&id);
        state.closed_areas.insert(id, AreaOutcome::Abandoned);
    }
}
