//! `truncated`: deletes all rows of a region up to this entry.

use tidewater_common::ids::{LogIndex, RegionId};
use tidewater_proto::v1;
use tidewater_region_engine::region::{Obligation, PendingObligation};

use super::{Applied, ApplyEffect, admitted};
use crate::group::admits::Operation;
use crate::group::entry::EntryOutcome;
use crate::group::state::GroupState;

pub(super) fn apply(
    state: &mut GroupState,
    index: LogIndex,
    entry: &v1::RegionTruncated,
) -> Result<Applied, EntryOutcome> {
    let id = RegionId(entry.region_id);
    let epoch = state.epoch;
    let region = admitted(state, id, entry.step.as_ref(), Operation::Decide)?;
    let cause = region.take_step(index, entry.step.as_ref())?;
    // The producers are kept: a retry of an earlier write must not restore its rows.
    let pending = PendingObligation { cause, obligation: Obligation::Truncate };
    region.obligations.push(pending.clone());
    // Reads as of earlier epochs would lack the rows that they had.
    region.since = region.since.max(epoch);
    Ok(Applied::with_effect(ApplyEffect::Decide(id, pending)))
}

#[cfg(test)]
mod tests {
    use tidewater_common::feature_level::FeatureLevel;
    use tidewater_common::ids::{Epoch, Sequence};
    use tidewater_proto::v1::Reason;
    use tidewater_proto::v1::group_entry::Entry;

    use super::*;
    use crate::group::entry::EntryOutcome;
    use crate::group::testing::{TestGroup, write, writes};

    fn barrier(previous: u64, epoch: u64, since: u64) -> Entry {
        Entry::Barrier(v1::GroupBarrier { previous, epoch, since, tables: Vec::new() })
    }

    fn truncated(number: u64) -> Entry {
        Entry::Truncated(v1::RegionTruncated {
            region_id: 7,
            step: Some(v1::ProcedureStep { number, step: 1 }),
        })
    }

    #[test]
    fn region_is_truncated_once_by_each_procedure() {
        let mut group = TestGroup::with_region();
        let first = group.apply(truncated(1));
        assert!(matches!(first.effects[..], [ApplyEffect::Decide(RegionId(7), _)]));
        assert!(group.apply(truncated(1)).effects.is_empty());
        assert!(!group.apply(truncated(2)).effects.is_empty());
        let late = group.apply(truncated(1));
        assert!(matches!(
            &late.outcomes[..],
            [EntryOutcome::Refused { reason: Reason::ProcedureSuperseded, .. }]
        ));
        assert!(late.effects.is_empty());
        assert_eq!(group.state.regions[&RegionId(7)].obligations.len(), 2);
    }

    #[test]
    fn retried_write_does_not_restore_truncated_rows() {
        let mut group = TestGroup::with_region();
        group.apply(writes(vec![write(1, 1, &[])]));
        group.apply(writes(vec![write(1, 2, &[5])]));
        group.apply(truncated(1));
        let applied = group.apply(writes(vec![write(1, 2, &[5])]));
        assert!(matches!(applied.outcomes[..], [EntryOutcome::Done { repeated: true, .. }]));
        assert_eq!(group.seen.rows.lock().len(), 1);
    }

    #[test]
    fn epochs_before_a_truncation_cannot_be_read() {
        let mut group = TestGroup::with_region();
        group.state.level = FeatureLevel::HIGHEST;
        group.apply(barrier(0, 9, 2));
        group.apply(truncated(1));
        group.apply(barrier(9, 12, 3));
        let epochs = group.state.readable_epochs(RegionId(7));
        assert_eq!(epochs, Some((Epoch(9), Epoch(12))));
    }

    #[test]
    fn recorded_truncation_is_no_longer_pending() {
        let mut group = TestGroup::with_region();
        group.apply(truncated(1));
        group.apply(truncated(2));
        let done = group.state.regions[&RegionId(7)].obligations[0].cause.sequence;
        let advanced = v1::ManifestAdvanced {
            region_id: 7,
            version: 9,
            term: 1,
            done_sequence: done.get(),
            ..Default::default()
        };
        group.apply(Entry::ManifestAdvanced(advanced));
        let left = &group.state.regions[&RegionId(7)].obligations;
        assert_eq!(left.len(), 1);
        assert!(left[0].cause.sequence > done && done > Sequence(0));
    }
}
