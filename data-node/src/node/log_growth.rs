//! Problems of the Raft logs on disk, for the operator.

use tidewater_common::problem::Problem;
use tidewater_proto::v1::ProblemKind;
use tidewater_raft_store::LogUsage;

use crate::options::GroupOptions;

/// Live bytes of a group's log that count as growth, as a multiple of the bytes between two snapshots
/// and the tail. A leader flushes for up to 20 s before a snapshot, and writes continue meanwhile.
const GROWTH_FACTOR: u64 = 8;

/// Returns the problems of the logs that `usage` describes.
pub(super) fn problems(usage: &LogUsage, options: &GroupOptions) -> Vec<Problem> {
    let mut problems = Vec::new();
    let expected = options.snapshot_bytes.saturating_add(options.log_tail_bytes);
    if let Some((group, bytes)) = usage.largest_group
        && bytes > expected.saturating_mul(GROWTH_FACTOR)
    {
        let detail = format!(
            "the log of group {group} takes {bytes} bytes and grows: its snapshots fail or lag; the \
             node's log has the reason"
        );
        problems.push(Problem::new(ProblemKind::LogGrows, detail).of_group(group));
    }
    if usage.exceeds_expectation() {
        let detail = format!(
            "Raft logs take {} bytes on disk, {} of them live: the space of purged entries is not \
             released; the node's log has the reason",
            usage.file_bytes, usage.live_bytes
        );
        problems.push(Problem::new(ProblemKind::LogNotReleased, detail));
    }
    problems
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::GroupId;

    use super::*;

    #[test]
    fn growing_logs_are_problems() {
        let options =
            GroupOptions { snapshot_bytes: 900, log_tail_bytes: 100, ..GroupOptions::default() };
        let count = |file_bytes, live_bytes, largest| {
            let largest_group = Some((GroupId(7), largest));
            let usage = LogUsage { file_bytes, live_bytes, wal_bytes: 0, largest_group };
            let problems = problems(&usage, &options);
            problems.into_iter().map(|problem| problem.detail).collect::<Vec<_>>()
        };
        assert_eq!(count(10_000, 9_000, 8_000), [""; 0]);
        let growing = count(10_000, 9_000, 8_001);
        assert!(growing.len() == 1 && growing[0].contains("group 7 takes 8001"), "{growing:?}");
        let dead = count(2 << 30, 1_000, 500);
        assert!(dead.len() == 1 && dead[0].contains("not released"), "{dead:?}");
        assert_eq!(problems(&LogUsage::default(), &options), []);
    }
}
