//! A region between its jobs.

use tokio::time::Instant;

/// What is known of a region's compactions in this term.
#[derive(Debug, Default)]
pub(super) struct Track {
    pub(super) running: bool,
    pub(super) failures: u32,
    pub(super) not_before: Option<Instant>,
    /// Since when there has been something to merge.
    pub(super) due_since: Option<Instant>,
    /// That no compactor takes its jobs has been said.
    pub(super) said: bool,
    /// A later owner has taken the region, or it is gone: nothing more in this term.
    pub(super) lost: bool,
}

impl Track {
    /// Its picker has been asked, and would merge so many files.
    pub(super) fn looked_at(&mut self, files: usize, now: Instant) {
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
    fn a_region_is_due_since_it_was_found_so_first_until_nothing_is_left() {
        let (mut track, first) = (Track::default(), Instant::now());
        let later = |seconds| first + Duration::from_secs(seconds);
        for (files, at, since) in
            [(0, 0, None), (4, 1, Some(1)), (8, 2, Some(1)), (0, 3, None), (4, 4, Some(4))]
        {
            track.looked_at(files, later(at));
            assert_eq!(track.due_since, since.map(later));
        }
    }
}
