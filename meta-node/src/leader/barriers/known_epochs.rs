//! Epochs of the groups as the leader knows them (pure).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidewater_catalog::Timestamp;
use tidewater_common::ids::{Epoch, GroupId, NodeId};
use tidewater_proto::v1::{BarrierTarget, GroupEpoch, Reason};

/// Bits of the counter of an epoch, within its millisecond.
const COUNTER_BITS: u32 = 16;
/// Age of a group's epoch from which on the group counts as late.
const LATE_MS: u64 = 10_000;

/// Returns the epoch of a timestamp; `None` if the millisecond has no epoch for it: it has fewer epochs than timestamps.
pub(super) fn epoch_at(timestamp: Timestamp) -> Option<Epoch> {
    let begin = Timestamp::at_ms(timestamp.ms());
    let counter = timestamp.number() - begin.number();
    (counter < 1 << COUNTER_BITS).then(|| Epoch(Epoch::at_ms(timestamp.ms()).get() + counter))
}

/// Epochs of a group.
#[derive(Debug, Clone, Copy)]
struct KnownGroup {
    /// Last reported epoch; 0: none was reported.
    reached: Epoch,
    /// Epoch of the first barrier that was sent to the group.
    first: Epoch,
}

/// Epoch of each group, as it was last reported.
#[derive(Debug, Default)]
pub(in crate::leader) struct KnownEpochs {
    groups: BTreeMap<GroupId, KnownGroup>,
    /// Epoch of the last barrier that was sent.
    last: Epoch,
}

impl KnownEpochs {
    /// Returns the groups that each leader is to bring to an epoch, with the epochs before it. Forgets other groups.
    /// A group that is not known is expected at epoch 0, and its leader reports the right one.
    pub(super) fn targets(
        &mut self,
        led: &[(GroupId, NodeId)],
        epoch: Epoch,
    ) -> BTreeMap<NodeId, Vec<BarrierTarget>> {
        self.last = epoch;
        let known = std::mem::take(&mut self.groups);
        let new = KnownGroup { reached: Epoch(0), first: epoch };
        let mut targets: BTreeMap<NodeId, Vec<BarrierTarget>> = BTreeMap::new();
        for (group, leader) in led {
            let of_group = known.get(group).copied().unwrap_or(new);
            self.groups.insert(*group, of_group);
            let target = BarrierTarget { group_id: group.get(), previous: of_group.reached.get() };
            targets.entry(*leader).or_default().push(target);
        }
        targets
    }

    /// Records reports. Returns the groups that are at an earlier epoch than `epoch`, but not at the expected one.
    pub(super) fn record(&mut self, reports: &[GroupEpoch], epoch: Epoch) -> Vec<BarrierTarget> {
        let mut unexpected = Vec::new();
        for report in reports {
            let reached = Epoch(report.epoch);
            let Some(known) = self.groups.get_mut(&GroupId(report.group_id)) else { continue };
            // A deposed leader may report late.
            known.reached = known.reached.max(reached);
            if report.refused() == Reason::EpochIncomplete && reached < epoch {
                let (group_id, previous) = (report.group_id, reached.get());
                unexpected.push(BarrierTarget { group_id, previous });
            }
        }
        unexpected
    }

    /// Returns the groups that have not begun an epoch after this one.
    pub(in crate::leader) fn late_for(
        &self,
        groups: &BTreeSet<GroupId>,
        epoch: Epoch,
    ) -> Vec<GroupId> {
        let is_late =
            |group: &&GroupId| self.groups.get(group).is_none_or(|of| of.reached <= epoch);
        groups.iter().filter(is_late).copied().collect()
    }

    /// Returns the groups that have applied none of the last barriers, with the time since the one that they have. The
    /// time of a group that has not reported counts from the first barrier that was sent to it.
    pub(super) fn lagging(&self, led: &[(GroupId, NodeId)]) -> BTreeMap<GroupId, Duration> {
        let ms = |epoch: Epoch| epoch.ms().unwrap_or_default();
        let age = |(group, _): &(GroupId, NodeId)| {
            // A group that no barrier was sent to yet is new.
            let known = self.groups.get(group)?;
            let reached = known.reached.max(known.first);
            Some((*group, ms(self.last).saturating_sub(ms(reached))))
        };
        let ages = led.iter().filter_map(age);
        let late = ages.filter(|(_, age_ms)| *age_ms >= LATE_MS);
        late.map(|(group, age_ms)| (group, Duration::from_millis(age_ms))).collect()
    }

