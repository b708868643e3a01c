//! Log level of failed placement steps, by the failures in a row of their group.

use std::collections::BTreeMap;

use tidewater_common::ids::GroupId;
use tidewater_proto::v1::Reason;

/// Failures in a row from which an unavailable node is reported as a warning. With a delay of half a
/// second between attempts, a node that has just registered has several seconds to begin to listen.
const WARN_FROM: u32 = 10;

/// Log level of a failed step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureLevel {
    /// The failure is expected to pass.
    Info,
    Warn,
}

/// Returns the log level of the failure with number `in_a_row`, from 1, of a group.
///
/// Failure detection does not report a node that sends heartbeats and cannot be reached, so the failures
/// of a step are the only trace of it.
fn level(reason: Reason, in_a_row: u32) -> FailureLevel {
    if reason == Reason::Unavailable && in_a_row < WARN_FROM {
        FailureLevel::Info
    } else {
        FailureLevel::Warn
    }
}

/// Failures since the last success, for each group whose last step failed. `None`: the creation of a
/// group.
#[derive(Debug, Default)]
pub(super) struct StepFailures {
    in_a_row: BTreeMap<Option<GroupId>, u32>,
}

impl StepFailures {
    /// Counts a failed step. Returns the number of failures in a row and the log level.
    pub(super) fn record(&mut self, group: Option<GroupId>, reason: Reason) -> (u32, FailureLevel) {
        let in_a_row = self.in_a_row.entry(group).or_default();
        *in_a_row = in_a_row.saturating_add(1);
        (*in_a_row, level(reason, *in_a_row))
    }

    /// Ends the failures of a group whose step has succeeded.
    pub(super) fn clear(&mut self, group: Option<GroupId>) {
        self.in_a_row.remove(&group);
    }

    /// Removes groups that no longer exist.
    pub(super) fn retain_groups(&mut self, exists: impl Fn(GroupId) -> bool) {
        self.in_a_row.retain(|group, _| group.is_none_or(&exists));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unavailable_nodes_are_warnings_from_the_tenth_failure() {
        for (reason, in_a_row, expected) in [
            (Reason::Unavailable, 1, FailureLevel::Info),
            (Reason::Unavailable, WARN_FROM - 1, FailureLevel::Info),
            (Reason::Unavailable, WARN_FROM, FailureLevel::Warn),
            (Reason::Unavailable, u32::MAX, FailureLevel::Warn),
            (Reason::Internal, 1, FailureLevel::Warn),
            (Reason::NotLeader, 1, FailureLevel::Warn),
        ] {
            assert_eq!(level(reason, in_a_row), expected, "{reason:?} {in_a_row}");
        }
    }

    #[test]
    fn failures_are_counted_until_a_success() {
        let mut failures = StepFailures::default();
        let one = Some(GroupId(1));
        let two = Some(GroupId(2));
        let record =
            |failures: &mut StepFailures, group| failures.record(group, Reason::Unavailable).0;
        assert_eq!(record(&mut failures, one), 1);
        assert_eq!(record(&mut failures, None), 1);
        assert_eq!((record(&mut failures, one), record(&mut failures, two)), (2, 1));
        failures.clear(one);
        assert_eq!((record(&mut failures, one), record(&mut failures, two)), (1, 2));
        failures.retain_groups(|group| group == GroupId(1));
        assert_eq!((record(&mut failures, one), record(&mut failures, two)), (2, 1));
        assert_eq!(record(&mut failures, None), 2);
    }
}
