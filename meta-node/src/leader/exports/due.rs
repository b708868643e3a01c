//! Decisions of the export manager (pure).

use std::collections::{BTreeMap, BTreeSet};

use tidewater_common::ids::{Epoch, GroupId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason};

use crate::catalog::Export;

/// Epochs of a step: from the one that is exported, to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StepEpochs {
    /// `None`: the first step.
    pub(super) after: Option<Epoch>,
    pub(super) as_of: Epoch,
}

/// Returns the step of an export that is due. `last`: epoch of the last barrier. `time_ms`: replicated time.
pub(super) fn due_step(export: &Export, last: Epoch, time_ms: u64) -> Option<StepEpochs> {
    let after = export.frontier;
    if let Some(as_of) = export.step_as_of {
        // Begun, possibly by an earlier leader.
        return Some(StepEpochs { after, as_of });
    }
    let Some(frontier) = after else {
        return Some(StepEpochs { after, as_of: export.as_of });
    };
    let due_ms = frontier.ms().unwrap_or_default().saturating_add(export.interval_ms);
    // Complete in a group as soon as it has the last barrier.
    let as_of = last.previous();
    (time_ms >= due_ms && as_of > frontier).then_some(StepEpochs { after, as_of })
}

/// Regions that are written for a step.
#[derive(Debug, Default)]
pub(super) struct WrittenRegions {
    files: BTreeMap<RegionId, Vec<v1::ExportFile>>,
}

impl WrittenRegions {
    /// Adds a region.
    pub(super) fn add(&mut self, region: RegionId, files: Vec<v1::ExportFile>) {
        self.files.insert(region, files);
    }

    /// Returns the regions of the routes that are not written yet, with their groups. Those that a split, merge or another change
    /// of the routes has replaced do not count.
    pub(super) fn missing(&self, routes: &BTreeMap<RegionId, GroupId>) -> Vec<(RegionId, GroupId)> {
        let is_missing = |(region, _): &(&RegionId, &GroupId)| !self.files.contains_key(region);
        routes.iter().filter(is_missing).map(|(region, group)| (*region, *group)).collect()
    }

    /// Returns the files of these regions.
    pub(super) fn files_of(&self, routes: &BTreeMap<RegionId, GroupId>) -> Vec<v1::ExportFile> {
        let regions: BTreeSet<&RegionId> = routes.keys().collect();
        let of_routes = self.files.iter().filter(|(region, _)| regions.contains(region));
        of_routes.flat_map(|(_, files)| files.iter().cloned()).collect()
    }
}

/// Returns whether a failure of a region passes by itself, in a moment: the group is about to complete the epoch, has another
/// leader, or serves other regions. It is no failure of the export.
pub(super) fn is_passing(problem: &Refusal) -> bool {
    matches!(
        problem.reason,
        Reason::EpochIncomplete
            | Reason::NotLeader
            | Reason::RegionNotFound
            | Reason::RegionLoading
            | Reason::CatalogBehind
            | Reason::ShuttingDown
    )
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::TableId;
    use uuid::Uuid;

    use super::*;

    /// Time before all others, in milliseconds since the Unix epoch.
    const BEGIN_MS: u64 = 1_800_000_000_000;

    fn export() -> Export {
        Export {
            id: Uuid::from_u128(5),
            name: "x".to_owned(),
            table: TableId(1),
            target: "{}".to_owned(),
            interval_ms: 10_000,
            as_of: Epoch::at_ms(BEGIN_MS + 1_000),
            created_ms: BEGIN_MS + 1_000,
            steps: 0,
            frontier: None,
            advanced_ms: 0,
            step_as_of: None,
            files: 0,
            rows: 0,
            bytes: 0,
        }
    }

    #[test]
    fn changes_are_due_after_the_interval() {
        let new = export();
        let at = |ms| Epoch::at_ms(BEGIN_MS + ms);
        let contents = StepEpochs { after: None, as_of: new.as_of };
        assert_eq!(due_step(&new, at(1_000), BEGIN_MS + 1_000), Some(contents));
        let exported = Export { steps: 1, frontier: Some(at(1_000)), ..new };
        assert_eq!(due_step(&exported, at(10_000), BEGIN_MS + 10_999), None);
        let changes = due_step(&exported, at(11_000), BEGIN_MS + 11_000).unwrap();
        assert_eq!(changes.after, Some(at(1_000)));
        assert_eq!(changes.as_of, at(11_000).previous());
        // Barriers have stopped.
        assert_eq!(due_step(&exported, at(1_000), BEGIN_MS + 90_000), None);
        let begun = Export { step_as_of: Some(at(9_000)), ..exported };
        let expected = StepEpochs { after: begun.frontier, as_of: at(9_000) };
        assert_eq!(due_step(&begun, at(12_000), BEGIN_MS + 9_500), Some(expected));
    }

    #[test]
    fn written_regions_of_former_routes_do_not_count() {
        let routes = |ids: &[u64]| ids.iter().map(|id| (RegionId(*id), GroupId(1))).collect();
        let file = |path: &str| v1::ExportFile { path: path.to_owned(), ..Default::default() };
        let mut written = WrittenRegions::default();
        written.add(RegionId(1), vec![file("a")]);
        written.add(RegionId(2), Vec::new());
        let before: BTreeMap<_, _> = routes(&[1, 2]);
        assert!(written.missing(&before).is_empty());
        let after: BTreeMap<_, _> = routes(&[2, 3, 4]);
        assert_eq!(written.missing(&after), [3, 4].map(|id| (RegionId(id), GroupId(1))));
        written.add(RegionId(3), vec![file("b")]);
        written.add(RegionId(4), vec![file("c")]);
        assert_eq!(written.files_of(&after), [file("b"), file("c")]);
    }
}
