//! Read plans from the object names in a listing of a manifest.

use std::collections::BTreeSet;

use object_store::path::Path;
use tidewater_common::ids::ManifestVersion;

use crate::layout::ManifestObject;

/// The versions in a listing.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) checkpoints: BTreeSet<ManifestVersion>,
    pub(super) deltas: BTreeSet<ManifestVersion>,
}

/// Objects to read to reach the tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadPlan {
    /// The reader is at the tail.
    Current,
    /// All deltas after the reader's version, up to and including `through`.
    Deltas { through: ManifestVersion },
    /// This checkpoint, then all deltas after it, up to and including `through`.
    Checkpoint { at: ManifestVersion, through: ManifestVersion },
    /// This delta is not listed although the reader has read it or later ones are listed, and no
    /// checkpoint covers it.
    Missing { version: ManifestVersion },
}

/// Objects to read to continue a history after a known version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HistoryPlan {
    /// This checkpoint (0: none), then all deltas after it, up to and including `through`.
    Read { base: ManifestVersion, through: ManifestVersion },
    /// A required delta was cleaned.
    Cleaned,
    /// This delta is not listed although later ones are, and no checkpoint covers it.
    Missing { version: ManifestVersion },
}

impl Listing {
    /// Parses object names into versions; skips other objects.
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

    /// Returns the newest checkpoint.
    pub(super) fn newest_checkpoint(&self) -> Option<ManifestVersion> {
        self.checkpoints.last().copied()
    }

    /// Plans the reads of a reader at `from` (0: not started). `max_deltas`: number of deltas that
    /// are read one by one although a checkpoint would need fewer reads.
    pub(super) fn plan(&self, from: ManifestVersion, max_deltas: u64) -> ReadPlan {
        if self.has_lost(from) {
            return ReadPlan::Missing { version: from };
        }
        let checkpoint = self.newest_checkpoint().filter(|at| *at > from);
        let delta = self.deltas.last().copied().filter(|version| *version > from);
        let Some(through) = checkpoint.max(delta) else { return ReadPlan::Current };
        if let Some(at) = checkpoint {
            let gap = self.gap(from, at);
            if from.get() == 0 || gap.is_some() || at.get() - from.get() > max_deltas {
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

    /// Returns `true` if a version that was read before is neither listed nor covered by a checkpoint,
    /// e.g. because an older copy of the store was restored.
    fn has_lost(&self, known: ManifestVersion) -> bool {
        known.get() > 0
            && !self.deltas.contains(&known)
            && self.newest_checkpoint().is_none_or(|at| at < known)
    }

    /// Plans the reads that yield the state at `after` and at most `limit` deltas after it.
    pub(super) fn history_plan(&self, after: ManifestVersion, limit: u64) -> HistoryPlan {
        let base = self.checkpoints.range(..=after).next_back().copied();
        let base = base.unwrap_or(ManifestVersion(0));
        let newest = self.newest_checkpoint();
        let tail = newest.max(self.deltas.last().copied()).unwrap_or(base);
        let last = ManifestVersion(after.get().saturating_add(limit));
        let through = tail.min(last);
        match self.gap(base, through) {
            None => HistoryPlan::Read { base, through },
            // The deltas before the gap are available.
            Some(gap) if gap > after.next() => {
                HistoryPlan::Read { base, through: ManifestVersion(gap.get() - 1) }
            }
            Some(gap) if newest.is_some_and(|newest| newest >= gap) => HistoryPlan::Cleaned,
            Some(version) => HistoryPlan::Missing { version },
        }
    }

    /// Returns the first delta after `from`, up to `through`, that is not listed.
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
    fn reader_plan_reaches_the_tail() {
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
            // Opening reads the newest checkpoint even if all deltas exist.
            (&[2], &[1, 2, 3], 0, checkpoint(2, 3)),
            (&[2, 4], &[1, 2, 3, 4], 0, checkpoint(4, 4)),
            (&[2], &[4], 0, missing(3)),
            // Followers read deltas while these exist.
            (&[4], &[3, 4, 5], 2, deltas(5)),
            (&[4], &[4, 5], 2, checkpoint(4, 5)),
            (&[4], &[5], 2, checkpoint(4, 5)),
            (&[20], &(3..=21).collect::<Vec<_>>(), 2, checkpoint(20, 21)),
            // A phantom in a cleaned slot below the checkpoint is not read.
            (&[4], &[1, 5], 0, checkpoint(4, 5)),
            (&[4], &[], 0, checkpoint(4, 4)),
            // The version that the reader has read was lost.
            (&[], &[1, 2], 3, missing(3)),
            (&[2], &[1, 2], 3, missing(3)),
            (&[], &[1, 2, 4], 3, missing(3)),
            (&[3], &[], 3, ReadPlan::Current),
            (&[4], &[], 3, checkpoint(4, 4)),
        ];
        for (checkpoints, shown, from, plan) in cases {
            let listing = listing(checkpoints, shown);
            assert_eq!(listing.plan(v(*from), 16), *plan, "{listing:?} from {from}");
        }
    }

    #[test]
    fn history_plan_starts_at_the_checkpoint_before_the_version() {
        let v = ManifestVersion;
        let read = |base, through| HistoryPlan::Read { base: v(base), through: v(through) };
        let missing = |version| HistoryPlan::Missing { version: v(version) };
        let cases: &[(&[u64], &[u64], u64, HistoryPlan)] = &[
            (&[], &[], 0, read(0, 0)),
            (&[], &[1, 2, 3], 0, read(0, 2)),
            (&[], &[1, 2, 3], 3, read(0, 3)),
            // Uses the last checkpoint that is not beyond the known version.
            (&[2, 4, 6], &[1, 2, 3, 4, 5, 6, 7], 5, read(4, 7)),
            (&[2, 4, 6], &[5, 6, 7], 4, read(4, 6)),
            (&[4], &[], 4, read(4, 4)),
            (&[4, 8], &[9], 8, read(8, 9)),
            (&[4, 8], &[5, 7, 8], 4, read(4, 5)),
            (&[4, 8], &[5, 7, 8], 5, HistoryPlan::Cleaned),
            // The state at 6 is not available.
            (&[4, 8], &[5, 7, 8], 6, HistoryPlan::Cleaned),
            (&[8], &[7, 8], 0, HistoryPlan::Cleaned),
            (&[], &[2, 3], 0, missing(1)),
            (&[4], &[6, 7], 4, missing(5)),
        ];
        for (checkpoints, shown, after, plan) in cases {
            let listing = listing(checkpoints, shown);
            assert_eq!(listing.history_plan(v(*after), 2), *plan, "{listing:?} after {after}");
        }
    }

    #[test]
    fn listing_skips_other_objects() {
        let paths = [
            Path::from("t1/r1-0/manifest/00000000000000000001.delta"),
            Path::from("t1/r1-0/manifest/00000000000000000001.checkpoint"),
            Path::from("t1/r1-0/manifest/_last_checkpoint"),
            Path::from("t1/r1-0/manifest/notes.txt"),
        ];
        assert_eq!(Listing::of(&paths), listing(&[1], &[1]));
    }
}
