//! Rules of edits: additions, removals, indexes.

use std::collections::BTreeSet;

use tidewater_common::ids::{FileId, Sequence};
use tidewater_common::schema::WriteMode;
use uuid::Uuid;

use super::author;
use crate::env::id_time_ms;
use crate::file_meta::{FileMeta, FileRef, hull};
use crate::manifest::{ActionKind, AreaId, AreaStep, Author, Delta, Edit, ManifestState, Void};

/// Checks a live edit.
pub(super) fn check(state: &ManifestState, delta: &Delta, edit: &Edit) -> Result<(), Void> {
    check_flushed_once(state, delta, edit)?;
    check_removals(state, edit)?;
    check_additions(state, delta, edit)?;
    check_indexes(state, edit)?;
    match delta.author {
        Author::Job(_) => check_swap(state, delta, edit),
        Author::Owner(_) | Author::System => Ok(()),
    }
}

/// A flush contains only rows above the flushed sequence: the same rows under other file ids would
/// appear twice in an append-only table.
fn check_flushed_once(state: &ManifestState, delta: &Delta, edit: &Edit) -> Result<(), Void> {
    let (Author::Owner(_), None, Some(flushed)) = (delta.author, delta.cause, edit.flushed) else {
        return Ok(());
    };
    let again = |file: &FileMeta| file.stamp.is_none() && file.min_sequence() <= state.flushed;
    if flushed <= state.flushed || edit.add.iter().any(again) {
        return Err(Void::AlreadyFlushed { flushed: state.flushed });
    }
    Ok(())
}

fn check_removals(state: &ManifestState, edit: &Edit) -> Result<(), Void> {
    let mut seen = BTreeSet::new();
    for file in &edit.remove {
        if !state.live.contains_key(file) || !seen.insert(file) {
            return Err(Void::InputsGone { file: file.file_id });
        }
    }
    Ok(())
}

/// Checks files that are added, staged ones included.
pub(super) fn check_additions(
    state: &ManifestState,
    delta: &Delta,
    edit: &Edit,
) -> Result<(), Void> {
    let removed: BTreeSet<&FileRef> = edit.remove.iter().collect();
    let published = published(delta);
    let mut seen = BTreeSet::new();
    for file in &edit.add {
        let reference = file.reference();
        let known = FileKnowledge::of(state, file.file_id, &published);
        let still_live = state.live.contains_key(&reference) && !removed.contains(&reference);
        if still_live || known.removed || known.staged || !seen.insert(reference) {
            return Err(Void::FileKnown { file: file.file_id });
        }
        if !known.live && !known.published && file.origin == state.dir {
            check_above_floor(state, file.file_id.0)?;
            for index in &file.indexes {
                check_above_floor(state, index.index_id)?;
            }
        }
    }
    Ok(())
}

/// References to a file id in a state, with any clip.
struct FileKnowledge {
    live: bool,
    /// It was live and was removed: its object may be deleted.
    removed: bool,
    /// It is staged in an area that this delta does not publish.
    staged: bool,
    /// It is staged in an area that this delta publishes.
    published: bool,
}

impl FileKnowledge {
    fn of(state: &ManifestState, file: FileId, publishing: &BTreeSet<AreaId>) -> Self {
        let first = FileRef { file_id: file, clip_start: Vec::new(), clip_end: None };
        let live = state.live.range(&first..).next().is_some_and(|(key, _)| key.file_id == file);
        let removed =
            state.removed.range(&first..).next().is_some_and(|(key, _)| key.file_id == file);
        let mut staged = false;
        let mut published = false;
        for (id, area) in &state.areas {
            let named = area.actions.iter().any(|action| match &action.kind {
                ActionKind::Edit(edit) => edit.add.iter().any(|added| added.file_id == file),
                _ => false,
            });
            if publishing.contains(id) {
                published |= named;
            } else {
                staged |= named;
            }
        }
        Self { live, removed: removed && !live, staged, published }
    }
}

