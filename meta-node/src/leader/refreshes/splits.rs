//! Splits of a load: which ones a call reads, and which failures are retried (pure).

use std::time::Duration;

use tidewater_common::backoff::Backoff;
use tidewater_common::reason::RetryAction;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{Reason, SourceSplit};

/// Attempts on a split, and on the listing of a source.
pub(super) const ATTEMPTS: u32 = 8;
/// Wait before a retry.
pub(super) const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(5) };

/// Time for which loaded files are staged again after errors that rarely pass, such as that of a lost region.
const STAGED_AGAIN: Duration = Duration::from_secs(5 * 60);

/// Bytes that a call reads: small splits are read together, so that their rows become few files.
const MAX_GROUP_BYTES: u64 = 64 << 20;
/// Bytes that a call reads even if other calls could read at the same time.
const MIN_GROUP_BYTES: u64 = 4 << 20;
/// Maximum number of splits of a call.
const MAX_GROUP: usize = 64;

/// Divides splits in groups for calls, `at_once` of them at a time. A split of unknown size is a group of its own.
pub(super) fn grouped(splits: Vec<SourceSplit>, at_once: usize) -> Vec<Vec<SourceSplit>> {
    let total = splits.iter().fold(0_u64, |total, split| total.saturating_add(split.bytes));
    let share = total / u64::try_from(at_once.max(1)).unwrap_or(1);
    let limit = share.clamp(MIN_GROUP_BYTES, MAX_GROUP_BYTES);
    let mut groups: Vec<Vec<SourceSplit>> = Vec::new();
    let mut bytes = u64::MAX;
    for split in splits {
        let size = if split.bytes == 0 { u64::MAX } else { split.bytes };
        bytes = bytes.saturating_add(size);
        match groups.last_mut() {
            Some(last) if bytes <= limit && last.len() < MAX_GROUP => last.push(split),
            _ => {
                bytes = size;
                groups.push(vec![split]);
            }
        }
    }
    groups
}

/// Returns whether another attempt, possibly on another node, may succeed.
pub(super) fn is_retried(problem: &Refusal) -> bool {
    match problem.reason {
        // The source is wrong, or the refresh has ended.
        Reason::SourceMismatch
        | Reason::SourceChanged
        | Reason::InvalidArgument
        | Reason::NotRefreshable
        | Reason::TableNotFound
        | Reason::ProcedureSuperseded
        | Reason::Unsupported
        | Reason::KeyOutsideRegion
        | Reason::SchemaVersionStale
        | Reason::FileDamaged
        | Reason::Corrupt
        | Reason::LoadEnded => false,
        _ => true,
    }
}

/// Returns whether the staging of loaded files ends with this error, after failures for some time. Their load may have taken
/// hours: errors that pass are retried until the deadline of the refresh.
pub(super) fn ends_staging(problem: &Refusal, failing_for: Duration) -> bool {
    if !is_retried(problem) {
        return true;
    }
    let may_pass = problem.reason == Reason::ObjectStoreUnavailable
        || matches!(problem.retry_action(), RetryAction::Repeat | RetryAction::FindLeader);
    !may_pass && failing_for >= STAGED_AGAIN
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(sizes: &[u64], at_once: usize) -> Vec<Vec<u64>> {
        let split = |bytes: &u64| SourceSplit { bytes: *bytes, ..SourceSplit::default() };
        let groups = grouped(sizes.iter().map(split).collect(), at_once);
        groups.iter().map(|group| group.iter().map(|split| split.bytes).collect()).collect()
    }

    #[test]
    fn small_splits_are_read_together() {
        const MIB: u64 = 1 << 20;
        assert_eq!(sizes(&[], 6), [[0; 0]; 0]);
        assert_eq!(sizes(&[MIB, MIB, MIB], 6), [[MIB; 3]]);
        // The calls that can be made at the same time share the work.
        assert_eq!(sizes(&[20 * MIB; 4], 4), [[20 * MIB]; 4]);
        assert_eq!(sizes(&[20 * MIB; 4], 2), [[20 * MIB; 2]; 2]);
        assert_eq!(sizes(&[500 * MIB, MIB, MIB], 1), [vec![500 * MIB], vec![MIB, MIB]]);
        assert_eq!(sizes(&[0, 0, 1, 1], 1), [vec![0], vec![0], vec![1, 1]]);
        assert_eq!(sizes(&[1; 10_000], 6).len(), 10_000_usize.div_ceil(MAX_GROUP));
        assert_eq!(sizes(&[u64::MAX / 2, u64::MAX / 2, 1], 1).len(), 3);
    }

    #[test]
    fn failures_of_nodes_are_retried_and_wrong_sources_not() {
        for (reason, expected) in [
            (Reason::Unavailable, true),
            (Reason::Overloaded, true),
            (Reason::SourceUnreadable, true),
            (Reason::CatalogBehind, true),
            (Reason::SourceMismatch, false),
            (Reason::SourceChanged, false),
            (Reason::ProcedureSuperseded, false),
        ] {
            assert_eq!(is_retried(&Refusal::new(reason, "")), expected, "{reason:?}");
        }
    }

    #[test]
    fn staging_ends_by_the_reason_of_its_error() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let day = Duration::from_secs(24 * 3_600);
        for (reason, limit) in [
            (Reason::NotLeader, None),
            (Reason::Overloaded, None),
            (Reason::DeadlineExceeded, None),
            (Reason::ObjectStoreUnavailable, None),
            (Reason::RegionNotFound, Some(minutes(5))),
            (Reason::Internal, Some(minutes(5))),
            (Reason::NodeNotFound, Some(minutes(5))),
            (Reason::KeyOutsideRegion, Some(Duration::ZERO)),
            (Reason::SchemaVersionStale, Some(Duration::ZERO)),
            (Reason::FileDamaged, Some(Duration::ZERO)),
        ] {
            let problem = Refusal::new(reason, "");
            let ends = |time| ends_staging(&problem, time);
            match limit {
                None => assert!(!ends(day), "{reason:?}"),
                Some(limit) => assert!(ends(limit), "{reason:?}"),
            }
            assert_eq!(ends(minutes(4)), limit == Some(Duration::ZERO), "{reason:?}");
        }
    }
}
