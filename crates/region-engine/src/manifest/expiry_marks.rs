//! Expiry that a commit has made permanent.
//!
//! A commit that drops expired rows also drops what they hid: deletes and newer versions of a key. If a
//! longer time to live brought back other rows of the same age, deleted rows and old versions would show
//! again. A mark therefore records what expired: rows before its time, up to its sequence. Rows that are
//! written later, such as history that is loaded after the time to live was raised, are not concerned.

use tidewater_common::ids::Sequence;

/// Maximum number of marks. A further one needs a commit under a longer time to live than all before.
const MAX_MARKS: usize = 8;

/// Rows that have expired for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpiryMark {
    /// Rows with an earlier time, in milliseconds since the Unix epoch, ...
    pub before_ms: i64,
    /// ... and a sequence at or below this.
    pub through: Sequence,
}

impl ExpiryMark {
    /// Returns true if this mark hides every row that the other one hides.
    fn covers(&self, other: &Self) -> bool {
        self.before_ms >= other.before_ms && self.through >= other.through
    }
}

/// The marks of a region, latest time first. None covers another one, so sequences ascend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExpiryMarks(Vec<ExpiryMark>);

impl ExpiryMarks {
    /// Adds a mark. Beyond the maximum number, the two with the earliest times are combined into one
    /// that covers both.
    pub fn add(&mut self, mark: ExpiryMark) {
        if self.0.iter().any(|known| known.covers(&mark)) {
            return;
        }
        self.0.retain(|known| !mark.covers(known));
        self.0.push(mark);
        self.0.sort_by_key(|mark| mark.through);
        if self.0.len() > MAX_MARKS
            && let (Some(last), Some(before)) = (self.0.pop(), self.0.pop())
        {
            self.0.push(ExpiryMark { before_ms: before.before_ms, through: last.through });
        }
    }

    /// Returns the marks, latest time first.
    pub fn iter(&self) -> impl Iterator<Item = &ExpiryMark> {
        self.0.iter()
    }

    /// Greatest time before which rows have expired, milliseconds since the Unix epoch; `None` if no
    /// commit has expired any.
    pub fn expired_before_ms(&self) -> Option<i64> {
        self.0.first().map(|mark| mark.before_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times and sequences of marks.
    type Pairs = &'static [(i64, u64)];

    fn marks(pairs: &[(i64, u64)]) -> Vec<(i64, u64)> {
        let mut marks = ExpiryMarks::default();
        for (before_ms, through) in pairs {
            marks.add(ExpiryMark { before_ms: *before_ms, through: Sequence(*through) });
        }
        marks.iter().map(|mark| (mark.before_ms, mark.through.get())).collect()
    }

    #[test]
    fn mark_that_another_covers_is_not_kept() {
        let cases: &[(Pairs, Pairs)] = &[
            (&[(10, 5), (20, 9)], &[(20, 9)]),
            (&[(20, 9), (10, 5)], &[(20, 9)]),
            (&[(20, 9), (20, 9)], &[(20, 9)]),
            // The time to live was raised between the two commits.
            (&[(20, 5), (10, 9)], &[(20, 5), (10, 9)]),
            (&[(20, 5), (10, 9), (15, 12)], &[(20, 5), (15, 12)]),
            (&[(20, 5), (10, 9), (30, 12)], &[(30, 12)]),
        ];
        for (added, expected) in cases {
            assert_eq!(marks(added), *expected, "{added:?}");
        }
    }

    #[test]
    fn number_of_marks_is_bounded() {
        let added: Vec<(i64, u64)> = (0..20).map(|at| (1_000 - at, at as u64)).collect();
        let kept = marks(&added);
        assert_eq!(kept.len(), MAX_MARKS);
        assert_eq!((kept[0], kept[MAX_MARKS - 1]), ((1_000, 0), (993, 19)));
    }
}
