//! Pace of a file read: how many rows it reads and decodes ahead (pure).
//!
//! An open file holds the stored bytes of up to two stretches and the rows of some units. A scan that
//! merges hundreds of files gets less memory for each, and reads them at a slower pace: first page by
//! page, then without reading ahead, then in parts of a page. Each part decodes its page again.

use super::format::PAGE_ROWS;

/// Rows of the least pace that a scan requests memory for: a sixteenth of a page.
pub(crate) const LEAST_ROWS: usize = if PAGE_ROWS < 16 { 1 } else { PAGE_ROWS / 16 };

/// Maximum parts of a page of which the stored bytes are kept.
const PARTS_OF_KEPT_PAGE: usize = 8;

/// Amounts of a file that are in progress at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Maximum rows of a stretch; a multiple of `unit_rows`.
    pub(crate) stretch_rows: usize,
    /// Maximum rows of a unit; a multiple of [`PAGE_ROWS`] unless rows are wide or memory is scarce.
    pub(crate) unit_rows: usize,
    /// Number of units that are decoded ahead; 0: a unit is read and decoded when the one before it
    /// has been taken.
    pub(crate) ahead: usize,
}

/// Average bytes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowBytes {
    /// In memory; at least 1.
    pub(crate) decoded: u64,
    /// In the file.
    pub(crate) stored: u64,
}

impl Pace {
    /// Pace of a file that is read alone and may use all cores.
    pub(crate) const ALONE: Self =
        Self { stretch_rows: 16 * PAGE_ROWS, unit_rows: 4 * PAGE_ROWS, ahead: 2 };
    /// Pace of a file that is merged with others: many may overlap, so each holds little.
    pub(crate) const MERGED: Self = Self {
        stretch_rows: 4 * PAGE_ROWS,
        // With the small pages of tests, every few rows would start a thread.
        unit_rows: if cfg!(test) { 4 * PAGE_ROWS } else { PAGE_ROWS },
        ahead: 1,
    };

    /// Returns this pace with units of at most `unit_rows` rows.
    pub(crate) fn within(self, unit_rows: usize) -> Self {
        let units = (self.stretch_rows / self.unit_rows).max(1);
        // A page that is split between two units is decoded twice.
        let whole_pages = unit_rows - unit_rows % PAGE_ROWS;
        let unit_rows = if whole_pages > 0 { whole_pages } else { unit_rows.max(1) };
        let unit_rows = self.unit_rows.min(unit_rows);
        Self { stretch_rows: self.stretch_rows.min(units * unit_rows), unit_rows, ..self }
    }

    /// Returns the pace that holds the least: one row at a time.
    pub(crate) fn least() -> Self {
        Self { stretch_rows: 1, unit_rows: 1, ahead: 0 }
    }

    /// Returns a pace without reading ahead, of units of some rows.
    pub(crate) fn one_by_one(rows: usize) -> Self {
        Self { stretch_rows: rows.max(1), unit_rows: rows.max(1), ahead: 0 }
    }

    /// Returns the bytes that a file with such rows holds: stretches as stored, units that are decoded
    /// ahead, the unit whose rows are being taken, and those of its rows that a merge holds. Without
    /// reading ahead, a unit is decoded when the one before it has been taken.
    pub(crate) fn bytes(self, row: RowBytes) -> u64 {
        let (stretches, units) = if self.ahead == 0 { (1, 1) } else { (2, self.ahead as u64 + 2) };
        let stored = row.stored.saturating_mul(stretches * self.stretch_rows as u64);
        let decoded = row.decoded.saturating_mul(units * self.unit_rows as u64);
        stored.saturating_add(decoded)
    }

    /// Returns the fastest pace, at most this one, that holds at most `most` bytes of such rows, or
    /// else [`Pace::least`].
    pub(crate) fn within_bytes(self, row: RowBytes, most: u64) -> Self {
        let mut pace = self;
        while pace.bytes(row) > most {
            let Some(slower) = pace.slower() else { return pace };
            pace = slower;
        }
        pace
    }

