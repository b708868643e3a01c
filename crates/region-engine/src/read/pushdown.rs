//! Decides which terms of a filter may skip rows of a source before versions are merged (pure).
//!
//! In an upsert table, a term on a non-key column sees one version of a row, but another version
//! may be the visible one. If a new version that does not match were skipped, an old one that
//! matches would be returned in its place. Such a term is therefore evaluated after the merge. The
//! exception is a source that overlaps no other, holds one version of each key, and is read without
//! a bound that hides some of its versions.

use tidewater_common::ids::ColumnId;

use super::filter::{Filter, Term};

/// Properties of a source within a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SourceProperties {
    /// True if only the newest version of a key is visible (upsert).
    pub(crate) newest_only: bool,
    /// True if no other run or file can hold one of its keys.
    pub(crate) alone: bool,
    /// True if no key occurs twice in the source.
    pub(crate) unique: bool,
    /// True if the source may hold versions that are too new for the read.
    pub(crate) bounded: bool,
}

/// Terms that may be evaluated before versions are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushdown {
    /// Terms on key columns only: all versions of a key have the same values.
    Keys,
    /// All terms.
    All,
}

/// Returns the terms that may be evaluated on this source before the merge.
pub(crate) fn pushdown(source: SourceProperties) -> Pushdown {
    let single_version = source.alone && source.unique && !source.bounded;
    if !source.newest_only || single_version { Pushdown::All } else { Pushdown::Keys }
}

/// Returns the terms of a filter that may be evaluated before the merge.
pub(crate) fn pushed_terms<'a>(
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
    fn non_key_terms_are_pushed_only_to_single_versions() {
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
            let source = SourceProperties { newest_only, alone, unique, bounded };
            assert_eq!(pushdown(source), expected, "{source:?}");
        }
    }
}
