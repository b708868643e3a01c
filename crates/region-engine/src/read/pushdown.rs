//! Which terms of a filter may keep rows of a source from being read: a pure decision.
//!
//! In an upsert table a term on a column that is not part of the key looks at one version of a row,
//! and another version may be the one that counts: left out, a new version that does not match would
//! let an old one that does show in its place. So such a term waits until versions are merged, but
//! in a source that overlaps nothing else, holds one version of each key, and is read without a
//! bound that hides some of its versions.

use tidewater_common::ids::ColumnId;

use super::filter::{Filter, Term};

/// What a source is within a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Only the newest version of a key counts (upsert).
    pub(crate) newest_only: bool,
    /// No other run or file may hold one of its keys.
    pub(crate) alone: bool,
    /// No key occurs twice in it.
    pub(crate) unique: bool,
    /// Some of its versions may be newer than what the read may see.
    pub(crate) bounded: bool,
}

/// Which terms may be looked at before versions are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushdown {
    /// Those on key columns: all versions of a key agree on them.
    Keys,
    /// All.
    All,
}

/// See the module's head.
pub(crate) fn pushdown(place: Place) -> Pushdown {
    let settled = place.alone && place.unique && !place.bounded;
    if !place.newest_only || settled { Pushdown::All } else { Pushdown::Keys }
}

/// The terms of a filter that may be looked at.
pub(crate) fn pushed<'a>(
    filter: &'a Filter,
    pushdown: Pushdown,
    primary_key: &'a [ColumnId],
) -> impl Iterator<Item = &'a Term> {
    filter
        .terms()
        .iter()
        .filter(move |term| pushdown == Pushdown::All || primary_key.contains(&term.column))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_on_values_wait_for_the_merge() {
        // newest only, alone, unique, bounded
        let cases = [
            ((false, false, false, false), Pushdown::All),
            ((false, true, false, true), Pushdown::All),
            ((true, true, true, false), Pushdown::All),
            ((true, false, true, false), Pushdown::Keys),
            ((true, true, false, false), Pushdown::Keys),
            ((true, true, true, true), Pushdown::Keys),
            ((true, false, false, true), Pushdown::Keys),
        ];
        for ((newest_only, alone, unique, bounded), expected) in cases {
            let place = Place { newest_only, alone, unique, bounded };
            assert_eq!(pushdown(place), expected, "{place:?}");
        }
    }
}
