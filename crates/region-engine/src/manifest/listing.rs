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
pub(super) enum Plan {
    /// The reader is at the tail.
    Current,
    /// All deltas after the reader's version, up to and with this one.
    Deltas { through: ManifestVersion },
    /// This checkpoint, then all deltas after it, up to and with `through`.
    Checkpoint { at: ManifestVersion, through: ManifestVersion },
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
    pub(super) fn plan(&self, from: ManifestVersion, patience: u64) -> Plan {
        let checkpoint = self.newest_checkpoint().filter(|at| *at > from);
        let delta = self.deltas.last().copied().filter(|version| *version > from);
        let Some(through) = checkpoint.max(delta) else { return Plan::Current };
        if let Some(at) = checkpoint {
            let gap = self.gap(from, at);
            if from.get() == 0 || gap.is_some() || at.get() - from.get() > patience {
                return match self.gap(at, through) {
                    None => Plan::Checkpoint { at, through },
                    Some(version) => Plan::Missing { version },
                };
            }
        }
        match self.gap(from, through) {
            None => Plan::Deltas { through },
            Some(version) => Plan::Missing { version },
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
        let deltas = |through| Plan::Deltas { through: v(through) };
        let checkpoint = |at, through| Plan::Checkpoint { at: v(at), through: v(through) };
        let missing = |version| Plan::Missing { version: v(version) };
        let cases: &[(&[u64], &[u64], u64, Plan)] = &[
            (&[], &[], 0, Plan::Current),
            (&[], &[1, 2, 3], 0, deltas(3)),
            (&[], &[1, 2, 3], 3, Plan::Current),
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
