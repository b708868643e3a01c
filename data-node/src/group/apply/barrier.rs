//! `barrier`: a new epoch begins in the group. Rows that follow are of it; no row of an earlier one follows, so that reads
//! as of earlier epochs return the same rows from now on.

use tidewater_common::ids::Epoch;
use tidewater_proto::v1::{self, Reason};

use super::{Applied, ApplyEffect};
use crate::group::entry::EntryOutcome;
use crate::group::state::GroupState;
use crate::group::table_sinces::TableSinces;

pub(super) fn apply(
    state: &mut GroupState,
    entry: &v1::GroupBarrier,
) -> Result<Applied, EntryOutcome> {
    let epoch = Epoch(entry.epoch);
    if epoch <= state.epoch {
        return Ok(Applied::repeated());
    }
    if Epoch(entry.previous) != state.epoch {
        let text = format!(
            "the barrier follows epoch {}, and the group is at epoch {}",
            entry.previous, state.epoch
        );
        return Err(EntryOutcome::refused(Reason::EpochIncomplete, text));
    }
    state.epoch = epoch;
    // An epoch is not complete before the next one has begun.
    state.since = state.since.max(Epoch(entry.since).min(epoch));
    let named = TableSinces::new(&entry.tables, epoch);
    for region in state.regions.values_mut() {
        named.advance(region);
    }
    Ok(Applied::with_effect(ApplyEffect::AdvanceSince))
}

#[cfg(test)]
mod tests {
    use tidewater_common::feature_level::FeatureLevel;
    use tidewater_proto::v1::group_entry::Entry;

    use super::*;
    use crate::group::testing::{TestGroup, write, writes};

    fn group() -> TestGroup {
        let mut group = TestGroup::with_region();
        group.state.level = FeatureLevel::HIGHEST;
        group.apply(writes(vec![write(1, 1, &[])]));
        group
    }

    fn barrier(previous: u64, epoch: u64, since: u64) -> Entry {
        Entry::Barrier(v1::GroupBarrier { previous, epoch, since, tables: Vec::new() })
    }

    fn reason(applied: &Applied) -> Option<Reason> {
        match applied.outcomes[..] {
            [EntryOutcome::Refused { reason, .. }] => Some(reason),
            _ => None,
        }
    }

    #[test]
    fn rows_belong_to_the_epoch_of_the_last_barrier() {
        let mut group = group();
        for (serial, previous, epoch) in [(2, 0, 10), (3, 10, 25)] {
            group.apply(writes(vec![write(1, serial, &[5])]));
            let applied = group.apply(barrier(previous, epoch, epoch - 5));
            assert_eq!(applied.effects, [ApplyEffect::AdvanceSince]);
        }
        group.apply(writes(vec![write(1, 4, &[5])]));
        assert_eq!(group.seen.epochs(), [0, 10, 25].map(Epoch));
        assert_eq!((group.state.epoch, group.state.since), (Epoch(25), Epoch(20)));
    }

    #[test]
    fn barrier_applies_only_after_its_predecessor() {
        let mut group = group();
        group.apply(barrier(0, 10, 0));
        let before = group.state.clone();
        for previous in [0, 9, 11, 25] {
            let refused = group.apply(barrier(previous, 25, 20));
            assert_eq!(reason(&refused), Some(Reason::EpochIncomplete));
        }
        // Late ones, whatever they name.
        for (previous, epoch) in [(0, 10), (0, 5), (10, 9)] {
            let repeated = group.apply(barrier(previous, epoch, epoch));
            assert!(matches!(repeated.outcomes[..], [EntryOutcome::Done { repeated: true, .. }]));
        }
        assert_eq!(group.state, before);
    }

    #[test]
    fn oldest_readable_epoch_never_goes_back() {
        let mut group = group();
        group.apply(barrier(0, 10, 99));
        assert_eq!(group.state.since, Epoch(10));
        group.apply(barrier(10, 20, 3));
        assert_eq!((group.state.epoch, group.state.since), (Epoch(20), Epoch(10)));
    }

    #[test]
    fn barrier_below_its_level_is_refused() {
        let mut group = group();
        group.state.level = FeatureLevel::new(4);
        assert_eq!(reason(&group.apply(barrier(0, 10, 0))), Some(Reason::Unsupported));
        assert_eq!(group.state.epoch, Epoch(0));
    }
}
