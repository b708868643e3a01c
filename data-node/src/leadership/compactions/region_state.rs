//! State of a region between its compaction jobs.

use tokio::time::Instant;

/// State of a region's background compactions in this term.
#[derive(Debug, Default)]
pub(super) struct RegionCompactionState {
    pub(super) running: bool,
    /// Consecutive failures.
    pub(super) failures: u32,
    pub(super) not_before: Option<Instant>,
    /// Start of the period in which files have been due.
    pub(super) due_since: Option<Instant>,
    /// The log has the message that no compactor is available.
    pub(super) logged_unavailable: bool,
    /// Move epoch of the region when a later owner had taken it, or it was dropped: no more jobs in this term, unless it
    /// has another epoch since.
    pub(super) lost_at: Option<u64>,
}

impl RegionCompactionState {
    /// Updates the start of the due period. `files`: the files that the picker finds due now.
    pub(super) fn update_due_since(&mut self, files: usize, now: Instant) {
        match files {
            0 => self.due_since = None,
            _ => _ = self.due_since.get_or_insert(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn due_period_lasts_until_no_files_are_due() {
        let mut state = RegionCompactionState::default();
        let first = Instant::now();
        let later = |seconds| first + Duration::from_secs(seconds);
        for (files, at, since) in
            [(0, 0, None), (4, 1, Some(1)), (8, 2, Some(1)), (0, 3, None), (4, 4, Some(4))]
        {
            state.update_due_since(files, later(at));
            assert_eq!(state.due_since, since.map(later));
        }
    }
}