fn published(delta: &Delta) -> BTreeSet<AreaId> {
    let area = |kind: &ActionKind| match kind {
        ActionKind::Area { area, step: AreaStep::Publish } => Some(*area),
        _ => None,
    };
    delta.actions.iter().filter_map(|action| area(&action.kind)).collect()
}

/// Refuses ids below the floor: garbage collection may have deleted any object that is older than
/// the floor and was not referenced.
fn check_above_floor(state: &ManifestState, id: Uuid) -> Result<(), Void> {
    if id_time_ms(id) < state.gc_floor_ms {
        return Err(Void::BelowFloor { file: FileId(id), floor_ms: state.gc_floor_ms });
    }
    Ok(())
}

fn check_indexes(state: &ManifestState, edit: &Edit) -> Result<(), Void> {
    let schema = state.table.as_ref().map(|table| table.schema.version());
    let mut seen = BTreeSet::new();
    for (reference, index) in &edit.add_indexes {
        let file = reference.file_id;
        let Some(live) = state.live.get(reference).filter(|_| !edit.remove.contains(reference))
        else {
            return Err(Void::InputsGone { file });
        };
        if Some(index.schema_version) != schema {
            return Err(Void::SchemaChanged { file });
        }
        let twice = live.indexes.iter().any(|known| known.index_id == index.index_id);
        if twice || !seen.insert(index.index_id) {
            return Err(Void::FileKnown { file: FileId(index.index_id) });
        }
        check_above_floor(state, index.index_id)?;
    }
    Ok(())
}

/// Checks that a job's outputs replace its inputs and nothing else.
fn check_swap(state: &ManifestState, delta: &Delta, edit: &Edit) -> Result<(), Void> {
    if edit.remove.is_empty() {
        if edit.add.is_empty() {
            return Ok(());
        }
        let what = "add files without removing any";
        return Err(Void::NotAllowed { author: author::name(delta), what });
    }
    let inputs: Vec<&FileMeta> =
        edit.remove.iter().filter_map(|file| state.live.get(file)).collect();
    let hull = hull(inputs.iter().copied());
    let newest = inputs.iter().map(|file| file.max_sequence()).max().unwrap_or(Sequence(0));
    for file in &edit.add {
        let refuse = |why| Err(Void::NotASwap { file: file.file_id, why });
        if file.clip.intersection(&hull) != file.clip {
            return refuse("its clip range exceeds theirs");
        }
        if file.max_sequence() > newest {
            return refuse("it has newer rows");
        }
    }
    Ok(())
}

/// Refuses outputs under an older schema than the inputs: such a job would drop the columns that it
/// does not know. Versions count within a table, and a file that only changes its reference is not
/// rewritten.
pub(super) fn keeps_schemas(state: &ManifestState, delta: &Delta) -> Result<(), Void> {
    let Author::Job(_) = delta.author else { return Ok(()) };
    for action in &delta.actions {
        let ActionKind::Edit(edit) = &action.kind else { continue };
        let inputs: Vec<&FileMeta> =
            edit.remove.iter().filter_map(|file| state.live.get(file)).collect();
        let written =
            edit.add.iter().filter(|file| inputs.iter().all(|input| input.file_id != file.file_id));
        for file in written {
            let newer = |input: &&FileMeta| {
                input.origin.table_id == file.origin.table_id
                    && input.schema_version > file.schema_version
            };
            if inputs.iter().any(newer) {
                let why = "it has an older schema";
                return Err(Void::NotASwap { file: file.file_id, why });
            }
        }
    }
    Ok(())
}

/// Checks that whole files may be dropped because they have expired.
pub(super) fn check_expiry(state: &ManifestState, files: &[FileRef]) -> Result<(), Void> {
    let allowed = state.table.as_ref().is_some_and(|table| {
        let schema = &table.schema;
        table.options.write_mode == WriteMode::AppendOnly
            || schema.time_column().is_some_and(|column| schema.primary_key().contains(&column))
    });
    if !allowed {
        return Err(Void::NoExpiry);
    }
    match files.iter().find(|file| !state.live.contains_key(file)) {
        Some(file) => Err(Void::InputsGone { file: file.file_id }),
        None => Ok(()),
    }
}