    /// Returns the number of groups that have yet to apply the last barrier.
    pub(super) fn late(&self, led: &[(GroupId, NodeId)]) -> usize {
        let is_late =
            |group: &GroupId| self.groups.get(group).is_none_or(|of| of.reached < self.last);
        led.iter().filter(|(group, _)| is_late(group)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LED: [(GroupId, NodeId); 3] =
        [(GroupId(1), NodeId(101)), (GroupId(2), NodeId(102)), (GroupId(3), NodeId(101))];

    fn report(group_id: u64, epoch: u64, refused: Reason) -> GroupEpoch {
        GroupEpoch { group_id, epoch, refused: refused.into() }
    }

    fn previous(targets: &BTreeMap<NodeId, Vec<BarrierTarget>>) -> Vec<(u64, u64, u64)> {
        let flat = targets.iter().flat_map(|(node, of)| of.iter().map(move |of| (node.get(), of)));
        flat.map(|(node, of)| (node, of.group_id, of.previous)).collect()
    }

    #[test]
    fn each_leader_gets_one_list_of_its_groups() {
        let mut known = KnownEpochs::default();
        let first = known.targets(&LED, Epoch(10));
        assert_eq!(previous(&first), [(101, 1, 0), (101, 3, 0), (102, 2, 0)]);
        let reports = [report(1, 10, Reason::Unspecified), report(2, 10, Reason::Unspecified)];
        assert_eq!(known.record(&reports, Epoch(10)), []);
        assert_eq!(known.late(&LED), 1);
        let second = known.targets(&LED, Epoch(20));
        assert_eq!(previous(&second), [(101, 1, 10), (101, 3, 0), (102, 2, 10)]);
        assert_eq!(known.late(&LED), 3);
    }

    #[test]
    fn groups_at_unexpected_epochs_get_the_barrier_again() {
        let mut known = KnownEpochs::default();
        known.targets(&LED, Epoch(30));
        let reports = [
            // Of an earlier term of the meta leader.
            report(1, 25, Reason::EpochIncomplete),
            // Does not answer in time: its proposal may still be applied.
            report(2, 25, Reason::DeadlineExceeded),
            report(3, 30, Reason::Unspecified),
            report(9, 7, Reason::EpochIncomplete),
        ];
        let again = known.record(&reports, Epoch(30));
        assert_eq!(again, [BarrierTarget { group_id: 1, previous: 25 }]);
        // A late report of a deposed leader.
        known.record(&[report(1, 20, Reason::Unspecified)], Epoch(30));
        let next = known.targets(&LED, Epoch(40));
        assert_eq!(previous(&next), [(101, 1, 25), (101, 3, 30), (102, 2, 25)]);
        // Groups that are retired are forgotten.
        known.targets(&LED[..1], Epoch(50));
        assert_eq!(known.groups.len(), 1);
    }

    #[test]
    fn lagging_groups_have_the_age_of_their_epochs() {
        let at = |seconds: u64| Epoch::at_ms(1_800_000_000_000 + seconds * 1_000);
        let mut known = KnownEpochs::default();
        known.targets(&LED, at(0));
        known.record(&[report(1, at(0).get(), Reason::Unspecified)], at(0));
        known.targets(&LED, at(9));
        assert_eq!(known.lagging(&LED), BTreeMap::new());
        known.record(&[report(1, at(9).get(), Reason::Unspecified)], at(9));
        // An epoch of an earlier term of the meta leader.
        known.record(&[report(2, Epoch::at_ms(7).get(), Reason::DeadlineExceeded)], at(9));
        known.targets(&LED, at(12));
        let late = [(GroupId(2), Duration::from_secs(12)), (GroupId(3), Duration::from_secs(12))];
        assert_eq!(known.lagging(&LED), BTreeMap::from(late));
        assert_eq!(known.lagging(&LED[..2]), BTreeMap::from([late[0]]));
        let new = (GroupId(4), NodeId(101));
        assert_eq!(known.lagging(&[new]), BTreeMap::new());
    }

    #[test]
    fn new_group_lags_from_its_first_barrier() {
        let at = |seconds: u64| Epoch::at_ms(1_800_000_000_000 + seconds * 1_000);
        let mut known = KnownEpochs::default();
        let answer = |known: &mut KnownEpochs, seconds: u64| {
            let reports = [report(1, at(seconds).get(), Reason::Unspecified)];
            assert_eq!(known.record(&reports, at(seconds)), []);
        };
        known.targets(&LED[..1], at(0));
        answer(&mut known, 0);
        // The second group becomes active an hour after the begin of the leader's term, and does not answer.
        for seconds in [3_600, 3_601, 3_609] {
            known.targets(&LED[..2], at(seconds));
            answer(&mut known, seconds);
            assert_eq!(known.lagging(&LED[..2]), BTreeMap::new(), "{seconds}");
        }
        known.targets(&LED[..2], at(3_610));
        answer(&mut known, 3_610);
        let late = [(GroupId(2), Duration::from_secs(10))];
        assert_eq!(known.lagging(&LED[..2]), BTreeMap::from(late));
    }

    #[test]
    fn epochs_increase_like_their_timestamps() {
        let ms = 1_800_000_000_000;
        let begin = Timestamp::at_ms(ms);
        let at = |offset| epoch_at(Timestamp::from_number(begin.number() + offset));
        assert_eq!(at(0), Some(Epoch::at_ms(ms)));
        assert_eq!(at(65_535).map(|epoch| epoch.get()), Some(Epoch::at_ms(ms + 1).get() - 1));
        // The timestamps of one millisecond are more than its epochs.
        assert_eq!(at(65_536), None);
    }
}
