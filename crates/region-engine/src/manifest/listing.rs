//! What a listing of a manifest shows, and what to read because of it.

use std::collections::BTreeSet;

use object_store::path::Path;
use tidewater_common::ids::ManifestVersion;

use crate::layout::ManifestObject;

/// The versions that a listing showed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) checkpoints: BTreeSet<ManifestVersion>,
    pub(super) deltas: BTreeSet<ManifestVersion>,
}

/// What to read to reach the tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadPlan {
    /// The reader is at the tail.
    Current,
    /// All deltas after the reader's version, up to and with this one.
    Deltas { through: ManifestVersion },
    /// This checkpoint, then all deltas after it, up to and with `through`.
    Checkpoint { at: ManifestVersion, through: ManifestVersion },
    /// This delta is not shown, though later ones are, and no checkpoint covers it.
    Missing { version: ManifestVersion },
}

/// What a reader of the past that knows a version reads to go on from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HistoryPlan {
    /// This checkpoint (0: none), then all deltas after it, up to and with `through`.
    Read { base: ManifestVersion, through: ManifestVersion },
    /// A delta that it needs was cleaned.
    Cleaned,
    /// This delta is not shown, though later ones are, and no checkpoint covers it.
    Missing { version: ManifestVersion },
}

impl Listing {
    /// Sorts names of objects.
    pub(super) fn of<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let mut listing = Self::default();
        for object in paths.into_iter().filter_map(Path::filename).filter_map(ManifestObject::parse)
        {
            match object {
                ManifestObject::Delta(version) => listing.deltas.insert(version),
                ManifestObject::Checkpoint(version) => listing.checkpoints.insert(version),
            };
        }
        listing
    }

    /// Newest checkpoint.
    pub(super) fn newest_checkpoint(&self) -> Option<ManifestVersion> {
        self.checkpoints.last().copied()
    }

    /// What a reader that is at `from` (0: nowhere) reads. `patience`: so many deltas are read one by
    /// one though a checkpoint would be shorter.
    pub(super) fn plan(&self, from: ManifestVersion, patience: u64) -> ReadPlan {
        let checkpoint = self.newest_checkpoint().filter(|at| *at > from);
        let delta = self.deltas.last().copied().filter(|version| *version > from);
        let Some(through) = checkpoint.max(delta) else { return ReadPlan::Current };
        if let Some(at) = checkpoint {
            let gap = self.gap(from, at);
            if from.get() == 0 || gap.is_some() || at.get() - from.get() > patience {
                return match self.gap(at, through) {
                    None => ReadPlan::Checkpoint { at, through },
                    Some(version) => ReadPlan::Missing { version },
                };
            }
        }
        match self.gap(from, through) {
            None => ReadPlan::Deltas { through },
            Some(version) => ReadPlan::Missing { version },
        }
    }

    /// What to read to know the state at `after` and at most `most` deltas behind it.
    pub(super) fn stretch(&self, after: ManifestVersion, most: u64) -> HistoryPlan {
        let base = self.checkpoints.range(..=after).next_back().copied();
        let base = base.unwrap_or(ManifestVersion(0));
        let newest = self.newest_checkpoint();
        let tail = newest.max(self.deltas.last().copied()).unwrap_or(base);
        let wanted = ManifestVersion(after.get().saturating_add(most));
        let through = tail.min(wanted);
        match self.gap(base, through) {
            None => HistoryPlan::Read { base, through },
            // What lies before the gap can be had.
            Some(gap) if gap > after.next() => {
                HistoryPlan::Read { base, through: ManifestVersion(gap.get() - 1) }
            }
            Some(gap) if newest.is_some_and(|newest| newest >= gap) => HistoryPlan::Cleaned,
            Some(version) => HistoryPlan::Missing { version },
        }
    }

    /// The first delta after `from`, up to `through`, that is not shown.
    fn gap(&self, from: ManifestVersion, through: ManifestVersion) -> Option<ManifestVersion> {
        let mut expected = from.next();
        for version in self.deltas.range(expected..) {
            if *version != expected || expected > through {
                break;
            }
            expected = expected.next();
        }
        (expected <= through).then_some(expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(checkpoints: &[u64], deltas: &[u64]) -> Listing {
        Listing {
            checkpoints: checkpoints.iter().copied().map(ManifestVersion).collect(),
            deltas: deltas.iter().copied().map(ManifestVersion).collect(),
        }
    }

    #[test]
    fn plans() {
        let v = ManifestVersion;
        let deltas = |through| ReadPlan::Deltas { through: v(through) };
        let checkpoint = |at, through| ReadPlan::Checkpoint { at: v(at), through: v(through) };
        let missing = |version| ReadPlan::Missing { version: v(version) };
        let cases: &[(&[u64], &[u64], u64, ReadPlan)] = &[
            (&[], &[], 0, ReadPlan::Current),
            (&[], &[1, 2, 3], 0, deltas(3)),
            (&[], &[1, 2, 3], 3, ReadPlan::Current),
            (&[], &[2, 3], 0, missing(1)),
            (&[], &[1, 3], 0, missing(2)),
            // Opening reads the newest checkpoint, also where the deltas are all there.
            (&[2], &[1, 2, 3], 0, checkpoint(2, 3)),
            (&[2, 4], &[1, 2, 3, 4], 0, checkpoint(4, 4)),
            (&[2], &[4], 0, missing(3)),
            // Followers read deltas while they can.
            (&[4], &[3, 4, 5], 2, deltas(5)),
            (&[4], &[4, 5], 2, checkpoint(4, 5)),
            (&[4], &[5], 2, checkpoint(4, 5)),
            (&[20], &(3..=21).collect::<Vec<_>>(), 2, checkpoint(20, 21)),
            // A phantom in a cleaned slot below the checkpoint is not looked at.
            (&[4], &[1, 5], 0, checkpoint(4, 5)),
            (&[4], &[], 0, checkpoint(4, 4)),
        ];
        for (checkpoints, shown, from, plan) in cases {
            let listing = listing(checkpoints, shown);
            assert_eq!(listing.plan(v(*from), 16), *plan, "{listing:?} from {from}");
        }
    }

    #[test]
    fn stretches() {
        let v = ManifestVersion;
        let read = |base, through| HistoryPlan::Read { base: v(base), through: v(through) };
        let missing = |version| HistoryPlan::Missing { version: v(version) };
        let cases: &[(&[u64], &[u64], u64, HistoryPlan)] = &[
            (&[], &[], 0, read(0, 0)),
            (&[], &[1, 2, 3], 0, read(0, 2)),
            (&[], &[1, 2, 3], 3, read(0, 3)),
            // Of the checkpoints, the last one that is not beyond what is known.
            (&[2, 4, 6], &[1, 2, 3, 4, 5, 6, 7], 5, read(4, 7)),
            (&[2, 4, 6], &[5, 6, 7], 4, read(4, 6)),
            (&[4], &[], 4, read(4, 4)),
            (&[4, 8], &[9], 8, read(8, 9)),
            (&[4, 8], &[5, 7, 8], 4, read(4, 5)),
            (&[4, 8], &[5, 7, 8], 5, HistoryPlan::Cleaned),
            // The state at 6 cannot be had.
            (&[4, 8], &[5, 7, 8], 6, HistoryPlan::Cleaned),
            (&[8], &[7, 8], 0, HistoryPlan::Cleaned),
            (&[], &[2, 3], 0, missing(1)),
            (&[4], &[6, 7], 4, missing(5)),
        ];
        for (checkpoints, shown, after, stretch) in cases {
            let listing = listing(checkpoints, shown);
            assert_eq!(listing.stretch(v(*after), 2), *stretch, "{listing:?} after {after}");
        }
    }

    #[test]
    fn other_objects_are_skipped() {
        let paths = [
            Path::from("t1/r1-0/manifest/00000000000000000001.delta"),
            Path::from("t1/r1-0/manifest/00000000000000000001.checkpoint"),
            Path::from("t1/r1-0/manifest/_last_checkpoint"),
            Path::from("t1/r1-0/manifest/notes.txt"),
        ];
        assert_eq!(Listing::of(&paths), listing(&[1], &[1]));
    }
}