    /// Returns the next slower pace: first smaller units and stretches down to a page, then less read
    /// ahead, then parts of a page.
    fn slower(self) -> Option<Self> {
        let Self { stretch_rows, unit_rows, ahead } = self;
        if unit_rows > PAGE_ROWS {
            let unit_rows = (unit_rows / 2).max(PAGE_ROWS);
            Some(Self { stretch_rows: (stretch_rows / 2).max(unit_rows), unit_rows, ahead })
        } else if ahead > 0 && stretch_rows > unit_rows {
            Some(Self { stretch_rows: (stretch_rows / 2).max(unit_rows), ..self })
        } else if ahead > 0 {
            Some(Self { ahead: ahead - 1, ..self })
        } else if unit_rows > 1 {
            let unit_rows = unit_rows / 2;
            // The stored bytes of a page are kept while its first few parts are taken.
            let keeps_page =
                stretch_rows >= PAGE_ROWS && unit_rows * PARTS_OF_KEPT_PAGE >= PAGE_ROWS;
            let stretch_rows = if keeps_page { PAGE_ROWS } else { unit_rows };
            Some(Self { stretch_rows, unit_rows, ahead })
        } else if stretch_rows > 1 {
            Some(Self { stretch_rows: 1, ..self })
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_rows_are_decoded_in_small_units() {
        for pace in [Pace::ALONE, Pace::MERGED] {
            assert_eq!(pace.within(usize::MAX), pace);
            assert_eq!(pace.within(pace.unit_rows), pace);
            let units = pace.stretch_rows / pace.unit_rows;
            for (most, rows) in
                [(0, 1), (1, 1), (PAGE_ROWS - 1, PAGE_ROWS - 1), (PAGE_ROWS + 1, PAGE_ROWS)]
            {
                let within = pace.within(most);
                assert_eq!((within.unit_rows, within.stretch_rows), (rows, units * rows));
            }
        }
    }

    #[test]
    fn pace_holds_stretches_and_units() {
        let row = RowBytes { decoded: 100, stored: 30 };
        let cases = [
            (Pace { stretch_rows: 40, unit_rows: 10, ahead: 2 }, 2 * 40 * 30 + 4 * 10 * 100),
            (Pace { stretch_rows: 40, unit_rows: 10, ahead: 1 }, 2 * 40 * 30 + 3 * 10 * 100),
            (Pace { stretch_rows: 10, unit_rows: 10, ahead: 0 }, 10 * 30 + 10 * 100),
            (Pace::least(), 30 + 100),
        ];
        for (pace, bytes) in cases {
            assert_eq!(pace.bytes(row), bytes, "{pace:?}");
        }
        let huge = RowBytes { decoded: u64::MAX, stored: u64::MAX };
        assert_eq!(Pace::ALONE.bytes(huge), u64::MAX);
    }

    #[test]
    fn pace_slows_down_until_it_fits() {
        let row = RowBytes { decoded: 110, stored: 40 };
        for fastest in [Pace::ALONE, Pace::MERGED, Pace::MERGED.within(3), Pace::ALONE.within(1)] {
            assert_eq!(fastest.within_bytes(row, u64::MAX), fastest);
            assert_eq!(fastest.within_bytes(row, fastest.bytes(row)), fastest);
            assert_eq!(fastest.within_bytes(row, 0), Pace::least());
            let mut most = fastest.bytes(row);
            let mut before = fastest;
            while most > Pace::least().bytes(row) {
                most -= 1 + most / 20;
                let pace = fastest.within_bytes(row, most.max(Pace::least().bytes(row)));
                assert!(pace.bytes(row) <= most.max(Pace::least().bytes(row)), "{pace:?}");
                assert!(pace.unit_rows >= 1 && pace.stretch_rows >= pace.unit_rows, "{pace:?}");
                assert!(pace.unit_rows <= before.unit_rows && pace.ahead <= before.ahead);
                before = pace;
            }
        }
    }
}
