//! Deltas that record an obligation in the manifest (pure).
//!
//! The last delta of an obligation names the obligation's cause, so that the manifest shows it as done.
//! Publishing a staging area takes two deltas. The first makes files and schema live and closes the
//! area. The second records the merge of all staged actions. Only the second names the cause; the closed
//! area shows whether the first is committed.

use tidewater_common::ids::{OwnerEpoch, Sequence};
use tidewater_common::schema::{TableOptions, TableSchema};

use super::obligation::{Obligation, PendingObligation, Publication, PublicationContent};
use crate::bulk::MAX_FILES;
use crate::file_meta::{FileMeta, Stamp};
use crate::manifest::state::StagingArea;
use crate::manifest::{
    Action, ActionKind, AreaId, AreaOutcome, AreaStep, Author, Change, Edit, ManifestState,
    Truncate,
};

impl PendingObligation {
    /// Returns the next delta that records the obligation. It has no actions if nothing is left to do,
    /// so that the manifest still shows the obligation as done: an obligation cannot be refused.
    pub(super) fn next_change(&self, own: OwnerEpoch, state: &ManifestState) -> Change {
        let single = |kind| self.last_change(own, vec![Action::live(kind)]);
        let nothing = || self.last_change(own, Vec::new());
        match &self.obligation {
            Obligation::Alter { schema, options } => {
                single(ActionKind::Alter { schema: schema.clone(), options: options.clone() })
            }
            Obligation::Truncate => {
                single(ActionKind::Truncate(Truncate::UpTo(self.cause.sequence)))
            }
            Obligation::OpenArea { area, deadline_ms } => {
                if state.areas.contains_key(area) || state.closed_areas.get(area).is_some() {
                    return nothing();
                }
                let step = AreaStep::Open { logged: true, deadline_ms: *deadline_ms };
                single(ActionKind::Area { area: *area, step })
            }
            Obligation::Abandon { area } if state.areas.contains_key(area) => {
                single(ActionKind::Area { area: *area, step: AreaStep::Abandon })
            }
            Obligation::Abandon { .. } => nothing(),
            Obligation::Publish(publication) => {
                match (state.areas.get(&publication.area), &publication.content) {
                    (Some(area), PublicationContent::Area { .. }) => {
                        let mut change = Change::new(Author::Owner(own), Vec::new());
                        change.actions = self.publish_actions(publication, area);
                        change
                    }
                    (Some(area), _) => {
                        self.last_change(own, self.publish_actions(publication, area))
                    }
                    (None, PublicationContent::Area { table })
                        if state.closed_areas.get(&publication.area)
                            == Some(AreaOutcome::Published) =>
                    {
                        let merged = self.merged_actions(publication.area, table.as_deref(), state);
                        let step = AreaStep::Merged(merged);
                        single(ActionKind::Area { area: publication.area, step })
                    }
                    (None, _) => nothing(),
                }
            }
        }
    }

    /// Returns a delta that shows the obligation as done.
    fn last_change(&self, own: OwnerEpoch, actions: Vec<Action>) -> Change {
        Change {
            cause: Some(self.cause.sequence),
            procedure: self.cause.procedure,
            actions,
            ..Change::new(Author::Owner(own), Vec::new())
        }
    }

    /// Returns the actions that make the content of an area live and close the area.
    fn publish_actions(&self, publication: &Publication, area: &StagingArea) -> Vec<Action> {
        let table = match &publication.content {
            PublicationContent::Area { table } => table.as_deref(),
            PublicationContent::Files | PublicationContent::Copies => None,
        };
        let staged = area.actions.iter().filter_map(|action| match &action.kind {
            ActionKind::Edit(edit) => Some(edit),
            _ => None,
        });
        let mut edit = Edit::default();
        for part in staged {
            edit.add.extend(part.add.iter().cloned());
            edit.since = edit.since.max(part.since);
            edit.expired.extend(part.expired.iter().copied());
        }
        if publication.content != PublicationContent::Copies {
            for (ordinal, file) in (0..).zip(&mut edit.add) {
                let sequence = Sequence(self.cause.sequence.get() + ordinal);
                file.stamp = Some(Stamp { sequence, epoch: publication.epoch });
            }
        }
        // All rows below the cause are flushed, and the published rows are in files: later writes are
        // newer.
        edit.flushed =
            edit.add.iter().map(FileMeta::max_sequence).max().max(Some(self.cause.sequence));
        let step = AreaStep::Publish;
        let closed = ActionKind::Area { area: publication.area, step };
        let files = (!edit.add.is_empty()).then_some(ActionKind::Edit(edit));
        let kinds = table.map(alter).into_iter().chain(files).chain([closed]);
        kinds.map(Action::live).collect()
    }

    /// Returns the merge of everything that was published from a staging area. It is derived from the
    /// state, so that a new owner can produce it after a crash between the two deltas. No other files
    /// have these sequences.
    fn merged_actions(
        &self,
        area: AreaId,
        table: Option<&(TableSchema, TableOptions)>,
        state: &ManifestState,
    ) -> Vec<Action> {
        let first = self.cause.sequence.get();
        let published = first..first.saturating_add(MAX_FILES as u64);
        let stamped = |file: &&FileMeta| {
            file.stamp.is_some_and(|stamp| published.contains(&stamp.sequence.get()))
        };
        let mut add: Vec<FileMeta> = state.files().filter(stamped).cloned().collect();
        add.sort_by_key(FileMeta::max_sequence);
        let edit = ActionKind::Edit(Edit { add, ..Edit::default() });
        let kinds = table.map(alter).into_iter().chain([edit]);
        kinds.map(|kind| Action::staged(area, kind)).collect()
    }
}

fn alter((schema, options): &(TableSchema, TableOptions)) -> ActionKind {
    ActionKind::Alter { schema: Box::new(schema.clone()), options: options.clone() }
}

#[cfg(test)]
mod tests;
