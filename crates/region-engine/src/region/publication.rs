//! Which deltas carry out what the log has decided: pure.
//!
//! The delta that ends an obligation names its cause, and so the manifest shows it done. Publishing a
//! staging area takes two: the files and the schema, live, and then the merge of all that was staged,
//! for the record. Only the second one names the cause; whether the first is there is seen by the
//! area, which it closes.

use tidewater_common::ids::{Epoch, OwnerEpoch, Sequence};
use tidewater_common::schema::{TableOptions, TableSchema};

use super::obligation::{Obligation, Pending};
use crate::bulk::MAX_FILES;
use crate::file_meta::{FileMeta, Stamp};
use crate::manifest::state::StagingArea;
use crate::manifest::{
    Action, ActionKind, AreaId, AreaOutcome, AreaStep, Author, Change, Edit, ManifestState,
    Truncate,
};

/// That what is staged in an area becomes live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The area.
    pub area: AreaId,
    /// Epoch of the rows, but for those of copies.
    pub epoch: Epoch,
    /// What the area was made for.
    pub content: Content,
}

/// What an area was made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Files that somebody else wrote: their rows get the sequence of the cause, the second file's
    /// that after it, and so on. Whoever gives out sequences leaves as many free as there are files.
    Files,
    /// Another region's files, which keep their own sequences.
    Copies,
    /// A staging area: files as above, and perhaps schema and options.
    Area {
        /// Schema and options from here on.
        table: Option<Box<(TableSchema, TableOptions)>>,
    },
}

impl Pending {
    /// The next delta that carries it out. Without actions where nothing is left to do, so that the
    /// manifest shows it done all the same: an obligation cannot be refused.
    pub(super) fn change(&self, own: OwnerEpoch, state: &ManifestState) -> Change {
        let one = |kind| self.last(own, vec![Action::live(kind)]);
        let nothing = || self.last(own, Vec::new());
        match &self.obligation {
            Obligation::Alter { schema, options } => {
                one(ActionKind::Alter { schema: schema.clone(), options: options.clone() })
            }
            Obligation::Truncate => one(ActionKind::Truncate(Truncate::UpTo(self.cause.sequence))),
            Obligation::OpenArea { area, deadline_ms } => {
                if state.areas.contains_key(area) || state.closed_areas.get(area).is_some() {
                    return nothing();
                }
                let step = AreaStep::Open { logged: true, deadline_ms: *deadline_ms };
                one(ActionKind::Area { area: *area, step })
            }
            Obligation::Abandon { area } if state.areas.contains_key(area) => {
                one(ActionKind::Area { area: *area, step: AreaStep::Abandon })
            }
            Obligation::Abandon { .. } => nothing(),
            Obligation::Publish(publication) => {
                match (state.areas.get(&publication.area), &publication.content) {
                    (Some(area), Content::Area { .. }) => {
                        let mut change = Change::new(Author::Owner(own), Vec::new());
                        change.actions = self.live(publication, area);
                        change
                    }
                    (Some(area), _) => self.last(own, self.live(publication, area)),
                    (None, Content::Area { table })
                        if state.closed_areas.get(&publication.area)
                            == Some(AreaOutcome::Published) =>
                    {
                        let merged = self.merged(publication.area, table.as_deref(), state);
                        let step = AreaStep::Merged(merged);
                        one(ActionKind::Area { area: publication.area, step })
                    }
                    (None, _) => nothing(),
                }
            }
        }
    }

    fn last(&self, own: OwnerEpoch, actions: Vec<Action>) -> Change {
        Change {
            cause: Some(self.cause.sequence),
            procedure: self.cause.procedure,
            actions,
            ..Change::new(Author::Owner(own), Vec::new())
        }
    }

    /// What makes an area's content live, and closes it.
    fn live(&self, publication: &Publication, area: &StagingArea) -> Vec<Action> {
        let table = match &publication.content {
            Content::Area { table } => table.as_deref(),
            Content::Files | Content::Copies => None,
        };
        let staged = area.actions.iter().filter_map(|action| match &action.kind {
            ActionKind::Edit(edit) => Some(edit),
            _ => None,
        });
        let mut edit = Edit::default();
        for part in staged {
            edit.add.extend(part.add.iter().cloned());
            edit.since = edit.since.max(part.since);
        }
        if publication.content != Content::Copies {
            for (ordinal, file) in (0..).zip(&mut edit.add) {
                let sequence = Sequence(self.cause.sequence.get() + ordinal);
                file.stamp = Some(Stamp { sequence, epoch: publication.epoch });
            }
        }
        // All rows below it are flushed, and its own lie in files: what is written later is newer.
        edit.flushed =
            edit.add.iter().map(FileMeta::max_sequence).max().max(Some(self.cause.sequence));
        let step = AreaStep::Publish;
        let closed = ActionKind::Area { area: publication.area, step };
        let files = (!edit.add.is_empty()).then_some(ActionKind::Edit(edit));
        let kinds = table.map(alter).into_iter().chain(files).chain([closed]);
        kinds.map(Action::live).collect()
    }

    /// All that was published from a staging area, as the state shows it: also an owner that comes
    /// after a crash between the two deltas knows it. Nothing else has these sequences.
    fn merged(
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
