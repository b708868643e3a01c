//! Permissions of authors: fencing, jobs, the system.

use tidewater_common::ids::OwnerEpoch;

use crate::manifest::{ActionKind, Author, Delta, ManifestState, RequiredProgress, Void};

pub(super) fn may_commit(state: &ManifestState, delta: &Delta) -> Result<(), Void> {
    if state.is_removed() {
        return Err(Void::Removed);
    }
    match delta.author {
        Author::Owner(own) => owner(state, delta, own),
        Author::Job(_) => job(delta),
        Author::System => system(state, delta),
    }
}

/// Returns the author's name for messages.
pub(super) fn name(delta: &Delta) -> &'static str {
    match delta.author {
        Author::Owner(_) => "an owner",
        Author::Job(_) => "a job",
        Author::System => "the system",
    }
}

fn owner(state: &ManifestState, delta: &Delta, own: OwnerEpoch) -> Result<(), Void> {
    let not_allowed = |what| Err(Void::NotAllowed { author: name(delta), what });
    let mut fence = None;
    for (at, action) in delta.actions.iter().enumerate() {
        match action.kind {
            ActionKind::Fence { owner, .. } if owner != own => {
                return not_allowed("fence for another owner");
            }
            ActionKind::Fence { .. } if at > 0 => {
                return not_allowed("fence after its first action");
            }
            ActionKind::Fence { group, required, .. } => fence = Some((group, required)),
            ActionKind::GcFloor { .. } => return not_allowed("raise the garbage collection floor"),
            _ => {}
        }
    }
    match (state.owner, fence) {
        // Terms are those of one group. The first group that fences a move owns the region.
        (Some(owner), Some((group, _)))
            if owner.epoch.move_epoch == own.move_epoch && owner.group != group =>
        {
            Err(Void::OwnedByGroup { own, group: owner.group })
        }
        (Some(owner), _) if owner.epoch > own => Err(Void::Fenced { own, later: owner.epoch }),
        (_, Some((_, required))) => has_progress(state, required),
        (Some(owner), None) if owner.epoch == own => Ok(()),
        (_, None) => Err(Void::NotFenced { own }),
    }
}

fn has_progress(state: &ManifestState, required: RequiredProgress) -> Result<(), Void> {
    let (flushed, done) = (state.flushed, state.done_through);
    if flushed >= required.flushed && done >= required.done {
        Ok(())
    } else {
        Err(Void::ProgressMissing { flushed, done })
    }
}

fn job(delta: &Delta) -> Result<(), Void> {
    let not_allowed = |what| Err(Void::NotAllowed { author: name(delta), what });
    if delta.cause.is_some() || !delta.by_reference.is_empty() {
        return not_allowed("act for a log entry or adopt files");
    }
    for action in &delta.actions {
        match &action.kind {
            _ if action.staged.is_some() => return not_allowed("stage"),
            ActionKind::Edit(edit) if edit.flushed.is_some() => return not_allowed("flush"),
            ActionKind::Edit(_) => {}
            _ => return not_allowed("do anything but replace live files or add an index"),
        }
    }
    Ok(())
}

fn system(state: &ManifestState, delta: &Delta) -> Result<(), Void> {
    let first = state.version.get() == 0 && !delta.by_reference.is_empty();
    for action in &delta.actions {
        let allowed = match &action.kind {
            _ if action.staged.is_some() => false,
            ActionKind::GcFloor { .. } => true,
            ActionKind::Alter { .. }
            | ActionKind::PartitionExprChange { .. }
            | ActionKind::Edit(_) => first,
            ActionKind::Truncate(_)
            | ActionKind::Remove
            | ActionKind::Fence { .. }
            | ActionKind::Area { .. } => false,
        };
        if !allowed {
            let what = "do anything but raise the floor or create a child";
            return Err(Void::NotAllowed { author: name(delta), what });
        }
    }
    Ok(())
}
