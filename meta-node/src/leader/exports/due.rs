//! Decisions of the export manager (pure).

use std::collections::{BTreeMap, BTreeSet};

use tidewater_common::ids::{Epoch, GroupId, RegionId};
use tidewater_common::reason::RetryAction;
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

/// Returns the step of an export that is due. `last`: first epoch of the table that is not complete, or that of the last barrier.
/// `time_ms`: replicated time.
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

/// Checks the epoch of the object of a step.
///
/// # Errors
/// [`Reason::Corrupt`]: the object was not written for this step.
pub(super) fn check_shown(step: u64, begun: Epoch, shown: Epoch) -> Result<(), Refusal> {
    if shown == begun {
        return Ok(());
    }
    let text = format!(
        "step {step} is exported as of epoch {shown}, but has begun as of epoch {begun}: drop the export, and create another one \
         below an empty prefix"
    );
    Err(Refusal::new(Reason::Corrupt, text))
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

/// Returns whether an error of a data node is transient: the node is busy, the group has another leader or serves other regions, or
/// it is about to complete the epoch. Another attempt, possibly at another node, usually succeeds within a moment.
pub(crate) fn is_transient(problem: &Refusal) -> bool {
    let is_repeated = matches!(
        problem.retry_action(),
        RetryAction::Repeat | RetryAction::FindLeader | RetryAction::RefreshCatalog
    );
    // A node without a record was removed: its groups get other leaders.
    is_repeated || matches!(problem.reason, Reason::EpochIncomplete | Reason::NodeNotFound)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{BEGIN_MS, export};
    use super::*;

    #[test]
    fn changes_are_due_after_the_interval() {
        let new = export(5);
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

    #[test]
    fn object_of_another_epoch_fails_the_step() {
        assert_eq!(check_shown(2, Epoch(7), Epoch(7)), Ok(()));
        let failed = check_shown(2, Epoch(7), Epoch(9)).unwrap_err();
        assert_eq!(failed.reason, Reason::Corrupt);
        let text = "step 2 is exported as of epoch 9, but has begun as of epoch 7: ";
        assert!(failed.message.starts_with(text), "{failed}");
    }

    #[test]
    fn transient_errors_are_those_of_nodes() {
        let reasons = (1..200).filter_map(|number| Reason::try_from(number).ok());
        let transient = reasons.filter(|reason| is_transient(&Refusal::new(*reason, "")));
        let expected = [
            Reason::SchemaVersionBehind,
            Reason::SchemaVersionStale,
            Reason::KeyOutsideRegion,
            Reason::GroupNotHosted,
            Reason::RegionNotFound,
            Reason::NodeNotFound,
            Reason::GroupNotFound,
            Reason::NotLeader,
            Reason::LeadershipLost,
            Reason::WrongNode,
            Reason::NodeRemoved,
            Reason::NotBootstrapped,
            Reason::RouteWriteFenced,
            Reason::RouteMoved,
            Reason::RegionLoading,
            Reason::RegionFenced,
            Reason::CatalogBehind,
            Reason::ClockDiffers,
            Reason::Overloaded,
            Reason::DiskFull,
            Reason::DeadlineExceeded,
            Reason::ShuttingDown,
            Reason::Unavailable,
            Reason::EpochIncomplete,
            Reason::EpochRequired,
        ];
        assert_eq!(transient.collect::<Vec<_>>(), expected);
        // The store asks for a repetition.
        let busy = Refusal::new(Reason::ObjectStoreUnavailable, "");
        assert!(!is_transient(&busy));
        assert!(is_transient(&busy.retry_after(std::time::Duration::from_secs(1))));
    }
}
