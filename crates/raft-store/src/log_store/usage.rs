use tidewater_common::ids::GroupId;

/// Dead bytes that are always acceptable: new files, and files that are deleted whole shortly.
const ACCEPTED_DEAD_BYTES: u64 = 512 * 1024 * 1024;

/// Bytes of the logs on disk, at the last pass of the reclaimer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogUsage {
    /// Bytes of all files with entries.
    pub file_bytes: u64,
    /// Bytes of the entries that are not purged; approximate.
    pub live_bytes: u64,
    /// Bytes of the database's write-ahead log.
    pub wal_bytes: u64,
    /// The group with the most live bytes, and these.
    pub largest_group: Option<(GroupId, u64)>,
}

impl LogUsage {
    /// Returns whether purged entries take more space than the reclaimer leaves: the release of
    /// space fails or is too slow.
    pub fn exceeds_expectation(&self) -> bool {
        let expected = self.live_bytes.saturating_mul(2).saturating_add(ACCEPTED_DEAD_BYTES);
        self.file_bytes > expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_expected_up_to_twice_the_live_bytes() {
        let usage =
            |file_bytes, live_bytes| LogUsage { file_bytes, live_bytes, ..LogUsage::default() };
        assert!(!usage(512 << 20, 0).exceeds_expectation());
        assert!(usage((512 << 20) + 1, 0).exceeds_expectation());
        assert!(!usage(712 << 20, 100 << 20).exceeds_expectation());
        assert!(usage(713 << 20, 100 << 20).exceeds_expectation());
        assert!(!usage(u64::MAX, u64::MAX).exceeds_expectation());
    }
}
