//! The rules of a manifest.
//!
//! Committers call [`check`] before a put; open, follow, checkpoint and tools call [`apply`] on
//! every delta. Both decide from the state and the delta alone, so that all readers of the same
//! deltas reach the same state (S1), whatever their clocks.

mod author;
mod edit;
mod effect;

use super::state::{ManifestState, VersionSlot};
use super::{ActionKind, AreaOutcome, AreaStep, Author, Delta, Truncate, Void};

/// Time for which a checkpoint names the writer of a version, by the times in deltas.
///
/// It must exceed the pause of any committer between its put and the listing that confirms it, and
/// the grace period after which covered deltas are cleaned; a committer that was paused longer
/// decides from the state.
const SLOT_RETENTION_MS: u64 = 7 * 24 * 3_600_000;

/// Outcome of a delta.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum ReplayOutcome {
    /// The delta changed the state.
    Applied,
    /// The delta broke a rule: it keeps its version and changed nothing.
    Void(Void),
}

/// Checks whether the delta may be put at the next version.
///
/// This is stricter than [`apply`]: earlier releases have compacted files under an older schema
/// than the files had. The inputs of such a compaction may have been collected since, so replay
/// still accepts it.
pub fn check(state: &ManifestState, delta: &Delta) -> Result<(), Void> {
    run(&mut state.clone(), delta)?;
    edit::keeps_schemas(state, delta)
}

/// Applies the delta at the next version. The caller has checked that the delta belongs to this
/// region and version.
pub fn apply(state: &mut ManifestState, delta: &Delta) -> ReplayOutcome {
    let outcome = match *delta.actions.as_slice() {
        // Every check of an action precedes its first change, so one action needs no copy.
        [_] => run(state, delta),
        _ => {
            let mut next = state.clone();
            run(&mut next, delta).map(|()| *state = next)
        }
    };
    state.version = delta.version;
    state.time_ms = state.time_ms.max(delta.time_ms);
    let slot = VersionSlot { writer: delta.writer, time_ms: state.time_ms };
    state.slots.insert(delta.version, slot);
    let oldest = state.time_ms.saturating_sub(SLOT_RETENTION_MS);
    state.slots.retain(|_, slot| slot.time_ms >= oldest);
    match outcome {
        Ok(()) => ReplayOutcome::Applied,
        Err(void) => ReplayOutcome::Void(void),
    }
}

fn run(state: &mut ManifestState, delta: &Delta) -> Result<(), Void> {
    author::may_commit(state, delta)?;
    check_repeats(state, delta)?;
    for action in &delta.actions {
        match action.staged {
            Some(area) => {
                check_staged(state, delta, area, &action.kind)?;
                effect::stage(state, area, action);
            }
            None => {
                check_live(state, delta, &action.kind)?;
                effect::apply_action(state, delta, &action.kind);
            }
        }
    }
    if let Some(cause) = delta.cause {
        state.done_through = state.done_through.max(cause);
    }
    if delta.procedure.is_some() {
        state.procedure = delta.procedure;
    }
    if delta.author == Author::System && !delta.by_reference.is_empty() {
        state.parents.clone_from(&delta.by_reference);
    }
    Ok(())
}

/// Refuses repeats of operations and of procedure steps.
fn check_repeats(state: &ManifestState, delta: &Delta) -> Result<(), Void> {
    if let Some(cause) = delta.cause
        && cause <= state.done_through
    {
        return Err(Void::AlreadyDone { cause });
    }
    if let (Some(step), Some(last)) = (delta.procedure, state.procedure)
        && step <= last
    {
        return Err(Void::StaleStep { number: step.number, step: step.step });
    }
    Ok(())
}

fn check_staged(
    state: &ManifestState,
    delta: &Delta,
    area: super::AreaId,
    kind: &ActionKind,
) -> Result<(), Void> {
    let not_allowed = |what| Err(Void::NotAllowed { author: author::name(delta), what });
    if !state.areas.contains_key(&area) {
        return Err(Void::AreaNotOpen { area });
    }
    match kind {
        ActionKind::Edit(edit) if edit.flushed.is_some() => not_allowed("stage a flush"),
        ActionKind::Edit(edit) => edit::check_additions(state, delta, edit),
        ActionKind::Alter { .. }
        | ActionKind::PartitionExprChange { .. }
        | ActionKind::Truncate(_) => Ok(()),
        ActionKind::Remove => not_allowed("stage a removal"),
        ActionKind::Fence { .. } => not_allowed("stage a fence"),
        ActionKind::GcFloor { .. } => not_allowed("stage a garbage collection floor"),
        ActionKind::Area { .. } => not_allowed("stage a step of a staging area"),
    }
}

fn check_live(state: &ManifestState, delta: &Delta, kind: &ActionKind) -> Result<(), Void> {
    if state.is_sealed() && changes_content(kind) {
        return Err(Void::Sealed);
    }
    match kind {
        ActionKind::Alter { schema, .. } => match &state.table {
            // Options change under the same schema; a schema changes only with its version.
            Some(table) if table.schema == **schema => Ok(()),
            Some(table) if schema.version() <= table.schema.version() => {
                Err(Void::SchemaNotNewer { version: schema.version() })
            }
            _ => Ok(()),
        },
        ActionKind::Edit(edit) => edit::check(state, delta, edit),
        ActionKind::Truncate(Truncate::Files(files)) => edit::check_expiry(state, files),
        ActionKind::Area { area, step } => {
            let open = state.areas.contains_key(area);
            let closed = state.closed_areas.get(area);
            match step {
                AreaStep::Open { .. } if open || closed.is_some() => {
                    Err(Void::AreaUsed { area: *area })
                }
                AreaStep::Open { .. } => Ok(()),
                AreaStep::Publish | AreaStep::Abandon if open => Ok(()),
                AreaStep::Merged(_) if closed == Some(AreaOutcome::Published) => Ok(()),
                _ => Err(Void::AreaNotOpen { area: *area }),
            }
        }
        // The log may publish an open area at any time, and a publication cannot be refused.
        ActionKind::PartitionExprChange { range } if range.is_empty() => {
            match state.areas.keys().next() {
                Some(area) => Err(Void::AreaOpen { area: *area }),
                None => Ok(()),
            }
        }
        ActionKind::PartitionExprChange { .. }
        | ActionKind::Truncate(Truncate::UpTo(_))
        | ActionKind::Remove
        | ActionKind::Fence { .. }
        | ActionKind::GcFloor { .. } => Ok(()),
    }
}

/// Returns `true` for actions that a sealed region refuses: other regions begin with its files, its schema
/// and its options (S8).
fn changes_content(kind: &ActionKind) -> bool {
    match kind {
        ActionKind::Alter { .. } | ActionKind::Edit(_) | ActionKind::Truncate(_) => true,
        ActionKind::Area { step, .. } => match step {
            AreaStep::Open { .. } | AreaStep::Publish => true,
            AreaStep::Abandon | AreaStep::Merged(_) => false,
        },
        ActionKind::PartitionExprChange { .. }
        | ActionKind::Remove
        | ActionKind::Fence { .. }
        | ActionKind::GcFloor { .. } => false,
    }
}

#[cfg(test)]
mod tests;
